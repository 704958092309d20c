//! [`Site`]: the cluster, the mounts and the clients of a run, and how a fault begins and ends.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cairn_proto::ChunkId;
use tempfile::TempDir;

use super::{
    clock::{self, Clock},
    fault::{Fault, Targets},
    rot::rot,
};
use crate::{
    Cluster, Layout, Mount, Rng,
    daemon::Daemon,
    powercut::{PowerCutDisk, SyncedBy},
    proxy::{Flow, Proxy},
    wait_for,
};

/// Storage nodes, each chunk on two of them.
pub const NODES: usize = 3;
/// Mounts; the first has two clients.
const MOUNTS: usize = 2;
const CLIENTS: [usize; 3] = [0, 0, 1];
/// The node with the disk that can be full; another one rots.
const FULL: usize = 0;
const ROTTEN: usize = 1;
/// Enough for everything that a run writes.
const ROOM: u64 = 16 << 30;
/// How long a client may take to end when it is told to.
pub const END: Duration = Duration::from_secs(120);
/// `--deadline` of the mounts, in seconds.
pub const DEADLINE: &str = "10";
/// The mount that keeps chunks on a disk, far fewer than there are.
const CACHED: usize = 1;
const CACHE_SIZE: &str = "16MiB";
/// How chunks are stored; the seed chooses.
const COMPRESSION: [&str; 3] = ["off", "zstd", "lz4"];

/// A client's process, and where its things are.
#[derive(Debug)]
pub struct Client {
    /// Its directory, relative to the root of the file system.
    pub directory: String,
    /// Its journal.
    pub journal: PathBuf,
    process: Daemon,
    stop: PathBuf,
}

/// See the head of this file.
pub struct Site {
    /// The servers.
    pub cluster: Cluster,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// The clients.
    pub clients: Vec<Client>,
    /// Chunks that have rotted.
    pub rotten: BTreeSet<ChunkId>,
    wires: Vec<Proxy>,
    clocks: Vec<Clock>,
    rng: Rng,
    /// Of clocks and of the cache of a mount.
    place: TempDir,
    // Last: the servers that use it end first.
    disk: PowerCutDisk,
}

impl Site {
    /// Starts everything.
    ///
    /// # Panics
    /// When something does not start.
    pub fn new(client_program: &str, seed: u64) -> Self {
        let disk = PowerCutDisk::new(seed, SyncedBy::AnyFsync);
        disk.capacity(ROOM);
        let place = crate::scratch("chaos");
        let library = clock::library(place.path());
        let clocks: Vec<_> = library.map_or_else(Vec::new, |library| {
            let name = |n| if n == NODES { "master".to_owned() } else { format!("node{}", n + 1) };
            (0..=NODES).map(|n| Clock::new(&library, place.path(), &name(n))).collect()
        });
        let compression = COMPRESSION[(seed % COMPRESSION.len() as u64) as usize];
        let mut layout = Layout {
            nodes: NODES,
            format_args: ["--compression", compression].map(str::to_owned).to_vec(),
            proxied: true,
            node_dirs: vec![disk.path().join("node1")],
            master_args: ["--session-expiry", "60"].map(str::to_owned).to_vec(),
            ..Layout::default()
        };
        for (n, clock) in clocks.iter().enumerate() {
            let name = if n == NODES { "master".to_owned() } else { format!("node{}", n + 1) };
            let environment = clock.environment().map(|(k, v)| (k.to_owned(), v.to_owned()));
            layout.environment.insert(name, environment.to_vec());
        }
        let cluster = Cluster::with(layout);
        let master = cluster.master_address().parse().expect("the harness knows an address");
        let wires: Vec<_> = (0..MOUNTS).map(|_| Proxy::new(master)).collect();
        let mount = |(m, wire): (usize, &Proxy)| {
            Mount::new(&wire.address().to_string(), &text(&options(place.path(), m)))
        };
        let mounts: Vec<_> = wires.iter().enumerate().map(mount).collect();
        let mut site = Self {
            cluster,
            mounts,
            clients: Vec::new(),
            rotten: BTreeSet::new(),
            wires,
            clocks,
            rng: Rng::new(seed ^ 0xc1a0),
            place,
            disk,
        };
        site.clients = (0..)
            .zip(CLIENTS)
            .map(|(n, mount)| site.client(client_program, n, mount, seed))
            .collect();
        site
    }

    fn client(&self, program: &str, n: u64, mount: usize, seed: u64) -> Client {
        let directory = format!("client{n}");
        let path = self.mounts[mount].join(&directory);
        std::fs::create_dir(&path).expect("a fresh store takes a directory");
        let place = self.cluster.place();
        let (journal, stop) = (place.join(format!("{directory}.journal")), place.join("stop"));
        let mut command = Command::new(program);
        command.arg(path).arg(&journal).arg(&stop).arg((seed.wrapping_mul(31) + n).to_string());
        let process = Daemon::start(&directory, command, &place.join(format!("{directory}.log")));
        Client { directory, journal, process, stop }
    }

