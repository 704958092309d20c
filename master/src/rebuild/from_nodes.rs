//! `cairn-master restore-from-nodes`: the newest backup that is whole becomes a data directory.
//!
//! Generations are tried from the newest on; one whose chunks are not all there, or that turns out to be
//! damaged, is passed over and named. Nothing is written on the nodes.

use std::{collections::VecDeque, path::Path, sync::Arc};

use bytes::Bytes;
use cairn_proto::{ChunkId, handshake::Token, pb};
use prost::Message;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};
use uuid::Uuid;

use super::{from_dump::settle, nodes::Nodes};
use crate::{
    backup::root,
    dump::{
        Head,
        load::{Least, LoadError, Loader},
        rows::Parser,
    },
    engine::fjall::{FjallEngine, Options},
    format::{self, Format},
    namespace::{BACKUP_IDS_PER_ROW, Namespace},
    server,
};

/// Chunks asked for ahead of the disk.
const AHEAD: usize = 16;

/// What to restore.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// `HOST:PORT` of some or all storage nodes.
    pub nodes: Vec<String>,
    /// The file system; by default that of the nodes.
    pub fs: Option<Uuid>,
    /// The shared secret.
    pub token: Option<Token>,
    /// This generation and no other.
    pub generation: Option<u64>,
}

/// One backup as the nodes know it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it is of.
    pub root: pb::BackupRoot,
    /// Why it cannot be restored, if so.
    pub missing: Option<String>,
}

impl Listed {
    /// Its generation as people write it.
    pub fn name(&self) -> String {
        root::name(self.root.generation)
    }
}

/// What was found and done.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The backup that the directory was made of.
    pub root: pb::BackupRoot,
    /// Newer ones that could not be used, and why.
    pub passed_over: Vec<Listed>,
    /// Nodes that did not answer, damaged roots.
    pub warnings: Vec<String>,
}

/// Why nothing was restored: a sentence.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The nodes.
    #[error("{0}")]
    Nodes(String),
    /// There is no backup that can be used.
    #[error("no backup can be restored: {0}")]
    Nothing(String),
    /// The directory.
    #[error(transparent)]
    Format(#[from] format::FormatError),
}

/// What a generation is called in an argument.
///
/// # Errors
/// A sentence.
pub fn generation(text: &str) -> Result<u64, String> {
    root::parse_name(text)
}

/// All backups that the nodes know, the newest first.
///
/// # Errors
/// When no node answers.
pub async fn list(wanted: &Wanted) -> Result<(Vec<Listed>, Vec<String>), RestoreError> {
    let nodes = ask(wanted).await?;
    let mut listed = Vec::new();
    for root in nodes.roots.values().rev() {
        let missing = nodes.chunks_of(root).await.err();
        listed.push(Listed { root: root.clone(), missing });
    }
    Ok((listed, nodes.warnings))
}

async fn ask(wanted: &Wanted) -> Result<Nodes, RestoreError> {
    let asked = Nodes::ask(&wanted.nodes, wanted.fs, wanted.token.as_ref()).await;
    asked.map_err(RestoreError::Nodes)
}

/// Makes `dir` the data directory of the file system in the newest backup that is whole.
///
/// # Errors
/// When no node answers, nothing can be restored, or the directory holds anything.
pub async fn restore(dir: &Path, wanted: &Wanted) -> Result<Restored, RestoreError> {
    format::must_be_empty(dir)?;
    let nodes = Arc::new(ask(wanted).await?);
    let mut passed_over = Vec::new();
    let chosen = |generation: u64| wanted.generation.is_none_or(|only| only == generation);
    for root in nodes.roots.values().rev().filter(|root| chosen(root.generation)) {
        match restore_one(dir, &nodes, root).await? {
            Ok(()) => {
                let warnings = nodes.warnings.clone();
                return Ok(Restored { root: root.clone(), passed_over, warnings });
            }
            Err(why) => {
                let listed = Listed { root: root.clone(), missing: Some(why) };
                tracing::warn!(generation = listed.name(), why = listed.missing, "passed over");
                passed_over.push(listed);
            }
        }
    }
    let why = match passed_over.as_slice() {
        [] => "the nodes that answer keep none: name all nodes with --node, see --list".to_owned(),
        some => some.iter().map(sentence).collect::<Vec<_>>().join("; "),
    };
    let all: Vec<_> = nodes.warnings.iter().cloned().chain([why]).collect();
    Err(RestoreError::Nothing(all.join("; ")))
}

fn sentence(listed: &Listed) -> String {
    format!("generation {}: {}", listed.name(), listed.missing.as_deref().unwrap_or("it is whole"))
}

