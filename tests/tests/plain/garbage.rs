//! Bytes that are no protocol at all, on every open port.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use cairn_tests::{Cluster, Rng, within};

fn throw(address: SocketAddr, bytes: &[u8], close: bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let _refused = stream.write_all(bytes);
    if close {
        let _gone = stream.shutdown(Shutdown::Write);
        let _whatever = stream.read(&mut [0; 1000]);
    }
}

#[test]
fn garbage_on_each_port_harms_nobody() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    within(120, || {
        let mut cluster = Cluster::new();
        let mut rng = Rng::of_run("garbage");
        let master: SocketAddr = cluster.master_address().parse().unwrap();
        for address in [master, cluster.node_address(0), cluster.node_address(1)] {
            throw(address, b"", true);
            throw(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true);
            throw(address, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", true);
            for round in 0..20 {
                let len = rng.index(100_000);
                throw(address, &rng.bytes(len), round % 2 == 0);
                let len = rng.index(2000);
                throw(address, &[PREFACE, &rng.bytes(len)].concat(), round % 2 == 1);
            }
            let zeros = vec![0; 4 << 20];
            throw(address, &[PREFACE, &zeros].concat(), false);
        }
        assert!(cluster.master().is_running());
        assert!(cluster.node(0).is_running() && cluster.node(1).is_running());
        for log in ["master", "node1", "node2"] {
            let log = std::fs::read_to_string(cluster.log_path(log)).unwrap();
            assert!(!log.contains("panicked"), "{log}");
        }
        std::fs::write(cluster.mount().join("f"), "works").unwrap();
        cluster.assert_sound();
    });
}
