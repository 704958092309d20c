//! GetManifest: a file as a list of whole chunks, for clients that know nothing of holes and clips.
//!
//! Where the file has a hole, a chunk that is compressed, or one of which only a part counts, a chunk with
//! exactly those bytes is made and put to its nodes, and the answer names that one. The file itself does
//! not change.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use cairn_proto::{
    ChunkError, ChunkId, ChunkRef, Codec, FileKind, FsError, Ino, ManifestRun, Node,
    limits::LEGACY_PAGE_MAX, pb, range, status,
};
use tokio::task::{JoinError, JoinSet};
use tonic::Status;

use super::{Service, file_path, targets};
use crate::namespace::Namespace;

/// Chunks that are made at the same time.
const MAKING: usize = 16;

/// A part of a file's references, one for each chunk.
struct Page {
    size: u64,
    data_version: u64,
    refs: Vec<Option<ChunkRef>>,
}

/// A chunk that has to be made: content, and zeros up to a length.
type Wanted = (Option<ChunkRef>, u32);

/// What became of one.
type Made = Result<(Wanted, ChunkId), Status>;

/// Where a page begins, and in which version of the file.
struct Token {
    data_version: u64,
    index: u64,
}

impl Token {
    fn parse(text: &str) -> Result<Option<Self>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let parts = text.split_once('-').and_then(|(version, index)| {
            Some(Self { data_version: version.parse().ok()?, index: index.parse().ok()? })
        });
        let wrong = || {
            Status::invalid_argument(format!(
                "{text:?} is no page token: pass on next_page_token of the page before"
            ))
        };
        parts.map(Some).ok_or_else(wrong)
    }

    fn text(&self) -> String {
        format!("{}-{}", self.data_version, self.index)
    }
}

impl Service {
    /// One page of the chunks of a file.
    pub(super) async fn file_manifest(
        self: &Arc<Self>,
        request: pb::GetManifestRequest,
    ) -> Result<pb::GetManifestResponse, Status> {
        let path = file_path::check(&request.filename)?.to_owned();
        let token = Token::parse(&request.page_token)?;
        let first = token.as_ref().map_or(0, |t| t.index);
        let count = match request.page_size {
            0 => LEGACY_PAGE_MAX,
            asked => asked.min(LEGACY_PAGE_MAX),
        };
        let chunk_size = self.format.chunk_size;
        let page = {
            let path = path.clone();
            let read = move |ns: &mut Namespace| read_page(ns, &path, first, count, chunk_size);
            self.ops.call(false, read).await?
        };
        let page = page.map_err(|error| status::from_fs(error, format!("{path}: {error}")))?;
        if token.is_some_and(|t| t.data_version != page.data_version) {
            return Err(Status::aborted(format!(
                "{path} has changed since its first page was read: begin again"
            )));
        }
        let index = first + page.refs.len() as u64;
        let more = index < range::chunk_count(page.size, chunk_size);
        let next = Token { data_version: page.data_version, index };
        Ok(pb::GetManifestResponse {
            chunks: self.whole_chunks(&page, first).await?,
            next_page_token: if more { next.text() } else { String::new() },
            size: page.size,
        })
    }

    async fn whole_chunks(
        self: &Arc<Self>,
        page: &Page,
        first: u64,
    ) -> Result<Vec<String>, Status> {
        // In this order: `first` comes from the caller, and there may be nothing after it.
        let wanted: Vec<Wanted> = page
            .refs
            .iter()
            .zip(first..)
            .map(|(chunk, i)| (*chunk, range::len_within(i, page.size, self.format.chunk_size)))
            .collect();
        let mut made: HashMap<Wanted, ChunkId> = HashMap::new();
        let mut begun = HashSet::new();
        let mut making = JoinSet::new();
        for wanted in &wanted {
            if whole(wanted).is_some() || !begun.insert(*wanted) {
                continue;
            }
            if making.len() >= MAKING {
                note(&mut made, making.join_next().await)?;
            }
            let (service, wanted) = (Arc::clone(self), *wanted);
            making.spawn(async move { Ok((wanted, service.make(wanted).await?)) });
        }
        while !making.is_empty() {
            note(&mut made, making.join_next().await)?;
        }
        let id = |wanted: &Wanted| whole(wanted).or_else(|| made.get(wanted).copied());
        let ids: Option<Vec<_>> = wanted.iter().map(|w| Some(id(w)?.to_string())).collect();
        ids.ok_or_else(|| Status::internal("a chunk that was made is not known"))
    }

