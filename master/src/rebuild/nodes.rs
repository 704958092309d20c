//! Storage nodes asked without a master: which backups they lead to, and the chunks of one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{
    ChunkId, Node, NodeId, NodeState,
    handshake::{Greeting, Token, VERSION},
    limits::BATCH_CHUNKS,
    pb::{self, storage_service_client::StorageServiceClient},
    status, transport,
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{backup::root, nodes::chunk_client::ChunkClient};

/// How long a node has to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// The nodes that answer.
pub(super) struct Nodes {
    client: ChunkClient,
    nodes: Vec<Node>,
    /// Of the file system.
    pub(super) fs: Uuid,
    /// What went wrong on the way, one sentence each.
    pub(super) warnings: Vec<String>,
    /// The greatest epoch of garbage collection that any of them knows.
    pub(super) gc_epoch: u64,
    /// The newest last.
    pub(super) roots: BTreeMap<u64, pb::BackupRoot>,
}

/// A node by its address alone.
fn node_at(address: &str) -> Result<Node, String> {
    let wrong = || format!("{address:?} is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(Node {
        id: NodeId(Uuid::nil()),
        host: host.to_owned(),
        port: port.parse().map_err(|_| wrong())?,
        weight: 1,
        zone: String::new(),
        state: NodeState::Up,
        name: address.to_owned(),
    })
}

/// The file system that the node at `address` belongs to.
async fn file_system(address: &str, token: Option<&Token>) -> Result<Uuid, String> {
    let channel = transport::endpoint(address, PATIENCE).map_err(|e| e.to_string())?;
    let channel = channel.connect_lazy();
    let greeting = Greeting::new(None, token);
    let mut client = StorageServiceClient::with_interceptor(channel, greeting);
    let hello = pb::HelloRequest { version: VERSION, ..Default::default() };
    match timeout(PATIENCE, client.hello(hello)).await {
        Ok(Ok(answer)) => answer.get_ref().fs_uuid.parse().map_err(|e| format!("{e}")),
        Ok(Err(refused)) => Err(status::sentence(&refused)),
        Err(_) => Err("no answer".to_owned()),
    }
}

impl Nodes {
    /// Asks the nodes at `addresses` and all others that their backups name.
    pub(super) async fn ask(
        addresses: &[String],
        fs: Option<Uuid>,
        token: Option<&Token>,
    ) -> Result<Self, String> {
        let mut warnings = Vec::new();
        let mut found = fs;
        for address in addresses {
            match (file_system(address, token).await, found) {
                (Ok(theirs), None) => found = Some(theirs),
                (Ok(theirs), Some(ours)) if theirs != ours => {
                    return Err(format!(
                        "the node at {address} belongs to file system {theirs}, not to {ours}: \
                         name the nodes of one file system, and it with --fs"
                    ));
                }
                (Ok(_), Some(_)) => {}
                (Err(why), _) => {
                    warnings.push(format!("the node at {address} does not answer: {why}"))
                }
            }
        }
        let fs = found.ok_or_else(|| {
            format!("no node answers ({}): start the storage nodes first", warnings.join("; "))
        })?;
        let client = ChunkClient::new(Greeting::new(Some(fs), token));
        let (nodes, roots) = (Vec::new(), BTreeMap::new());
        let mut all = Self { client, nodes, fs, warnings, gc_epoch: 0, roots };
        let mut left: Vec<Node> =
            addresses.iter().map(|address| node_at(address)).collect::<Result<_, _>>()?;
        let mut asked = BTreeSet::new();
        while let Some(node) = left.pop() {
            if asked.insert(node.address()) {
                left.extend(all.ask_one(node).await);
            }
        }
        Ok(all)
    }

    /// Takes in what one node knows; further nodes that it names.
    async fn ask_one(&mut self, node: Node) -> Vec<Node> {
        let known = match self.client.backups(&node).await {
            Ok(known) => known,
            Err(error) => {
                let warning = format!("the node at {} tells of no backup: {error}", node.address());
                if !self.warnings.iter().any(|w| w.contains(&node.address())) {
                    self.warnings.push(warning);
                }
                return Vec::new();
            }
        };
        if let Ok(epoch) = self.client.gc_epoch(&node).await {
            self.gc_epoch = self.gc_epoch.max(epoch);
        }
        let mut others = Vec::new();
        for sealed in known {
            match root::open(&sealed) {
                Ok(root) if root.fs_uuid == self.fs.to_string() => {
                    others.extend(root.nodes.iter().filter_map(|n| Node::try_from(n).ok()));
                    self.take(root);
                }
                Ok(_) => {}
                Err(why) => self.warnings.push(format!(
                    "a backup on the node at {} cannot be used: {why}",
                    node.address()
                )),
            }
        }
        self.nodes.push(node);
        others
    }

    /// Of several copies of one root that which was told last that it is current.
    fn take(&mut self, root: pb::BackupRoot) {
        let kept = self.roots.entry(root.generation).or_insert_with(|| root.clone());
        if kept.current_unix_ms < root.current_unix_ms {
            *kept = root;
        }
    }

    /// The chunks of a backup in their order, when every one of them is on some node.
    pub(super) async fn chunks_of(&self, root: &pb::BackupRoot) -> Result<Vec<ChunkId>, String> {
        let mut ids = Vec::new();
        for wire in &root.index {
            let id = ChunkId::try_from(wire.as_ref()).map_err(|e| e.to_string())?;
            let lost = |why| format!("the list of its chunks is on no node that answers: {why}");
            ids.extend(root::ids(&self.get(id).await.map_err(lost)?)?);
        }
        if ids.len() as u64 != root.chunks {
            return Err(format!("{} chunks are listed instead of {}", ids.len(), root.chunks));
        }
        let missing = self.missing(&ids).await;
        match missing.len() {
            0 => Ok(ids),
            n => Err(format!("{n} of {} chunks are on no node that answers", ids.len())),
        }
    }

    /// Those that no node has. What a node has is touched by the question.
    async fn missing(&self, ids: &[ChunkId]) -> Vec<ChunkId> {
        let mut missing: HashMap<ChunkId, ()> = ids.iter().map(|id| (*id, ())).collect();
        for node in &self.nodes {
            let left: Vec<_> = missing.keys().copied().collect();
            for some in left.chunks(BATCH_CHUNKS) {
                let Ok(lengths) = self.client.have(node, some).await else { break };
                for (id, length) in some.iter().zip(lengths.0) {
                    if length.is_some() {
                        missing.remove(id);
                    }
                }
            }
        }
        missing.into_keys().collect()
    }

    /// A chunk, verified.
    pub(super) async fn get(&self, id: ChunkId) -> Result<Bytes, String> {
        let found = self.client.get(&self.nodes, id).await;
        found.map_err(|error| format!("chunk {id} cannot be had: {error}"))
    }

    /// For tasks of their own.
    pub(super) fn getter(&self) -> (ChunkClient, Vec<Node>) {
        (self.client.clone(), self.nodes.clone())
    }
}
