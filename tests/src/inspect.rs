//! What the master and the nodes say about themselves, asked over the wire as any client would.

use std::{
    fs, future::Future, os::unix::fs::MetadataExt as _, path::Path, str::FromStr, time::Duration,
};

use cairn_proto::{
    handshake::Greeting,
    limits, pb,
    pb::{
        master_service_client::MasterServiceClient, storage_service_client::StorageServiceClient,
    },
    transport,
};
use tonic::{Status, service::interceptor::InterceptedService, transport::Channel};
use uuid::Uuid;

use crate::Cluster;

/// A client of the master with our headers.
pub type Master = MasterServiceClient<InterceptedService<Channel, Greeting>>;
/// A client of a storage node with our headers.
pub type Storage = StorageServiceClient<InterceptedService<Channel, Greeting>>;

/// Runs `work` to its end, for at most `seconds`.
///
/// # Panics
/// When it takes longer.
pub fn block_on<T>(seconds: u64, work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system has file descriptors left");
    let limited = async { tokio::time::timeout(Duration::from_secs(seconds), work).await };
    runtime.block_on(limited).unwrap_or_else(|_| panic!("no answer after {seconds} seconds"))
}

/// A lazy connection to `address`.
///
/// # Panics
/// When `address` is not `HOST:PORT`.
pub fn channel(address: &str) -> Channel {
    let endpoint = transport::endpoint(address, Duration::from_secs(5));
    endpoint.expect("an address is a valid endpoint").connect_lazy()
}

/// The master of `cluster`.
///
/// # Panics
/// When the cluster has no UUID.
pub fn master(cluster: &Cluster) -> Master {
    let fs = Uuid::from_str(cluster.fs_uuid()).expect("format printed a UUID");
    let greeting = Greeting::new(Some(fs), None);
    MasterServiceClient::with_interceptor(channel(&cluster.master_address()), greeting)
        .max_decoding_message_size(limits::MESSAGE_MAX)
}

/// Node `n` of `cluster`.
///
/// # Panics
/// When the cluster has no UUID.
pub fn storage(cluster: &Cluster, n: usize) -> Storage {
    let fs = Uuid::from_str(cluster.fs_uuid()).expect("format printed a UUID");
    let greeting = Greeting::new(Some(fs), None);
    StorageServiceClient::with_interceptor(channel(&cluster.node_address(n).to_string()), greeting)
        .max_decoding_message_size(limits::MESSAGE_MAX)
        .max_encoding_message_size(usize::MAX)
}

/// What the master says.
///
/// # Errors
/// When it does not answer.
pub fn status(cluster: &Cluster) -> Result<pb::StatusResponse, Status> {
    block_on(15, async { Ok(master(cluster).status(pb::StatusRequest {}).await?.into_inner()) })
}

/// How many nodes the master calls up.
///
/// # Errors
/// When it does not answer.
pub fn nodes_up(cluster: &Cluster) -> Result<usize, Status> {
    let map = status(cluster)?.map.unwrap_or_default();
    Ok(map.nodes.iter().filter(|n| n.state() == pb::NodeState::Up).count())
}

/// Bytes of chunks that all nodes together hold, asked of the nodes themselves.
///
/// # Panics
/// When a node does not answer.
pub fn stored_bytes(cluster: &Cluster, nodes: usize) -> u64 {
    let mut sum = 0;
    for n in 0..nodes {
        let status =
            block_on(15, async { storage(cluster, n).node_status(pb::NodeStatusRequest {}).await });
        let status = status.expect("a running node states what it holds").into_inner();
        sum += status.disks.iter().map(|d| d.chunk_bytes).sum::<u64>();
    }
    sum
}

/// Bytes of the disk that the segments of all nodes together take.
///
/// # Panics
/// When there are none.
pub fn segment_bytes(cluster: &Cluster, nodes: usize) -> u64 {
    let of = |data: &Path| -> u64 {
        let files = fs::read_dir(data.join("segments")).expect("a node has segments");
        let taken = |file: fs::DirEntry| file.metadata().map_or(0, |file| file.blocks() * 512);
        files.flatten().map(taken).sum()
    };
    (0..nodes).map(|n| of(cluster.node_data(n))).sum()
}

/// The chunks that all nodes together hold.
///
/// # Panics
/// When a node does not answer.
pub fn stored_chunks(cluster: &Cluster, nodes: usize) -> u64 {
    let mut sum = 0;
    for n in 0..nodes {
        let status =
            block_on(15, async { storage(cluster, n).node_status(pb::NodeStatusRequest {}).await });
        let status = status.expect("a running node states what it holds").into_inner();
        sum += status.disks.iter().map(|d| d.chunks).sum::<u64>();
    }
    sum
}

/// What the master's fsck finds.
///
/// # Errors
/// When it does not answer, or breaks off.
pub fn fsck(cluster: &Cluster) -> Result<Vec<String>, Status> {
    block_on(120, async {
        let mut stream =
            master(cluster).fsck(pb::FsckRequest { repair: false }).await?.into_inner();
        let (mut findings, mut done) = (Vec::new(), false);
        while let Some(progress) = stream.message().await? {
            findings.extend(progress.findings.into_iter().map(|f| f.what));
            done = progress.done;
        }
        if done { Ok(findings) } else { Err(Status::aborted("fsck broke off before its end")) }
    })
}