    /// Puts a chunk of `len` bytes with the content of `chunk`, zeros after it.
    async fn make(self: &Arc<Self>, (chunk, len): Wanted) -> Result<ChunkId, Status> {
        let map = self.cluster.map();
        let mut content = Vec::new();
        if let Some(chunk) = chunk {
            let nodes: Vec<Node> =
                map.read_order(map.group(&chunk.id)).into_iter().cloned().collect();
            let stored = self.chunks.get(&nodes, chunk.id).await.map_err(|error| {
                status::from_chunk(error, format!("chunk {} cannot be read: {error}", chunk.id))
            })?;
            let bound = self.format.chunk_size as usize;
            let whole = self.codecs.unpack(chunk.codec, stored, bound).map_err(|_| {
                let error = ChunkError::Damaged;
                status::from_chunk(error, format!("chunk {} cannot be decoded", chunk.id))
            })?;
            content.extend_from_slice(&whole[..whole.len().min(chunk.logical_len as usize)]);
        }
        content.resize(len as usize, 0);
        let id = ChunkId::of(&content);
        let data = Bytes::from(content);
        let mut puts = JoinSet::new();
        for node in targets::enough(&map, &id)? {
            let (service, node, data) = (Arc::clone(self), node.clone(), data.clone());
            puts.spawn(async move { service.chunks.put(&node, id, data).await });
        }
        let (mut stored, mut failed) = (0, ChunkError::Unreachable);
        while let Some(put) = puts.join_next().await {
            match put {
                Ok(Ok(())) => stored += 1,
                Ok(Err(error)) => failed = error,
                Err(_) => {}
            }
        }
        if stored < map.min_replicas {
            let why = format!("the end of the file could not be made into a chunk: {failed}");
            return Err(status::from_chunk(failed, why));
        }
        Ok(id)
    }
}

/// The id of a chunk that need not be made: all of its stored bytes count, as they are.
fn whole((chunk, len): &Wanted) -> Option<ChunkId> {
    let whole =
        |c: &ChunkRef| c.codec == Codec::Plain && c.stored_len == *len && c.logical_len == *len;
    chunk.filter(whole).map(|c| c.id)
}

/// Enters a chunk that was made.
fn note(
    made: &mut HashMap<Wanted, ChunkId>,
    outcome: Option<Result<Made, JoinError>>,
) -> Result<(), Status> {
    let Some(outcome) = outcome else { return Ok(()) };
    let panicked =
        |_| Status::internal("making a chunk panicked; the log of the master has the place");
    let (wanted, id) = outcome.map_err(panicked)??;
    made.insert(wanted, id);
    Ok(())
}

/// On the op thread: the references of up to `count` chunks from chunk `first` on.
fn read_page(
    namespace: &mut Namespace,
    path: &str,
    first: u64,
    count: u32,
    chunk_size: u32,
) -> Result<Page, FsError> {
    let attr = namespace.resolve(path)?;
    match attr.kind() {
        FileKind::Regular => {}
        FileKind::Directory => return Err(FsError::IsDirectory),
        FileKind::Symlink
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice
        | FileKind::BlockDevice => return Err(FsError::InvalidArgument),
    }
    let stop = range::chunk_count(attr.size, chunk_size).min(first.saturating_add(count.into()));
    let refs = references(namespace, attr.ino, first, stop)?;
    Ok(Page { size: attr.size, data_version: attr.data_version, refs })
}

fn references(
    namespace: &mut Namespace,
    ino: Ino,
    first: u64,
    stop: u64,
) -> Result<Vec<Option<ChunkRef>>, FsError> {
    let len = usize::try_from(stop.saturating_sub(first)).map_err(|_| FsError::Overflow)?;
    let mut refs = vec![None; len];
    let mut at = first;
    while at < stop {
        let left = u32::try_from(stop - at).map_err(|_| FsError::Overflow)?;
        let page = namespace.manifest_page(ino, at, left)?;
        for run in page.runs {
            let run = ManifestRun::try_from(run)?;
            for (index, chunk) in (run.first_index..).zip(run.refs) {
                if let Some(place) = index
                    .checked_sub(first)
                    .and_then(|i| usize::try_from(i).ok())
                    .and_then(|i| refs.get_mut(i))
                {
                    *place = chunk;
                }
            }
        }
        if page.end || page.next_index <= at {
            break;
        }
        at = page.next_index;
    }
    Ok(refs)
}