/// `Ok(Err(..))`: this backup will not do.
async fn restore_one(
    dir: &Path,
    nodes: &Arc<Nodes>,
    root: &pb::BackupRoot,
) -> Result<Result<(), String>, RestoreError> {
    let ids = match nodes.chunks_of(root).await {
        Ok(ids) => ids,
        Err(why) => return Ok(Err(why)),
    };
    let head = Head {
        fs_uuid: root.fs_uuid.clone(),
        chunk_size: root.chunk_size,
        replicas: root.replicas,
        min_replicas: root.min_replicas,
        pg_bits: root.pg_bits,
        compression: root.compression,
        ..Head::default()
    };
    let format = match head.format() {
        Ok(format) => format,
        Err(why) => return Ok(Err(why)),
    };
    // What any master has called itself, so that the new one is newer than all.
    let newest =
        nodes.roots.values().map(|r| r.incarnation.max(root::incarnation_of(r.generation)));
    let least = Least { incarnation: newest.max().unwrap_or_default(), gc_epoch: nodes.gc_epoch };
    let (chunks, received) = mpsc::channel(AHEAD);
    let fetching = tokio::spawn(fetch(Arc::clone(nodes), ids.clone(), chunks));
    let (dir, root) = (dir.to_owned(), root.clone());
    let loading = spawn_blocking(move || {
        format::format(&dir, &format, |meta| fill(meta, &format, &root, &ids, least, received))
    });
    let loaded = loading.await;
    fetching.abort();
    match loaded {
        Ok(Ok(())) => Ok(Ok(())),
        Ok(Err(format::FormatError::Fill(why))) => Ok(Err(why)),
        Ok(Err(other)) => Err(other.into()),
        Err(_) => Err(RestoreError::Nodes("the restore panicked; the log has the place".into())),
    }
}

/// Sends the chunks in their order, some fetched ahead.
async fn fetch(nodes: Arc<Nodes>, ids: Vec<ChunkId>, chunks: mpsc::Sender<Result<Bytes, String>>) {
    let mut under_way: VecDeque<JoinHandle<Result<Bytes, String>>> = VecDeque::new();
    let mut left = ids.into_iter();
    loop {
        while under_way.len() < AHEAD
            && let Some(id) = left.next()
        {
            let (client, holders) = nodes.getter();
            under_way.push_back(tokio::spawn(async move {
                let found = client.get(&holders, id).await;
                found.map_err(|error| format!("chunk {id} cannot be had: {error}"))
            }));
        }
        let Some(next) = under_way.pop_front() else { return };
        let chunk = next.await.unwrap_or_else(|error| Err(error.to_string()));
        if chunks.send(chunk).await.is_err() {
            return;
        }
    }
}

fn broken(why: impl ToString) -> LoadError {
    LoadError::Rows(why.to_string())
}

/// Puts the rows into the engine in `meta`. Blocks.
fn fill(
    meta: &Path,
    format: &Format,
    root: &pb::BackupRoot,
    ids: &[ChunkId],
    least: Least,
    mut chunks: mpsc::Receiver<Result<Bytes, String>>,
) -> Result<(), LoadError> {
    let engine = Arc::new(FjallEngine::open(meta, Options::default())?);
    let mut loader = Loader::new(engine.as_ref(), format.chunk_size);
    let mut parser = Parser::default();
    let mut sha = Sha256::new();
    while let Some(chunk) = chunks.blocking_recv() {
        let chunk = chunk.map_err(broken)?;
        sha.update(&chunk);
        parser.push(&chunk);
        while let Some(row) = parser.row().map_err(broken)? {
            loader.row(row)?;
        }
    }
    if !parser.is_empty() || sha.finalize()[..] != root.sha256[..] {
        return Err(broken("what came is not what was backed up"));
    }
    if loader.counts().total() != root.rows {
        let (found, expected) = (loader.counts().total(), root.rows);
        return Err(broken(format!("{found} rows came instead of {expected}")));
    }
    loader.finish(least)?;
    keep(&engine, format, root, ids)?;
    settle(engine, format)
}

/// The backup that was restored stays no garbage until newer ones are made.
fn keep(
    engine: &Arc<FjallEngine>,
    format: &Format,
    root: &pb::BackupRoot,
    ids: &[ChunkId],
) -> Result<(), LoadError> {
    let mut namespace = Namespace::open(Arc::clone(engine) as _, server::params(format))?;
    let index = root.index.iter().filter_map(|id| ChunkId::try_from(id.as_ref()).ok());
    let all: Vec<ChunkId> = ids.iter().copied().chain(index).collect();
    for (part, some) in (0..).zip(all.chunks(BACKUP_IDS_PER_ROW)) {
        namespace.note_backup_chunks(root.generation, part, some);
    }
    namespace.finish_backup(root.generation, root.encode_to_vec().into());
    namespace.commit()?;
    Ok(())
}
