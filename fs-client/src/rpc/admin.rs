//! The plain calls behind the command line: what people ask the master and single nodes.
//!
//! These open no session. Everything has a deadline; streams are read message by message.

use std::{fmt, time::Duration};

use cairn_proto::{ChunkId, Node, NodeState, handshake::Greeting, pb};
use thiserror::Error;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::connect::{self, ConnectError, MasterClient, StorageClient};
use crate::config::ClientConfig;

/// Least time for a change of a node: its chunks may have to be compared with the other nodes'.
const CHANGE: Duration = Duration::from_secs(120);

/// A plain call that failed.
#[derive(Debug, Error)]
#[error("{peer}: {why}")]
pub struct CallError {
    /// Who was asked.
    pub peer: String,
    /// What went wrong, as a sentence.
    pub why: String,
    /// The gRPC code.
    pub code: tonic::Code,
}

impl CallError {
    fn new(peer: &str, status: &Status) -> Self {
        Self {
            peer: peer.to_owned(),
            why: cairn_proto::status::sentence(status),
            code: status.code(),
        }
    }
}

/// A stream of answers, read one by one.
pub struct Answers<T> {
    peer: String,
    stream: Streaming<T>,
    patience: Duration,
}

impl<T> Answers<T> {
    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// When the peer fails, or sends nothing for the configured deadline.
    pub async fn next(&mut self) -> Result<Option<T>, CallError> {
        match tokio::time::timeout(self.patience, self.stream.message()).await {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(status)) => Err(CallError::new(&self.peer, &status)),
            Err(_) => Err(CallError {
                peer: self.peer.clone(),
                why: format!("nothing came for {} s", self.patience.as_secs()),
                code: tonic::Code::DeadlineExceeded,
            }),
        }
    }
}

impl<T> fmt::Debug for Answers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answers({})", self.peer)
    }
}

/// The master, without a session.
#[derive(Clone, Debug)]
pub struct Admin {
    config: ClientConfig,
    hello: pb::HelloResponse,
    fs: Uuid,
    client: MasterClient,
}

impl Admin {
    /// Greets the master.
    ///
    /// # Errors
    /// A sentence that says why it does not answer.
    pub async fn connect(config: &ClientConfig) -> Result<Self, ConnectError> {
        let (hello, fs, channel) = connect::greet_master(config).await?;
        let client = connect::master_client(channel, greeting(config, fs));
        Ok(Self { config: config.clone(), hello, fs, client })
    }

    /// The file system's UUID.
    pub fn fs_uuid(&self) -> Uuid {
        self.fs
    }

    /// The file system's chunk size in bytes.
    pub fn chunk_size(&self) -> u32 {
        self.hello.chunk_size
    }

    /// What the master knows about the store.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn status(&self) -> Result<pb::StatusResponse, CallError> {
        let mut client = self.client.clone();
        self.finish(client.status(pb::StatusRequest {})).await
    }

    /// Every inode below `path` (empty: all), depth first.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn walk(
        &self,
        path: &str,
        with_refs: bool,
    ) -> Result<Answers<pb::WalkEntry>, CallError> {
        let mut client = self.client.clone();
        let request = pb::WalkRequest { path: path.into(), with_refs };
        let stream = self.finish(client.walk(request)).await?;
        Ok(self.answers(stream))
    }

    /// Lets the master collect garbage, and says how far it is.
    ///
    /// # Errors
    /// When the master refuses or does not answer.
    pub async fn collect_garbage(
        &self,
        request: pb::CollectRequest,
    ) -> Result<Answers<pb::CollectProgress>, CallError> {
        let mut client = self.client.clone();
        let stream = self.finish(client.collect_garbage(request)).await?;
        Ok(self.answers(stream))
    }

    /// Checks the namespace; findings as they are made, with what was done about each if `repair`.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn fsck(&self, repair: bool) -> Result<Answers<pb::FsckProgress>, CallError> {
        let mut client = self.client.clone();
        let stream = self.finish(client.fsck(pb::FsckRequest { repair })).await?;
        Ok(self.answers(stream))
    }

    /// All metadata as the parts of a file.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn dump(&self) -> Result<Answers<pb::DumpPart>, CallError> {
        let mut client = self.client.clone();
        let stream = self.finish(client.dump(pb::DumpRequest {})).await?;
        Ok(self.answers(stream))
    }

    /// Changes what a node is used for, or removes it. It may take a while to find out whether it holds
    /// the only copy of anything.
    ///
    /// # Errors
    /// When it cannot be asked, or refuses.
    pub async fn change_node(
        &self,
        request: pb::ChangeNodeRequest,
    ) -> Result<pb::ChangeNodeResponse, CallError> {
        let mut client = self.client.clone();
        let peer = format!("master at {}", self.config.master);
        within(&peer, self.config.deadline.max(CHANGE), client.change_node(request)).await
    }

    /// Changes how many copies there are to be.
    ///
    /// # Errors
    /// When it cannot be asked, or refuses.
    pub async fn set_copies(
        &self,
        request: pb::SetCopiesRequest,
    ) -> Result<pb::SetCopiesResponse, CallError> {
        let mut client = self.client.clone();
        self.finish(client.set_copies(request)).await
    }

    /// Sets or changes the quota of a directory; `None` leaves a limit as it is.
    ///
    /// # Errors
    /// When it cannot be asked, or there is no such directory.
    pub async fn set_quota(
        &self,
        path: &str,
        bytes: Option<u64>,
        inodes: Option<u64>,
    ) -> Result<pb::Quota, CallError> {
        let mut client = self.client.clone();
        let path = path.to_owned();
        let request = pb::SetQuotaRequest { path, bytes_limit: bytes, inodes_limit: inodes };
        self.finish(client.set_quota(request)).await
    }

    /// Takes the quota of a directory away.
    ///
    /// # Errors
    /// When it cannot be asked, or the directory has none.
    pub async fn remove_quota(&self, path: &str) -> Result<pb::Quota, CallError> {
        let mut client = self.client.clone();
        self.finish(client.remove_quota(pb::RemoveQuotaRequest { path: path.to_owned() })).await
    }

    /// All quotas (`path` empty), or that which `path` counts in.
    ///
    /// # Errors
    /// When it cannot be asked, or there is no such path.
    pub async fn quotas(&self, path: &str) -> Result<Vec<pb::Quota>, CallError> {
        let mut client = self.client.clone();
        let request = pb::QuotasRequest { path: path.to_owned() };
        Ok(self.finish(client.quotas(request)).await?.quotas)
    }

    /// The node of a map or status entry; connects at the first call.
    ///
    /// # Errors
    /// When its address makes no sense.
    pub fn node(&self, node: &Node) -> Result<NodeAdmin, CallError> {
        let peer = peer_name(node);
        let lazy = connect::lazy(node, self.config.connect_timeout).map_err(|why| CallError {
            peer: peer.clone(),
            why,
            code: tonic::Code::InvalidArgument,
        })?;
        let client = connect::storage_client(lazy.channel, greeting(&self.config, self.fs));
        Ok(NodeAdmin { peer, patience: self.config.deadline, client })
    }

    async fn finish<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, CallError> {
        within(&format!("master at {}", self.config.master), self.config.deadline, call).await
    }

    fn answers<T>(&self, stream: Streaming<T>) -> Answers<T> {
        let peer = format!("master at {}", self.config.master);
        Answers { peer, stream, patience: self.config.deadline }
    }
}

