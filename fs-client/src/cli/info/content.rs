//! Reads a file's list of chunks and asks the nodes for their copies, a page at a time.

use std::collections::BTreeMap;

use cairn_proto::{Attr, ChunkId, ChunkRef, ClusterMap, FsError, NodeId, pb};
use futures_util::future::join_all;

use super::report::{ChunkInfo, Content, CopyInfo, CopyState};
use crate::{
    cli::{
        failure::Failure,
        progress::Progress,
        reference_sort::ReferenceSort,
        spool::{self, Spool},
        status::report::name_order,
        store::{Store, StorePath},
    },
    file::manifests::flatten,
    rpc::{Admin, NodeAdmin},
    vfs::answers,
};

/// References read at once.
const PAGE: u32 = 4096;

/// The storage nodes, as they are asked for chunks.
pub(super) struct Nodes {
    map: ClusterMap,
    nodes: Vec<AskedNode>,
    /// Nodes that do not answer, and why. They are not asked again.
    away: BTreeMap<String, String>,
}

struct AskedNode {
    id: NodeId,
    name: String,
    node: NodeAdmin,
}

/// What one node says of a page of chunks; `None`: it is away.
type Answer = Option<Vec<Option<u32>>>;

impl Nodes {
    pub(super) async fn new(admin: &Admin) -> Result<Self, Failure> {
        let map = admin.status().await?.map.unwrap_or_default();
        let map = ClusterMap::try_from(&map)
            .map_err(|e| Failure::new(format!("the master's map of the cluster: {e}")))?;
        let mut nodes = Vec::new();
        for node in &map.nodes {
            let (id, name) = (node.id, node.name.clone());
            nodes.push(AskedNode { id, name, node: admin.node(node)? });
        }
        nodes.sort_by(|a, b| name_order(&a.name).cmp(&name_order(&b.name)));
        Ok(Self { map, nodes, away: BTreeMap::new() })
    }

    /// Copies that can be had: not more than there are nodes for them.
    fn wanted(&self) -> u32 {
        let homes = self.map.nodes.iter().filter(|n| n.weight > 0 && n.state.is_home()).count();
        self.map.replicas.min(u32::try_from(homes).unwrap_or(u32::MAX)).max(1)
    }

    async fn ask(&mut self, ids: &[ChunkId]) -> Vec<Answer> {
        let away = &self.away;
        let one = |asked: &AskedNode| {
            let node = (!away.contains_key(&asked.name)).then(|| asked.node.clone());
            async move {
                match node {
                    Some(node) => Some(node.have(ids, false).await),
                    None => None,
                }
            }
        };
        let answers = join_all(self.nodes.iter().map(one)).await;
        let mut checked = Vec::new();
        for (asked, answer) in self.nodes.iter().zip(answers) {
            checked.push(match answer {
                Some(Ok(lengths)) => Some(lengths),
                Some(Err(why)) => {
                    self.away.insert(asked.name.clone(), why.to_string());
                    None
                }
                None => None,
            });
        }
        checked
    }

    /// The copies of the chunk at `position` of what was asked.
    fn copies(&self, chunk: &ChunkRef, position: usize, answers: &[Answer]) -> Vec<CopyInfo> {
        let homes = self.map.homes(self.map.group(&chunk.id));
        let targets: Vec<NodeId> = homes.iter().map(|n| n.id).collect();
        let state = |(asked, answer): (&AskedNode, &Answer)| {
            let state = match answer {
                Some(lengths) => match lengths[position] {
                    Some(len) if len == chunk.stored_len => CopyState::Present,
                    Some(_) => CopyState::WrongLength,
                    None => CopyState::Missing,
                },
                None => CopyState::NodeAway,
            };
            let expected = targets.contains(&asked.id);
            let seen = matches!(state, CopyState::Present | CopyState::WrongLength);
            (expected || seen).then(|| CopyInfo { node: asked.name.clone(), state })
        };
        self.nodes.iter().zip(answers).filter_map(state).collect()
    }
}

/// All chunks of the file; the first `listed` of them are listed.
///
/// # Errors
/// When the master does not answer, or the temporary directory is full.
pub(super) async fn read(
    store: &Store,
    nodes: &mut Nodes,
    path: &StorePath,
    attr: &Attr,
    listed: u64,
    progress: &Progress,
) -> Result<Content, Failure> {
    let chunk_size = store.vfs.chunk_size();
    let whole = attr.size.div_ceil(u64::from(chunk_size));
    progress.begin("chunks", Some(whole));
    let mut content = Content {
        chunk_size,
        chunks: 0,
        holes: 0,
        distinct: 0,
        distinct_bytes: 0,
        copies_wanted: nodes.wanted(),
        complete: 0,
        fewer: 0,
        unknown: 0,
        lost: 0,
        away: BTreeMap::new(),
        list: Spool::default(),
    };
    let mut sort = ReferenceSort::default();
    let mut next = 0;
    loop {
        let page = page(store, attr, next).await.map_err(|e| Failure::at(path, e))?;
        let (next_index, end) = (page.next_index, page.end);
        let references = flatten(next, page.runs).map_err(|e| Failure::at(path, e))?;
        for references in references.chunks(PAGE as usize) {
            note(nodes, references, listed, &mut content, &mut sort).await?;
        }
        progress.add(next_index.saturating_sub(next));
        if end || next_index <= next {
            break;
        }
        next = next_index;
    }
    content.holes = whole.saturating_sub(content.chunks);
    for counted in sort.finish().map_err(spool::full)? {
        content.distinct += 1;
        content.distinct_bytes += u64::from(counted.map_err(spool::full)?.stored_len);
    }
    content.away = nodes.away.clone();
    content.list.finish().map_err(spool::full)?;
    Ok(content)
}

async fn page(store: &Store, attr: &Attr, first_index: u64) -> Result<pb::ManifestPage, FsError> {
    let question = pb::GetFileManifest { ino: attr.ino.get(), first_index, max_refs: PAGE };
    let op = pb::op::Kind::GetFileManifest(question);
    match store.vfs.session().call(store.caller, op).await?.kind {
        pb::reply::Kind::ManifestPage(page) => Ok(page),
        other => Err(answers::unexpected(&other)),
    }
}

/// Asks for the copies of one page of references and counts them.
async fn note(
    nodes: &mut Nodes,
    references: &[(u64, ChunkRef)],
    listed: u64,
    content: &mut Content,
    sort: &mut ReferenceSort,
) -> Result<(), Failure> {
    let ids: Vec<_> = references.iter().map(|(_, chunk)| chunk.id).collect();
    let answers = nodes.ask(&ids).await;
    for (position, (index, chunk)) in references.iter().enumerate() {
        sort.push(chunk.id, 0, chunk.stored_len).map_err(spool::full)?;
        let copies = nodes.copies(chunk, position, &answers);
        let with = |state| copies.iter().filter(|copy| copy.state == state).count();
        let good = with(CopyState::Present);
        content.chunks += 1;
        if good >= content.copies_wanted as usize {
            content.complete += 1;
        } else if good > 0 {
            content.fewer += 1;
        } else if with(CopyState::NodeAway) > 0 {
            content.unknown += 1;
        } else {
            content.lost += 1;
        }
        if content.list.len() < listed {
            let row = ChunkInfo {
                index: *index,
                id: chunk.id.to_string(),
                bytes: chunk.stored_len,
                codec: chunk.codec.word().to_owned(),
                content_bytes: chunk.logical_len,
                copies,
            };
            content.list.push(row).map_err(spool::full)?;
        }
    }
    Ok(())
}
