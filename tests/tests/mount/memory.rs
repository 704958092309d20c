//! Memory follows the configuration, not the size of files and directories.

use std::fs;

use cairn_tests::{Cluster, rng::scale, sh, within};

const MIB: u64 = 1 << 20;

/// What a mount may take with its defaults: 128 MiB of cache, 128 MiB of what is written and not yet stored,
/// 64 MiB on their way from the nodes, and what it needs itself.
const MOUNT: u64 = 128 + 128 + 64 + 40;

fn assert_bounds(cluster: &mut Cluster, mount: &mut cairn_tests::Mount) {
    let daemon = mount.peak_rss() / MIB;
    let nodes = [0, 1].map(|n| cluster.node(n).peak_rss() / MIB);
    let master = cluster.master().peak_rss() / MIB;
    eprintln!("peak resident: mount {daemon} MiB, nodes {nodes:?} MiB, master {master} MiB");
    assert!(daemon < MOUNT && nodes.iter().all(|&n| n < 300) && master < 500);
}

#[test]
fn a_big_file_written_and_read_stays_within_the_bounds() {
    within(600, || {
        let mut cluster = Cluster::new();
        let mut mount = cluster.mount();
        let mib = 1024 * scale();
        let script = format!(
            "head -c {mib}M /dev/zero | openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 2>/dev/null >big || \
             head -c {mib}M /dev/urandom >big
             sync big; cat big >/dev/null; cat big | tail -c 1 >/dev/null"
        );
        sh(mount.path(), 500, &script);
        assert_bounds(&mut cluster, &mut mount);
    });
}

#[test]
fn many_streams_at_once_stay_within_the_bounds() {
    within(600, || {
        let mut cluster = Cluster::new();
        let mut mount = cluster.mount();
        let mib = 96 * scale();
        let script = format!(
            "set -e
             each() {{ for n in 1 2 3 4 5 6 7 8; do $1 $n & all+=($!); done; for p in ${{all[@]}}; do wait $p; done; all=(); }}
             fill() {{ head -c {mib}M /dev/urandom | dd of=f$1 bs=1M iflag=fullblock conv=fsync status=none; }}
             look() {{ dd if=f$1 of=/dev/null bs=1M status=none; }}
             both() {{ if [ $(($1 % 2)) = 0 ]; then fill $1; else look $1; fi; }}
             each fill; each look; each both"
        );
        sh(mount.path(), 500, &script);
        assert_bounds(&mut cluster, &mut mount);
    });
}

#[test]
fn a_big_directory_stays_within_the_bounds() {
    within(400, || {
        let mut cluster = Cluster::new();
        let mut mount = cluster.mount();
        let files = 10_000 * scale().min(10);
        fs::create_dir(mount.join("many")).unwrap();
        for n in 0..files {
            fs::File::create(mount.join(format!("many/a-file-with-a-usual-name-{n}"))).unwrap();
        }
        let listed = sh(mount.path(), 200, "ls -lU many | grep -c usual");
        assert_eq!(listed.trim(), files.to_string());
        assert_bounds(&mut cluster, &mut mount);
        cluster.assert_fsck_clean();
    });
}