/// One storage node, asked directly.
#[derive(Clone, Debug)]
pub struct NodeAdmin {
    peer: String,
    patience: Duration,
    client: StorageClient,
}

impl NodeAdmin {
    /// Disks, chunks, uptime.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn status(&self) -> Result<pb::NodeStatusResponse, CallError> {
        let mut client = self.client.clone();
        within(&self.peer, self.patience, client.node_status(pb::NodeStatusRequest {})).await
    }

    /// Makes it begin to read everything again, at its own pace.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn scrub(&self) -> Result<pb::ScrubResponse, CallError> {
        let mut client = self.client.clone();
        within(&self.peer, self.patience, client.scrub(pb::ScrubRequest {})).await
    }

    /// Reads and hashes every chunk there; progress about once a second.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn verify(&self) -> Result<Answers<pb::VerifyProgress>, CallError> {
        let mut client = self.client.clone();
        let call = client.verify(pb::VerifyRequest {});
        let stream = within(&self.peer, self.patience, call).await?;
        Ok(Answers { peer: self.peer.clone(), stream, patience: self.patience })
    }

    /// Up to `limit` chunks with ids greater than `after`, in order, and whether that is the end.
    ///
    /// # Errors
    /// When it cannot be asked, or answers nonsense.
    pub async fn list_chunks(
        &self,
        after: Option<ChunkId>,
        limit: u32,
    ) -> Result<(Vec<(ChunkId, u32)>, bool), CallError> {
        let mut client = self.client.clone();
        let after = after.map(ChunkId::to_wire).unwrap_or_default();
        let call = client.list_chunks(pb::ListChunksRequest { after, limit, ..Default::default() });
        let page = within(&self.peer, self.patience, call).await?;
        let chunks = page
            .chunks
            .iter()
            .map(|c| Ok((ChunkId::try_from(c.id.as_ref())?, c.stored_len)))
            .collect::<Result<_, cairn_proto::Malformed>>()
            .map_err(|e| self.nonsense(e.to_string()))?;
        Ok((chunks, page.end))
    }

    /// The stored length of each chunk that is durable there, `None` for the others.
    ///
    /// # Errors
    /// When it cannot be asked, or answers nonsense.
    pub async fn have(&self, ids: &[ChunkId], touch: bool) -> Result<Vec<Option<u32>>, CallError> {
        let mut client = self.client.clone();
        let wire = ids.iter().map(|id| id.to_wire()).collect();
        let call = client.have(pb::HaveRequest { ids: wire, touch });
        let answer = within(&self.peer, self.patience, call).await?;
        if answer.stored_len_plus_one.len() != ids.len() {
            return Err(self.nonsense("the answer has another length than the question".into()));
        }
        Ok(answer.stored_len_plus_one.into_iter().map(|n| n.checked_sub(1)).collect())
    }

    fn nonsense(&self, why: String) -> CallError {
        CallError { peer: self.peer.clone(), why, code: tonic::Code::Internal }
    }
}

/// How messages name a node.
pub fn peer_name(node: &Node) -> String {
    let word = match node.state {
        NodeState::Up => String::new(),
        other => format!(", {}", other.word()),
    };
    format!("node {} at {}{word}", node.name, node.address())
}

fn greeting(config: &ClientConfig, fs: Uuid) -> Greeting {
    Greeting::new(Some(fs), config.token.as_ref())
}

async fn within<T>(
    peer: &str,
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(patience, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CallError::new(peer, &status)),
        Err(_) => Err(CallError {
            peer: peer.to_owned(),
            why: format!("no answer within {} s", patience.as_secs()),
            code: tonic::Code::DeadlineExceeded,
        }),
    }
}
