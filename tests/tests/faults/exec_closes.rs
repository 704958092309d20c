//! A program that is being executed closes the files it shall not inherit, holding a lock of its own that
//! everything in `/proc/PID` but `status` may want. Whoever serves that close must not look there.

use std::time::Duration;

use cairn_tests::{Cluster, run, within};

/// Writes, then executes a program while the nodes hang, so that the close by exec has to wait.
const SCRIPT: &str = r#"
import os, subprocess, sys
path, *nodes = sys.argv[1:]
wake = subprocess.Popen(["sh", "-c", "sleep 3; kill -CONT " + " ".join(nodes)])
file = os.open(path, os.O_CREAT | os.O_WRONLY)
for node in nodes:
    os.kill(int(node), 19)
os.write(file, b"x" * 300_000)
subprocess.run(["true"], close_fds=False, check=True)
wake.wait()
os.close(file)
"#;

#[test]
fn a_close_by_exec_that_has_to_wait_ends() {
    within(60, || {
        let mut cluster = Cluster::new();
        let nodes = [0, 1].map(|n| cluster.node(n).id().to_string());
        let mount = cluster.mount();
        let mut python = std::process::Command::new("python3");
        python.args(["-c", SCRIPT]).arg(mount.join("file")).args(nodes);
        let ran = run(python, Duration::from_secs(30));
        assert!(ran.ok(), "{ran:?}");
        assert!(std::fs::read(mount.join("file")).unwrap() == [b'x'; 300_000], "other bytes");
        drop(mount);
        // Not every copy: the node that wakes first may have taken a chunk alone.
        cluster.wait_healthy();
        cluster.assert_fsck_clean();
    });
}
