//! Master and nodes as libraries in this process, several times, without a single child process.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use cairn_master::config::Config as MasterConfig;
use cairn_proto::{ChunkId, pb};
use cairn_storage::{config::Config as NodeConfig, format::NewNode};
use cairn_tests::{binaries, inspect, run, scratch, within};

struct Servers {
    master: cairn_master::server::Running,
    nodes: Vec<cairn_storage::server::Running>,
}

fn node_dir(place: &Path, n: usize) -> std::path::PathBuf {
    place.join(format!("node{n}"))
}

async fn start(place: &Path) -> Servers {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = MasterConfig { listen: any, ..MasterConfig::new(place.join("master")) };
    let master = cairn_master::server::start(config).await.unwrap();
    let mut nodes = Vec::new();
    for n in 1..=2 {
        let data = node_dir(place, n);
        if !data.exists() {
            let new = NewNode {
                data: vec![data.clone()],
                fs: master.fs_uuid,
                node: None,
                name: format!("node{n}"),
                chunk_size: 65_536,
            };
            cairn_storage::format::format(&new).unwrap();
        }
        let config = NodeConfig::new(vec![data], master.address.to_string());
        let config = NodeConfig { listen: any, reserve: Some(0), ..config };
        nodes.push(cairn_storage::server::start(config).await.unwrap());
    }
    Servers { master, nodes }
}

type Master = pb::master_service_client::MasterServiceClient<tonic::transport::Channel>;

async fn targets(master: &mut Master, chunk_id: &str) -> Vec<pb::StorageNode> {
    for _ in 0..200 {
        let request = pb::PutTargetsRequest { chunk_id: chunk_id.to_owned() };
        if let Ok(answer) = master.request_put_targets(request).await {
            let targets = answer.into_inner().targets;
            if targets.len() == 2 {
                return targets;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the nodes do not come up");
}

#[test]
fn the_plain_calls_work_on_servers_in_one_process_started_several_times() {
    within(120, || {
        let place = scratch("in-process");
        let mut format = Command::new(binaries::master());
        format.args(["format", "--data"]).arg(place.path().join("master"));
        let formatted = run(format, Duration::from_secs(30));
        assert!(formatted.ok(), "{formatted}");
        for round in 0u8..3 {
            let path = place.path().to_owned();
            inspect::block_on(60, async {
                let servers = start(&path).await;
                let address = servers.master.address.to_string();
                let mut master = Master::new(inspect::channel(&address));
                let data = vec![round; 40_000];
                let chunk_id = ChunkId::of(&data).to_string();
                for target in targets(&mut master, &chunk_id).await {
                    let address = format!("{}:{}", target.host, target.port);
                    let channel = inspect::channel(&address);
                    let mut node = pb::storage_service_client::StorageServiceClient::new(channel);
                    let (chunk_id, data) = (chunk_id.clone(), data.clone().into());
                    node.put_chunk(pb::PutChunkRequest { chunk_id, data }).await.unwrap();
                }
                let filename = format!("round/{round}");
                let chunks = vec![chunk_id.clone()];
                master.announce_manifest(pb::ManifestRequest { filename, chunks }).await.unwrap();
                let list = pb::ListFilesRequest::default();
                let files = master.list_files(list).await.unwrap().into_inner().filenames;
                assert_eq!(files.len(), usize::from(round) + 1, "{files:?}");
                for node in servers.nodes {
                    node.stop().await;
                }
                servers.master.stop().await;
            });
        }
    });
}
