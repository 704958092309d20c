//! When a backup is taken, and its steps in their order (see [`super`]).
//!
//! Every interval, if something changed; after a failure sooner, and never so often that more than about a
//! tenth of the time goes into it. When nothing changed the nodes are told that the newest is still all
//! there is, so that a restore can say what is lost to the second.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_proto::{ChunkId, ClusterMap, NodeState, pb};
use prost::Message;
use sha2::Digest;
use thiserror::Error;
use tokio::{
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

use super::{
    Progress,
    cutter::Cutter,
    root::{self, VERSION, index_chunks, seal},
    upload::{self, Sent, UploadError},
};
use crate::{
    cluster::Cluster,
    dump::rows::Rows,
    engine::EngineError,
    failpoints,
    format::Format,
    namespace::{BACKUP_IDS_PER_ROW, Counters, Namespace, View},
    nodes::chunk_client::ChunkClient,
    op_thread::{CallError, OpQueue},
    service::unix_ms,
};

/// Chunks cut ahead of the nodes.
const AHEAD: usize = 16;
/// Chunks stored together.
const BATCH: usize = 64;
/// Longest wait after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Of the time, at most one part in so many goes into backups.
const SHARE: u32 = 10;

/// Why there is no new backup.
#[derive(Debug, Error)]
pub(crate) enum BackupError {
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the metadata could not be read: {0}")]
    Engine(#[from] EngineError),
    #[error("no storage node took the root of the backup: {0}")]
    NoRoot(String),
    #[error("garbage collection came between: the backup is begun again")]
    Collected,
    #[error("the master is stopping")]
    Stopping,
}

/// What backups are made from and of.
pub(crate) struct Schedule {
    pub(crate) ops: OpQueue,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) chunks: ChunkClient,
    pub(crate) format: Format,
    pub(crate) progress: Arc<Progress>,
    pub(crate) interval: Duration,
    pub(crate) generations: usize,
}

/// The moment that a backup is of.
struct Moment {
    view: View,
    generation: u64,
    taken_unix_ms: u64,
    incarnation: u64,
    changes: u64,
    counters: Counters,
    gc_epoch: u64,
    kept: Vec<(u64, Bytes)>,
}

/// What was taken last.
struct Newest {
    root: pb::BackupRoot,
    changes: u64,
    drop_below: u64,
}

impl Schedule {
    /// Takes backups until the task is dropped.
    pub(crate) async fn run(self) {
        let seconds = u32::try_from(self.interval.as_secs()).unwrap_or(u32::MAX);
        self.progress.note(|status| status.interval_seconds = seconds);
        if self.interval.is_zero() {
            return;
        }
        let mut newest: Option<Newest> = None;
        let mut wait = self.interval;
        loop {
            sleep(wait).await;
            let started = Instant::now();
            let outcome = self.attempt(&mut newest).await;
            wait = self.interval.max(started.elapsed() * (SHARE - 1));
            match outcome {
                Ok(()) => self.progress.note(|status| status.failure.clear()),
                Err(BackupError::Stopping | BackupError::Call(CallError::Stopping)) => return,
                Err(error) => {
                    tracing::warn!(%error, "no backup of the metadata was made; trying again soon");
                    self.progress.note(|status| {
                        status.failed += 1;
                        status.failure = error.to_string();
                    });
                    wait = self.interval.min(RETRY);
                }
            }
        }
    }

    async fn attempt(&self, newest: &mut Option<Newest>) -> Result<(), BackupError> {
        let started = Instant::now();
        let moment = self.ops.call(false, moment).await??;
        if let Some(newest) = newest.as_mut().filter(|newest| newest.changes == moment.changes) {
            return self.confirm(newest, moment.taken_unix_ms).await;
        }
        let (generation, changes) = (moment.generation, moment.changes);
        let drop_below = moment.kept.first().map_or(0, |(generation, _)| *generation);
        let mut kept: Vec<u64> = moment.kept.iter().map(|(generation, _)| *generation).collect();
        let (root, sent) = self.store(moment).await?;
        failpoints::hit(failpoints::BACKUP_CHUNKS);
        let bytes = Bytes::from(root.encode_to_vec());
        let degraded: Vec<u32> = sent.degraded.iter().copied().collect();
        let finish = move |namespace: &mut Namespace| {
            namespace.finish_backup(generation, bytes);
            // Group numbers of the map are always in range.
            namespace.note_degraded(&degraded).is_ok()
        };
        self.ops.call(true, finish).await?;
        failpoints::hit(failpoints::BACKUP_FINISHED);
        let map = self.cluster.map();
        let roots = self.give_roots(&map, &root, drop_below).await?;
        failpoints::hit(failpoints::BACKUP_ROOTS);
        if roots >= (map.replicas as usize).min(map.nodes.len()) {
            kept.push(generation);
            let surplus = kept.len().saturating_sub(self.generations);
            self.forget(kept.split_off(surplus)).await?;
        }
        self.note_done(&root, &sent, roots, started.elapsed());
        *newest = Some(Newest { root, changes, drop_below });
        Ok(())
    }

    /// Nothing has changed since the newest.
    async fn confirm(&self, newest: &mut Newest, now: u64) -> Result<(), BackupError> {
        newest.root.current_unix_ms = now;
        let map = self.cluster.map();
        let roots = self.give_roots(&map, &newest.root, newest.drop_below).await?;
        self.progress.note(|status| {
            status.current_unix_ms = now;
            status.roots = u32::try_from(roots).unwrap_or(u32::MAX);
        });
        Ok(())
    }

    /// Puts all chunks where they belong and notes their ids.
    async fn store(&self, moment: Moment) -> Result<(pb::BackupRoot, Sent), BackupError> {
        let Moment {
            view,
            generation,
            taken_unix_ms,
            incarnation,
            changes,
            counters,
            gc_epoch,
            ..
        } = moment;
        let (chunks, mut cut) = mpsc::channel(AHEAD);
        let chunk_size = self.format.chunk_size;
        let cutting = spawn_blocking(move || cut_all(&view, chunk_size, &chunks));
        let mut storing = Storing::new(self, generation);
        let mut bytes = 0;
        while let Some(chunk) = cut.recv().await {
            let chunk = chunk?;
            bytes += chunk.len() as u64;
            storing.add(chunk).await?;
        }
        let (rows, sha256) = cutting.await.map_err(|_| BackupError::Stopping)?;
        storing.flush().await?;
        let ids = std::mem::take(&mut storing.ids);
        let index = index_chunks(&ids, chunk_size);
        for chunk in &index {
            storing.add(chunk.clone()).await?;
        }
        storing.flush().await?;
        storing.note().await?;
        let map = self.cluster.map();
        let root = pb::BackupRoot {
            version: VERSION,
            fs_uuid: self.format.fs_uuid.to_string(),
            generation,
            taken_unix_ms,
            current_unix_ms: taken_unix_ms,
            incarnation,
            commits: changes,
            chunk_size,
            replicas: map.replicas,
            min_replicas: map.min_replicas,
            pg_bits: map.pg_bits,
            gc_epoch,
            rows,
            bytes,
            chunks: ids.len() as u64,
            index: index.iter().map(|chunk| ChunkId::of(chunk).to_wire()).collect(),
            files: counters.files,
            directories: counters.directories,
            nodes: map.nodes.iter().map(pb::Node::from).collect(),
            sha256: sha256.into(),
            compression: Some(map.compression.into()),
        };
        Ok((root, storing.sent))
    }

    /// Gives the root to every node that may answer; how many took it.
    async fn give_roots(
        &self,
        map: &ClusterMap,
        root: &pb::BackupRoot,
        drop_below: u64,
    ) -> Result<usize, BackupError> {
        let request = pb::KeepBackupRequest { backup: Some(seal(root)), drop_below };
        let mut nodes = JoinSet::new();
        for node in map.nodes.iter().filter(|node| answers(node.state)) {
            let (client, node, request) = (self.chunks.clone(), node.clone(), request.clone());
            nodes.spawn(async move { (client.keep_backup(&node, request).await, node.name) });
        }
        let (mut taken, mut refused) = (0, Vec::new());
        while let Some(outcome) = nodes.join_next().await {
            match outcome {
                Ok((Ok(()), _)) => taken += 1,
                Ok((Err(error), node)) => refused.push(format!("{node}: {error}")),
                Err(_) => refused.push("the master's own task failed".to_owned()),
            }
        }
        if taken == 0 {
            return Err(BackupError::NoRoot(match refused.is_empty() {
                true => "none is up".to_owned(),
                false => refused.join("; "),
            }));
        }
        Ok(taken)
    }

    async fn forget(&self, kept: Vec<u64>) -> Result<(), BackupError> {
        loop {
            let kept = kept.clone();
            let step = move |namespace: &mut Namespace| namespace.forget_backups(&kept);
            if !self.ops.call(false, step).await?? {
                return Ok(());
            }
        }
    }

    fn note_done(&self, root: &pb::BackupRoot, sent: &Sent, roots: usize, took: Duration) {
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(
            generation = root::name(root.generation),
            rows = root.rows,
            chunks = root.chunks,
            sent = sent.chunks,
            roots,
            duration_ms,
            "the metadata is backed up"
        );
        self.progress.note(|status| {
            status.generation = root.generation;
            status.taken_unix_ms = root.taken_unix_ms;
            status.current_unix_ms = root.current_unix_ms;
            status.bytes = root.bytes;
            status.chunks = root.chunks;
            status.rows = root.rows;
            status.roots = u32::try_from(roots).unwrap_or(u32::MAX);
            status.duration_ms = duration_ms;
            status.done += 1;
            status.chunks_sent += sent.chunks;
            status.bytes_sent += sent.bytes;
        });
    }
}

const fn answers(state: NodeState) -> bool {
    match state {
        NodeState::Up | NodeState::Suspect | NodeState::Draining | NodeState::Maintenance => true,
        NodeState::Down | NodeState::Out => false,
    }
}

fn moment(namespace: &mut Namespace) -> Result<Moment, EngineError> {
    Ok(Moment {
        // Before the snapshot, so that what a restore calls saved is saved.
        taken_unix_ms: unix_ms(),
        view: namespace.view()?,
        generation: namespace.next_backup(),
        incarnation: namespace.incarnation(),
        changes: namespace.changes_made(),
        counters: namespace.counters(),
        gc_epoch: namespace.stamps().epoch,
        kept: namespace.backups()?,
    })
}

/// Number of rows and SHA-256 over all chunks. Blocks.
fn cut_all(
    view: &View,
    chunk_size: u32,
    chunks: &mpsc::Sender<Result<Bytes, EngineError>>,
) -> (u64, Vec<u8>) {
    let mut cutter = Cutter::new(Rows::of(view.reader()), chunk_size);
    for chunk in cutter.by_ref() {
        if chunks.blocking_send(chunk).is_err() {
            break;
        }
    }
    (cutter.counts.total(), cutter.sha.clone().finalize().to_vec())
}

/// Chunks on their way, and the ids of those that are stored.
struct Storing<'a> {
    schedule: &'a Schedule,
    generation: u64,
    batch: HashMap<ChunkId, Bytes>,
    /// In the order in which they came.
    ids: Vec<ChunkId>,
    stored: Vec<ChunkId>,
    part: u64,
    sent: Sent,
}

