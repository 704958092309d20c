//! The client in Python against real servers: what it uploads the mount shows, and the other way.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use cairn_tests::{
    Cluster, Rng,
    binaries::checkout,
    command::{Ran, run},
    sh,
    tree_compare::first_difference,
    within,
};

/// The Python with grpcio: that of `scripts/test.sh`, otherwise the system's.
fn python() -> PathBuf {
    let own = checkout().join("target/python/bin/python3");
    let named = std::env::var_os("CAIRN_TEST_PYTHON").map(PathBuf::from);
    named.unwrap_or_else(|| if own.exists() { own } else { "python3".into() })
}

fn client(cluster: &Cluster, arguments: &[&str]) -> Ran {
    let mut command = Command::new(python());
    command.arg(checkout().join("scripts/example_client.py"));
    command.args(["--master", &cluster.master_address()]).args(arguments);
    command.current_dir(cluster.place());
    run(command, Duration::from_secs(120))
}

#[test]
fn the_client_in_python_and_the_mount_see_the_same_files() {
    within(240, || {
        let mut cluster = Cluster::new();
        let mount = cluster.mount();
        let bytes = Rng::new(9).bytes(700_001);
        fs::write(cluster.place().join("local"), &bytes).unwrap();
        let up = client(&cluster, &["upload", "local", "from/python"]);
        assert!(up.ok(), "{up}");
        assert!(fs::read(mount.join("from/python")).unwrap() == bytes);
        fs::write(mount.join("from mount"), Rng::new(10).bytes(1_234_567)).unwrap();
        fs::File::create(mount.join("empty")).unwrap();
        sh(
            mount.path(),
            60,
            "truncate -s 300000 hole && printf x >>hole && sync 'from mount' hole empty",
        );
        for name in ["from mount", "empty", "hole", "from/python"] {
            let down = client(&cluster, &["download", name, "back"]);
            assert!(down.ok(), "{down}");
            assert_eq!(
                first_difference(&mount.join(name), &cluster.place().join("back")),
                None,
                "{name}"
            );
        }
        let listed = client(&cluster, &["list"]);
        let mut names: Vec<_> = listed.stdout.lines().collect();
        names.sort_unstable();
        assert_eq!(names, ["empty", "from mount", "from/python", "hole"]);
        cluster.kill_node(0);
        let down = client(&cluster, &["download", "from/python", "back"]);
        assert!(down.ok(), "with one node dead: {down}");
        assert!(fs::read(cluster.place().join("back")).unwrap() == bytes);
        let none = client(&cluster, &["download", "no such file", "none"]);
        assert_eq!(none.code(), Some(1), "{none}");
        assert!(none.stderr.contains("NOT_FOUND"), "{none}");
        cluster.start_node(0);
        cluster.assert_sound();
    });
}
