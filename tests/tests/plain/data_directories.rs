//! Data directories: private, locked, and never mistaken for another's.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use cairn_tests::{Cluster, binaries, command::run, sh, within};
use uuid::Uuid;

#[test]
fn they_are_private_and_formatted_only_when_empty() {
    within(120, || {
        let cluster = Cluster::new();
        for data in [cluster.master_data(), cluster.node_data(0)] {
            let mode = fs::metadata(data).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o700, "{}", data.display());
        }
        let again = cluster.format_node(cluster.node_data(0), cluster.fs_uuid(), "again");
        assert_eq!(again.code(), Some(1), "{again}");
        let full = cluster.place().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("thesis.txt"), "mine").unwrap();
        let mut command = Command::new(binaries::master());
        command.arg("format").arg("--data").arg(&full);
        let ran = run(command, Duration::from_secs(30));
        assert_eq!(ran.code(), Some(1), "{ran}");
        assert_eq!(
            fs::read_dir(&full).unwrap().count(),
            1,
            "format wrote into a foreign directory"
        );
    });
}

fn serve(program: std::path::PathBuf, arguments: &[&str]) -> cairn_tests::command::Ran {
    let mut command = Command::new(program);
    command.arg("serve").args(arguments);
    run(command, Duration::from_secs(20))
}

#[test]
fn a_second_process_and_an_unformatted_directory_are_refused() {
    within(120, || {
        let cluster = Cluster::new();
        let any = ["--listen", "127.0.0.1:0"];
        let master = cluster.master_address();
        let data = cluster.master_data().to_str().unwrap();
        let second = serve(binaries::master(), &[&["--data", data], &any[..]].concat());
        assert_eq!(second.code(), Some(1), "{second}");
        let data = cluster.node_data(0).to_str().unwrap();
        let second = serve(
            binaries::storage(),
            &[&["--data", data, "--master", &master], &any[..]].concat(),
        );
        assert_eq!(second.code(), Some(1), "{second}");
        let empty = cluster.place().join("empty");
        fs::create_dir(&empty).unwrap();
        let data = empty.to_str().unwrap();
        let unformatted = serve(binaries::master(), &[&["--data", data], &any[..]].concat());
        assert_eq!(unformatted.code(), Some(1), "{unformatted}");
        assert!(unformatted.stderr.contains("format"), "no remedy is named: {unformatted}");
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    });
}

#[test]
fn a_node_of_another_file_system_is_not_taken_in() {
    within(120, || {
        let cluster = Cluster::new();
        let foreign = cluster.place().join("foreign");
        let formatted = cluster.format_node(&foreign, &Uuid::new_v4().to_string(), "foreign");
        assert!(formatted.ok(), "{formatted}");
        let script = format!(
            "timeout 5 '{}' serve --data foreign --listen 127.0.0.1:0 --master {} >out 2>err || true",
            binaries::storage().display(),
            cluster.master_address()
        );
        sh(cluster.place(), 30, &script);
        let status = cairn_tests::inspect::status(&cluster).unwrap();
        assert_eq!(status.nodes.len(), 2, "a foreign node is in the map");
        let log = fs::read_to_string(cluster.place().join("err")).unwrap();
        assert!(log.contains("file system"), "the node does not say why: {log}");
    });
}

#[test]
fn a_newer_format_is_refused_with_a_sentence() {
    within(120, || {
        let mut cluster = Cluster::new();
        cluster.stop_all();
        for (program, data) in [
            (binaries::master(), cluster.master_data()),
            (binaries::storage(), cluster.node_data(0)),
        ] {
            let path = data.join("FORMAT");
            let text = fs::read_to_string(&path).unwrap();
            let mut format: serde_json::Value = serde_json::from_str(&text).unwrap();
            format["format_version"] = 99.into();
            fs::write(&path, serde_json::to_string_pretty(&format).unwrap()).unwrap();
            let mut command = Command::new(program);
            command.arg("serve").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]);
            command.env("CAIRN_MASTER", "127.0.0.1:9");
            if data == cluster.node_data(0) {
                command.args(["--master", "127.0.0.1:9"]);
            }
            let ran = run(command, Duration::from_secs(20));
            assert_eq!(ran.code(), Some(1), "{ran}");
            assert!(ran.stderr.contains("99"), "{ran}");
        }
    });
}