impl<'a> Storing<'a> {
    fn new(schedule: &'a Schedule, generation: u64) -> Self {
        Self {
            schedule,
            generation,
            batch: HashMap::new(),
            ids: Vec::new(),
            stored: Vec::new(),
            part: 0,
            sent: Sent::default(),
        }
    }

    async fn add(&mut self, chunk: Bytes) -> Result<(), BackupError> {
        let id = ChunkId::of(&chunk);
        self.ids.push(id);
        self.batch.insert(id, chunk);
        if self.batch.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), BackupError> {
        let batch = std::mem::take(&mut self.batch);
        self.stored.extend(batch.keys());
        let map = self.schedule.cluster.map();
        let sent = upload::store(&self.schedule.chunks, &map, batch).await?;
        self.sent.add(sent);
        if self.stored.len() >= BACKUP_IDS_PER_ROW { self.note().await } else { Ok(()) }
    }

    /// Writes the ids of what is stored into rows.
    async fn note(&mut self) -> Result<(), BackupError> {
        let ids = std::mem::take(&mut self.stored);
        let (generation, part) = (self.generation, self.part);
        self.part += 1;
        let stamp = self.sent.gc_epoch.unwrap_or(u64::MAX);
        let note = move |namespace: &mut Namespace| {
            let accepted = namespace.accepts_stamp(stamp);
            if accepted {
                namespace.note_backup_chunks(generation, part, &ids);
            }
            accepted
        };
        match self.schedule.ops.call(false, note).await? {
            true => {
                // Those of the next row have stamps of their own.
                self.sent.gc_epoch = None;
                Ok(())
            }
            false => Err(BackupError::Collected),
        }
    }
}
