//! [`Cluster`]: a real master and real storage nodes, formatted and started on free ports of loopback.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Mount, binaries,
    command::{Ran, run},
    daemon::Daemon,
    inspect,
    proxy::{Flow, Proxy},
    wait_for,
};

/// How a cluster is built.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Storage nodes.
    pub nodes: usize,
    /// Copies of every chunk.
    pub replicas: u32,
    /// Further arguments of `cairn-master format`.
    pub format_args: Vec<String>,
    /// Further arguments of `cairn-master serve`.
    pub master_args: Vec<String>,
    /// Further arguments of `cairn-storage serve`.
    pub node_args: Vec<String>,
    /// Where the master's data lies instead of in the cluster's directory.
    pub master_dir: Option<PathBuf>,
    /// Where each node's data lies instead of in the cluster's directory.
    pub node_dirs: Vec<PathBuf>,
    /// Use the programs built with crash points.
    pub failpoints: bool,
    /// Nodes are reached, and reach the master, over wires that can be cut.
    pub proxied: bool,
    /// Environment variables of servers, by name (`master`, `node1`, ...).
    pub environment: BTreeMap<String, Vec<(String, String)>>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            nodes: 2,
            replicas: 2,
            format_args: Vec::new(),
            master_args: Vec::new(),
            node_args: Vec::new(),
            master_dir: None,
            node_dirs: Vec::new(),
            failpoints: false,
            proxied: false,
            environment: BTreeMap::new(),
        }
    }
}

/// One server: where its data is, where it listens, and its process while it runs.
#[derive(Debug)]
struct Server {
    name: String,
    data: PathBuf,
    address: SocketAddr,
    daemon: Option<Daemon>,
}

/// The wires of a node.
#[derive(Debug)]
struct Wires {
    to_node: Proxy,
    to_master: Proxy,
}

/// A running cluster. Everything is killed and removed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    master: Server,
    nodes: Vec<Server>,
    wires: Vec<Wires>,
    fs_uuid: String,
    place: TempDir,
}

/// A port that is free now and that the kernel does not give to outgoing connections, so that a
/// killed server finds it free again.
fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    #[expect(clippy::cast_possible_truncation, reason = "any spread will do")]
    let start = (std::process::id() as u16).wrapping_mul(61);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + start.wrapping_add(step) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Ends a server as a user does.
fn end(server: &mut Server, limit: Duration) {
    if let Some(mut daemon) = server.daemon.take() {
        let status = daemon.terminate(limit);
        assert!(
            status.is_some_and(|s| s.success()),
            "{} after SIGTERM: {status:?}\n{}",
            server.name,
            daemon.log_tail(20)
        );
    }
}

impl Cluster {
    /// Two nodes, two copies.
    pub fn new() -> Self {
        Self::with(Layout::default())
    }

    /// Formats and starts everything, and waits until all nodes are up.
    ///
    /// # Panics
    /// When that does not work.
    pub fn with(layout: Layout) -> Self {
        let place = crate::scratch("cluster");
        let server = |name: String, data: Option<&PathBuf>| Server {
            data: data.cloned().unwrap_or_else(|| place.path().join(&name)),
            address: free_port(),
            daemon: None,
            name,
        };
        let master = server("master".into(), layout.master_dir.as_ref());
        let nodes: Vec<_> = (0..layout.nodes)
            .map(|n| server(format!("node{}", n + 1), layout.node_dirs.get(n)))
            .collect();
        let wires = |node: &Server| Wires {
            to_node: Proxy::new(node.address),
            to_master: Proxy::new(master.address),
        };
        let wires = nodes.iter().filter(|_| layout.proxied).map(wires).collect();
        let mut cluster = Self { layout, master, nodes, wires, fs_uuid: String::new(), place };
        cluster.format();
        cluster.start_master();
        for node in 0..cluster.nodes.len() {
            cluster.start_node(node);
        }
        cluster.wait_healthy();
        cluster
    }

    fn program(&self, name: &str) -> PathBuf {
        match (self.layout.failpoints, name) {
            (true, _) => binaries::with_failpoints(name),
            (false, "cairn-master") => binaries::master(),
            (false, _) => binaries::storage(),
        }
    }

    fn format(&mut self) {
        let mut command = Command::new(self.program("cairn-master"));
        command.arg("format").arg("--data").arg(&self.master.data);
        command.args(["--replicas", &self.layout.replicas.to_string()]);
        command.args(&self.layout.format_args);
        let ran = run(command, Duration::from_secs(60));
        assert!(ran.ok(), "{ran}");
        let uuid = ran.stdout.split_whitespace().find(|w| uuid::Uuid::parse_str(w).is_ok());
        uuid.expect("cairn-master format prints the UUID").clone_into(&mut self.fs_uuid);
        for node in &self.nodes {
            let ran = self.format_node(&node.data, &self.fs_uuid, &node.name);
            assert!(ran.ok(), "{ran}");
        }
    }

