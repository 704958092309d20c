//! The gRPC edge: what comes from the wire is checked here, answered from the cluster map or handed
//! to the op thread, and turned into wire form again. No rule of the file system lives here.
//!
//! - [`master`]: the generated trait, a line or two per call.
//! - [`targets`], [`announce`], [`list`], [`file_manifest`], [`register`]: the six plain calls.
//! - [`nodes`]: what people decide about nodes and copies.
//! - [`collect`]: cycles of garbage collection on request.
//! - [`greeting`]: Hello. [`status`]: what people ask. [`scan`]: walk and fsck over a snapshot.
//! - [`dump`]: all of it as a file. [`quota`]: limits of directories.

mod announce;
mod collect;
mod dump;
mod file_manifest;
mod file_path;
mod greeting;
mod list;
mod master;
mod nodes;
pub(crate) mod quota;
mod register;
mod scan;
mod status;
mod targets;

pub(crate) use self::{dump::unix_ms, master::Edge};

use std::{net::SocketAddr, sync::Arc, time::Instant};

use cairn_codec::Codecs;
use tokio::sync::{Notify, Semaphore};

use crate::{
    activity::Activity, backup::Progress, cluster::Cluster, format::Format, gc::Collector,
    nodes::chunk_client::ChunkClient, op_thread::OpQueue, repair::Repair,
    session::stream::Sessions,
};

/// Everything that calls are answered from.
pub(crate) struct Service {
    /// What the file system was formatted with.
    pub(crate) format: Format,
    /// Where this master listens.
    pub(crate) address: SocketAddr,
    /// Its data directory, in full.
    pub(crate) data_dir: String,
    /// When it started.
    pub(crate) started: Instant,
    /// What it has done.
    pub(crate) activity: Arc<Activity>,
    /// The op thread.
    pub(crate) ops: OpQueue,
    /// The sessions.
    pub(crate) sessions: Arc<Sessions>,
    /// The nodes.
    pub(crate) cluster: Arc<Cluster>,
    /// Who looks after the copies.
    pub(crate) repair: Arc<Repair>,
    /// Connections to the nodes.
    pub(crate) chunks: ChunkClient,
    /// For clients that want every chunk as it is.
    pub(crate) codecs: Codecs,
    /// How backups of the metadata fare.
    pub(crate) backups: Arc<Progress>,
    /// Told when a quota has something to be counted.
    pub(crate) quota_work: Arc<Notify>,
    /// Garbage collection.
    pub(crate) collector: Arc<Collector>,
    /// Walks and checks that may run at once.
    pub(crate) scans: Arc<Semaphore>,
}

#[cfg(test)]
mod tests;
