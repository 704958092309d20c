//! [`Scrape`]: a page of metrics, fetched and taken apart as Prometheus would.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Mount, daemon::Daemon, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// A page of metrics.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// As it was served.
    pub text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// From a server's address.
    ///
    /// # Panics
    /// When there is no such page.
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the page is served");
        stream.set_read_timeout(Some(PATIENCE)).expect("sockets have timeouts");
        Self::parse(&get(stream, "/metrics"))
    }

    /// From a mount's socket.
    ///
    /// # Panics
    /// When there is no such page.
    pub fn mount(mount: &Mount) -> Self {
        let stream = UnixStream::connect(socket(mount)).expect("the mount has a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("sockets have timeouts");
        Self::parse(&get(stream, "/metrics"))
    }

    fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample);
        Self { samples: samples.collect(), text: text.to_owned() }
    }

    /// The value of `NAME{LABELS}`, exactly as the page writes it.
    ///
    /// # Panics
    /// When it is not there.
    pub fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} in:\n{}", self.text))
    }

    /// The sum of all samples of the metric `name`.
    ///
    /// # Panics
    /// When there is none.
    pub fn sum(&self, name: &str) -> f64 {
        let of = |sample: &str| sample == name || sample.starts_with(&format!("{name}{{"));
        let values: Vec<f64> =
            self.samples.iter().filter(|(sample, _)| of(sample)).map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "no {name} in:\n{}", self.text);
        values.iter().sum()
    }
}

fn get(mut stream: impl Read + Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("the page takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the page answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("the answer has a head");
    assert!(head.starts_with("HTTP/1.0 200"), "{answer}");
    body.to_owned()
}

/// Where a server that was started with `--metrics-listen 127.0.0.1:0` says that its page is.
///
/// # Panics
/// When it does not say so.
pub fn address(daemon: &Daemon) -> SocketAddr {
    let mut found = None;
    wait_for(PATIENCE, || {
        let log = daemon.log();
        let line = log.lines().rev().find(|line| line.contains("serving metrics"));
        let text = line.and_then(|line| line.split("address=").nth(1)?.split(' ').next());
        found = text.and_then(|text| text.parse().ok());
        found.is_some()
    });
    found.unwrap_or_else(|| panic!("no metrics are served:\n{}", daemon.log_tail(20)))
}

/// The socket of a mount of root's.
///
/// # Panics
/// When it is not mounted.
pub fn socket(mount: &Mount) -> PathBuf {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("Linux shows its mounts");
    let at = mount.path().to_str().expect("test paths are UTF-8");
    let line =
        table.lines().find(|line| line.split(' ').nth(4) == Some(at)).expect("it is mounted");
    let device = line.split(' ').nth(2).expect("every mount has a device");
    Path::new("/run/cairn").join(format!("mount-{device}.sock"))
}