    /// `cairn-storage format`.
    pub fn format_node(&self, data: &Path, fs_uuid: &str, name: &str) -> Ran {
        let mut command = Command::new(self.program("cairn-storage"));
        command.arg("format").arg("--data").arg(data).args(["--fs", fs_uuid, "--name", name]);
        run(command, Duration::from_secs(60))
    }

    /// Formats and starts one more node, empty; its number.
    ///
    /// # Panics
    /// When that does not work.
    pub fn add_node(&mut self) -> usize {
        let n = self.nodes.len();
        let name = format!("node{}", n + 1);
        let data = self.place.path().join(&name);
        let ran = self.format_node(&data, &self.fs_uuid, &name);
        assert!(ran.ok(), "{ran}");
        self.nodes.push(Server { name, data, address: free_port(), daemon: None });
        self.start_node(n);
        n
    }

    /// The id of node `n`, as the master knows it.
    ///
    /// # Panics
    /// When the master does not know it.
    pub fn node_id(&self, n: usize) -> String {
        let map = inspect::status(self).expect("the master answers").map.unwrap_or_default();
        let node = map.nodes.into_iter().find(|node| node.name == self.nodes[n].name);
        node.expect("the node has registered").node_id
    }

    /// Takes all from node `n`, which does not run, but its id: a new disk in the old machine.
    ///
    /// # Panics
    /// When that does not work.
    pub fn empty_node(&mut self, n: usize) {
        let (id, node) = (self.node_id(n), &self.nodes[n]);
        std::fs::remove_dir_all(&node.data).expect("the node's directory can be removed");
        let mut command = Command::new(self.program("cairn-storage"));
        command.arg("format").arg("--data").arg(&node.data);
        command.args(["--fs", &self.fs_uuid, "--name", &node.name, "--node", &id]);
        let ran = run(command, Duration::from_secs(60));
        assert!(ran.ok(), "{ran}");
    }

    /// Node `n`, which does not run, gets another port.
    pub fn move_node(&mut self, n: usize) {
        self.nodes[n].address = free_port();
    }

    /// The log of a server (`master`, `node1`, ...).
    pub fn log_path(&self, name: &str) -> PathBuf {
        self.place.path().join(format!("{name}.log"))
    }