    /// What faults can happen to.
    pub const fn targets() -> Targets {
        Targets { nodes: NODES, mounts: MOUNTS, full: FULL, rotten: ROTTEN }
    }

    /// It begins to happen.
    pub fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::KillNode(n) => self.cluster.kill_node(n),
            Fault::StopNode(n) => self.cluster.node(n).stop(),
            Fault::RestartNode(n) => self.cluster.stop_node(n),
            Fault::CutNode(n) => self.cluster.set_flow(n, Flow::Cut),
            Fault::SilenceNode(n) => self.cluster.set_flow(n, Flow::Silent),
            Fault::IsolateNode(n) => self.cluster.set_flow_to_master(n, Flow::Cut),
            Fault::SlowNode(n, by) => self.cluster.set_flow(n, Flow::Slow(by)),
            Fault::FullNode(_) => self.disk.capacity(0),
            Fault::Rot(n) => {
                self.rotten.extend(rot(&self.cluster, n, NODES, &mut self.rng));
            }
            Fault::NodeClock(n, by) => self.set_clock(n, by),
            Fault::KillMaster => self.cluster.kill_master(),
            Fault::StopMaster => self.cluster.master().stop(),
            Fault::RestartMaster => self.cluster.stop_master(),
            Fault::MasterClock(by) => self.set_clock(NODES, by),
            Fault::KillMount(m) => self.mounts[m].kill_daemon(),
            Fault::LoseMount(m) => self.mounts[m].kill9(),
            Fault::StopMount(m) => self.mounts[m].stop(),
            Fault::CutMount(m) => self.wires[m].set(Flow::Cut),
            Fault::SilenceMount(m) => self.wires[m].set(Flow::Silent),
        }
    }

    /// It is over.
    pub fn end(&mut self, fault: Fault) {
        match fault {
            Fault::KillNode(n) | Fault::RestartNode(n) => self.cluster.start_node(n),
            Fault::StopNode(n) => self.cluster.node(n).cont(),
            Fault::CutNode(n)
            | Fault::SilenceNode(n)
            | Fault::IsolateNode(n)
            | Fault::SlowNode(n, _) => self.cluster.set_flow(n, Flow::Open),
            Fault::FullNode(_) => self.disk.capacity(ROOM),
            Fault::Rot(_) => {}
            Fault::NodeClock(n, _) => self.set_clock(n, 0),
            Fault::KillMaster | Fault::RestartMaster => self.cluster.start_master(),
            Fault::StopMaster => self.cluster.master().cont(),
            Fault::MasterClock(_) => self.set_clock(NODES, 0),
            Fault::KillMount(_) => {}
            Fault::LoseMount(m) => {
                let master = self.wires[m].address().to_string();
                self.mounts[m].start(&master, &text(&options(self.place.path(), m)));
            }
            Fault::StopMount(m) => self.mounts[m].cont(),
            Fault::CutMount(m) | Fault::SilenceMount(m) => self.wires[m].set(Flow::Open),
        }
    }

    fn set_clock(&self, n: usize, seconds: i64) {
        if let Some(clock) = self.clocks.get(n) {
            clock.jump(seconds);
        }
    }

    /// Ends the clients.
    ///
    /// # Panics
    /// When one of them hangs, or ended before.
    pub fn stop_clients(&mut self) {
        for client in &mut self.clients {
            assert!(client.process.is_running(), "a client ended: {}", client.process.log());
            drop(std::fs::File::create(&client.stop));
        }
        for client in &mut self.clients {
            let ended = wait_for(END, || !client.process.is_running());
            assert!(ended, "{} hangs: see the end of its journal", client.directory);
        }
    }

    /// Every daemon that runs, by name.
    pub fn daemons(&mut self) -> Vec<(String, u32)> {
        let mut all = vec![("master".to_owned(), self.cluster.master().id())];
        all.extend((0..NODES).map(|n| (format!("node{}", n + 1), 0)));
        for n in 0..NODES {
            all[n + 1].1 = self.cluster.node(n).id();
        }
        for (n, mount) in self.mounts.iter_mut().enumerate() {
            all.extend(mount.daemon().map(|id| (format!("mount{}", n + 1), id)));
            all.push((format!("supervisor{}", n + 1), mount.supervisor().id()));
        }
        all
    }
}

/// How mount `m` is mounted.
fn options(place: &Path, m: usize) -> Vec<String> {
    let mut options = vec!["--deadline".to_owned(), DEADLINE.to_owned()];
    if m == CACHED {
        options.push(format!("--cache-dir={}", place.join("cache").display()));
        options.push(format!("--cache-dir-size={CACHE_SIZE}"));
    }
    options
}

fn text(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}
