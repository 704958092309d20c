//! A mount on the machine of its nodes reads their files itself, and is none the wiser when it cannot.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use cairn_proto::pb;
use cairn_tests::{
    Cluster, Layout, Mount, Rng, binaries, inspect, mount::store, run, scrape, wait_for,
};

const MIB: usize = 1 << 20;

fn local_bytes(mount: &Mount) -> f64 {
    scrape::Scrape::mount(mount).value("cairn_mount_local_bytes_total")
}

/// Segment files of the nodes that the mount's daemon has open.
fn open_segments(mount: &Mount) -> usize {
    let daemon = mount.daemon().unwrap();
    let open = fs::read_dir(format!("/proc/{daemon}/fd")).unwrap();
    let links = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().contains("/segments/")).count()
}

fn cluster_with(content: &[u8]) -> Cluster {
    let cluster = Cluster::new();
    let mount = cluster.mount();
    store(&mount.join("file"), content);
    mount.unmount();
    cluster
}

#[test]
fn a_mount_reads_the_files_of_the_nodes_and_lets_go_of_them() {
    let content = Rng::new(1).bytes(32 * MIB + 5000);
    let cluster = cluster_with(&content);
    let mount = cluster.mount();
    assert!(fs::read(mount.join("file")).unwrap() == content);
    // A second node may have been asked for what came late.
    let read = local_bytes(&mount) / content.len() as f64;
    assert!((1.0..=2.0).contains(&read), "{read}");
    let closed = || open_segments(&mount) == 0;
    assert!(wait_for(Duration::from_secs(20), closed), "{} are open", open_segments(&mount));
}

#[test]
fn nodes_that_are_advertised_elsewhere_are_reached_over_tcp() {
    let cluster = Cluster::with(Layout { proxied: true, ..Layout::default() });
    let content = Rng::new(2).bytes(4 * MIB);
    let mount = cluster.mount();
    store(&mount.join("file"), &content);
    mount.unmount();
    let mount = cluster.mount();
    assert!(fs::read(mount.join("file")).unwrap() == content);
    assert_eq!(local_bytes(&mount), 0.0);
}

/// Bytes of chunks that the nodes have sent, or said where they are.
fn given(cluster: &Cluster) -> u64 {
    let activity = |n: usize| {
        inspect::block_on(20, async {
            let status = inspect::storage(cluster, n).node_status(pb::NodeStatusRequest {}).await;
            status.unwrap().into_inner().activity.unwrap().bytes_got
        })
    };
    activity(0) + activity(1)
}

/// In a container with the machine's network, say.
#[test]
fn files_that_are_not_where_the_node_says_are_sent() {
    let content = Rng::new(3).bytes(16 * MIB);
    let cluster = cluster_with(&content);
    let copy = cluster.place().join("copy");
    let [one, other] = [0, 1].map(|n| cluster.node_data(n).display());
    let script = format!(
        "mount -t tmpfs none '{one}' && mkdir '{one}/segments' && mount -t tmpfs none '{other}' && \
         exec '{cairn}' --master {master} download /file '{copy}'",
        cairn = binaries::cairn().display(),
        master = cluster.master_address(),
        copy = copy.display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let before = given(&cluster);
    let ran = run(command, Duration::from_secs(60));
    assert!(ran.ok(), "{ran}");
    assert!(fs::read(&copy).unwrap() == content);
    let given = given(&cluster) - before;
    assert!(given > content.len() as u64, "nothing was looked for in the files: {given} bytes");
}

/// Somebody else's process may take the name of a node that is away; it is not asked.
#[test]
fn a_stranger_with_the_name_of_a_node_is_not_believed() {
    let content = Rng::new(4).bytes(MIB);
    let mut cluster = cluster_with(&content);
    cluster.stop_node(0);
    let name = format!("cairn/node/{}:{}", cluster.node_id(0), cluster.node_address(0).port());
    let script = "import os, signal, socket, sys\n\
        os.setuid(65534)\n\
        signal.alarm(60)\n\
        s = socket.socket(socket.AF_UNIX)\n\
        s.bind('\\0' + sys.argv[1])\n\
        s.listen()\n\
        print(len(s.accept()[0].recv(10)), flush=True)\n";
    let mut stranger =
        Command::new("python3").args(["-c", script, &name]).stdout(Stdio::piped()).spawn().unwrap();
    let taken = format!("@{name}");
    let listens = || fs::read_to_string("/proc/net/unix").unwrap().contains(&taken);
    assert!(wait_for(Duration::from_secs(20), listens));
    cluster.start_node(0);
    cluster.wait_healthy();
    assert_eq!(inspect::nodes_up(&cluster).unwrap(), 2);
    let mount = cluster.mount();
    assert!(fs::read(mount.join("file")).unwrap() == content);
    store(&mount.join("new"), &content);
    drop(mount);
    stranger.kill().unwrap();
    let said = stranger.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&said), "0\n", "it was asked, and told nothing");
}