    /// A directory that lives as long as the cluster.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// Starts the master and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_master(&mut self) {
        self.start_master_with(&[]);
    }

    /// Starts the master with environment variables, for example a crash point.
    ///
    /// # Panics
    /// When it does not listen within the limit.
    pub fn start_master_with(&mut self, environment: &[(&str, &str)]) {
        let mut command = Command::new(self.program("cairn-master"));
        command.arg("serve").arg("--data").arg(&self.master.data);
        command.args(["--listen", &self.master.address.to_string()]);
        command.args(&self.layout.master_args).envs(environment.iter().copied());
        command.envs(self.layout.environment.get("master").cloned().unwrap_or_default());
        let mut daemon = Daemon::start("master", command, &self.log_path("master"));
        let address = daemon.listening(Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(address, self.master.address);
        self.master.daemon = Some(daemon);
    }

    /// Starts node `n` (0 is `node1`) and waits until it listens.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_node(&mut self, n: usize) {
        self.start_node_with(n, &[]);
    }

    /// Starts node `n` with environment variables, for example a crash point.
    ///
    /// # Panics
    /// When it does not listen within the limit.
    pub fn start_node_with(&mut self, n: usize, environment: &[(&str, &str)]) {
        let log = self.log_path(&self.nodes[n].name);
        let mut command = Command::new(self.program("cairn-storage"));
        let node = &mut self.nodes[n];
        command.arg("serve").arg("--data").arg(&node.data).args(["--name", &node.name]);
        command.args(["--listen", &node.address.to_string()]);
        let wires = self.wires.get(n);
        let master = wires.map_or(self.master.address, |wires| wires.to_master.address());
        command.args(["--master", &master.to_string()]);
        if let Some(wires) = wires {
            command.args(["--advertise", &wires.to_node.address().to_string()]);
        }
        command.args(&self.layout.node_args).envs(environment.iter().copied());
        command.envs(self.layout.environment.get(&node.name).cloned().unwrap_or_default());
        let mut daemon = Daemon::start(&node.name, command, &log);
        let address = daemon.listening(Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(address, node.address);
        node.daemon = Some(daemon);
    }

    /// Waits until the master calls every node up that runs here.
    ///
    /// # Panics
    /// When that takes more than 30 seconds.
    pub fn wait_healthy(&self) {
        let expected = self.nodes.iter().filter(|n| n.daemon.is_some()).count();
        let healthy = || inspect::nodes_up(self).is_ok_and(|up| up >= expected);
        let up = wait_for(Duration::from_secs(30), healthy);
        assert!(up, "not all nodes are up after 30 s: {:?}", inspect::nodes_up(self));
    }

    /// `HOST:PORT` of the master.
    pub fn master_address(&self) -> String {
        self.master.address.to_string()
    }

    /// Where node `n` listens.
    pub fn node_address(&self, n: usize) -> SocketAddr {
        self.nodes[n].address
    }

    /// The file system's UUID.
    pub fn fs_uuid(&self) -> &str {
        &self.fs_uuid
    }

    /// The master's data directory.
    pub fn master_data(&self) -> &Path {
        &self.master.data
    }

    /// Node `n`'s data directory.
    pub fn node_data(&self, n: usize) -> &Path {
        &self.nodes[n].data
    }

    /// The master's process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn master(&mut self) -> &mut Daemon {
        self.master.daemon.as_mut().expect("the master was started")
    }

    /// Node `n`'s process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn node(&mut self, n: usize) -> &mut Daemon {
        self.nodes[n].daemon.as_mut().expect("the node was started")
    }

    /// `kill -9` of the master.
    pub fn kill_master(&mut self) {
        if let Some(mut daemon) = self.master.daemon.take() {
            daemon.kill9();
        }
    }

    /// `kill -9` of node `n`.
    pub fn kill_node(&mut self, n: usize) {
        if let Some(mut daemon) = self.nodes[n].daemon.take() {
            daemon.kill9();
        }
    }

    /// SIGTERM for the master, and its end is waited for.
    ///
    /// # Panics
    /// When it does not end cleanly within 30 seconds.
    pub fn stop_master(&mut self) {
        end(&mut self.master, Duration::from_secs(30));
    }

    /// SIGTERM for node `n`, and its end is waited for.
    ///
    /// # Panics
    /// When it does not end cleanly within 30 seconds.
    pub fn stop_node(&mut self, n: usize) {
        end(&mut self.nodes[n], Duration::from_secs(30));
    }

    /// What becomes of everything between node `n` and the others, in a cluster with wires.
    pub fn set_flow(&self, n: usize, flow: Flow) {
        self.wires[n].to_node.set(flow);
        self.wires[n].to_master.set(flow);
    }

    /// What becomes of everything that node `n` tells the master, in a cluster with wires.
    pub fn set_flow_to_master(&self, n: usize, flow: Flow) {
        self.wires[n].to_master.set(flow);
    }

    /// SIGKILL for everything at once, without waiting: the power goes. The returned processes end
    /// when nothing holds them any more.
    pub fn power_off(&mut self) -> Vec<Daemon> {
        let servers = self.nodes.iter_mut().chain([&mut self.master]);
        let mut dead: Vec<Daemon> = servers.filter_map(|s| s.daemon.take()).collect();
        dead.iter_mut().for_each(Daemon::kill_without_waiting);
        dead
    }

    /// Stops everything as a user does, with SIGTERM.
    ///
    /// # Panics
    /// When a process does not end cleanly within 20 seconds.
    pub fn stop_all(&mut self) {
        for server in self.nodes.iter_mut().chain([&mut self.master]) {
            end(server, Duration::from_secs(20));
        }
    }

    /// Starts whatever does not run.
    ///
    /// # Panics
    /// When something does not start.
    pub fn start_all(&mut self) {
        if self.master.daemon.is_none() {
            self.start_master();
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].daemon.is_none() {
                self.start_node(node);
            }
        }
        self.wait_healthy();
    }

    /// Mounts the store.
    pub fn mount(&self) -> Mount {
        Mount::new(&self.master_address(), &[])
    }

    /// Mounts the store with further arguments of `cairn mount`.
    pub fn mount_with(&self, options: &[&str]) -> Mount {
        Mount::new(&self.master_address(), options)
    }

    /// Runs a verb of `cairn` against this cluster.
    pub fn cairn(&self, seconds: u64, arguments: &[&str]) -> Ran {
        let mut command = Command::new(binaries::cairn());
        command.args(arguments).env("CAIRN_MASTER", self.master_address());
        command.current_dir(self.place.path());
        run(command, Duration::from_secs(seconds))
    }

    /// What must hold after everything that breaks something: fsck finds nothing, and every replica of
    /// every chunk of every file is there and right.
    ///
    /// # Panics
    /// When it does not hold.
    pub fn assert_sound(&self) {
        self.wait_healthy();
        self.assert_fsck_clean();
        let ran = self.cairn(300, &["verify"]);
        assert!(ran.ok(), "{ran}");
    }

    /// The namespace, its links, its segments and its chunks fit together.
    ///
    /// # Panics
    /// When they do not.
    pub fn assert_fsck_clean(&self) {
        let findings = inspect::fsck(self).unwrap_or_else(|e| panic!("fsck: {e}"));
        assert!(findings.is_empty(), "fsck found:\n{}", findings.join("\n"));
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}
