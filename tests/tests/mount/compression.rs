//! Compression as a setting of the file system: less is stored, and everything reads the same.

use std::{fmt::Write as _, fs, os::unix::fs::FileExt, process::Command, time::Duration};

use cairn_proto::pb;
use cairn_tests::{
    Cluster, Layout, Rng, binaries,
    command::Ran,
    inspect::{self, stored_bytes},
    mount::store,
    run, sh, within,
};

/// Text that compresses to less than a third.
fn text(len: usize) -> Vec<u8> {
    let mut rng = Rng::new(5);
    let mut text = String::new();
    while text.len() < len {
        let noise = u64::from_le_bytes(rng.bytes(8).try_into().unwrap());
        writeln!(text, "2026-11-22 10:30:00 INFO request {noise:016x} served in {} ms", noise % 90)
            .unwrap();
    }
    text.truncate(len);
    text.into_bytes()
}

fn compressed(how: &str) -> Cluster {
    let format_args = vec!["--compression".to_owned(), how.to_owned()];
    Cluster::with(Layout { format_args, ..Layout::default() })
}

fn set(cluster: &Cluster, how: &str) -> Ran {
    let ran = cluster.cairn(30, &["cluster", "set", "--compression", how]);
    assert!(ran.ok(), "{ran}");
    ran
}

fn json(cluster: &Cluster, arguments: &[&str]) -> serde_json::Value {
    let ran = cluster.cairn(60, arguments);
    assert!(ran.ok(), "{ran}");
    serde_json::from_str(&ran.stdout).unwrap()
}

/// What the first node has stored under an id.
fn chunk(cluster: &Cluster, chunk_id: String) -> Vec<u8> {
    let get = pb::GetChunkRequest { chunk_id };
    let answer = inspect::block_on(30, async { inspect::storage(cluster, 0).get_chunk(get).await });
    answer.unwrap().into_inner().data.to_vec()
}

#[test]
fn text_takes_less_and_reads_the_same_after_a_remount_and_an_overwrite() {
    within(120, || {
        let cluster = compressed("zstd:4");
        let mut content = text((4 << 20) + 12_345);
        let mount = cluster.mount();
        store(&mount.join("a"), &content);
        let after_one = stored_bytes(&cluster, 2);
        assert!(after_one > 0 && after_one < content.len() as u64, "2 copies take {after_one}");
        store(&mount.join("b"), &content);
        assert_eq!(stored_bytes(&cluster, 2), after_one, "the same again adds nothing");
        sh(mount.path(), 60, "cp a copy && sync copy && truncate -s 100000 copy");
        assert_eq!(stored_bytes(&cluster, 2), after_one, "copies refer to the same chunks");
        mount.unmount();

        let mount = cluster.mount();
        assert!(fs::read(mount.join("a")).unwrap() == content);
        assert!(fs::read(mount.join("copy")).unwrap() == content[..100_000]);
        mount.unmount();
        // Nothing is in memory: the old bytes of the chunk have to be fetched and decoded.
        let mount = cluster.mount();
        let file = fs::File::options().write(true).open(mount.join("a")).unwrap();
        file.write_all_at(b"overwritten", 70_000).unwrap();
        file.sync_all().unwrap();
        drop(file);
        content[70_000..70_011].copy_from_slice(b"overwritten");
        mount.unmount();

        let mount = cluster.mount();
        assert!(fs::read(mount.join("a")).unwrap() == content);
        mount.unmount();
        let cat = cluster.cairn(60, &["cat", "/a"]);
        assert!(cat.ok() && cat.stdout.as_bytes() == content);
        let target = cluster.place().join("downloaded");
        let download = cluster.cairn(60, &["download", "a", target.to_str().unwrap()]);
        assert!(download.ok() && fs::read(&target).unwrap() == content, "{download}");
        let status = json(&cluster, &["status", "--json"]);
        assert_eq!(status["compression"], "zstd:4");
        assert!(status["compression_ratio"].as_f64().unwrap() > 2.0, "{status}");
        let shown = cluster.cairn(30, &["status"]);
        assert!(shown.stdout.contains("Compression    zstd:4;"), "{shown}");
        let chunks = &json(&cluster, &["analyze", "--json"])["chunks"];
        assert!(chunks["compression_ratio"].as_f64().unwrap() > 2.0, "{chunks}");
        assert!(chunks["codecs"]["zstd"].as_u64().unwrap() > 60, "{chunks}");
        let info = json(&cluster, &["info", "--json", "/a"]);
        assert_eq!(info["files"][0]["content"]["list"][0]["codec"], "zstd");
        cluster.assert_sound();
    });
}

#[test]
fn what_does_not_shrink_is_stored_as_it_is() {
    within(60, || {
        let cluster = compressed("lz4");
        let mount = cluster.mount();
        let noise = Rng::new(6).bytes(2 << 20);
        store(&mount.join("noise"), &noise);
        assert_eq!(stored_bytes(&cluster, 2), 2 * noise.len() as u64);
        let chunks = &json(&cluster, &["analyze", "--json"])["chunks"];
        assert_eq!(chunks["codecs"]["plain"], 32, "{chunks}");
        assert_eq!(chunks["codecs"]["lz4"], serde_json::Value::Null);
        // A hole stays a hole.
        store(&mount.join("zeros"), &vec![0; 1 << 20]);
        assert_eq!(stored_bytes(&cluster, 2), 2 * noise.len() as u64);
        mount.unmount();
        assert!(fs::read(cluster.mount().join("noise")).unwrap() == noise);
        cluster.assert_sound();
    });
}

#[test]
fn another_setting_holds_for_new_chunks_and_all_stay_readable() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let content = text(1 << 20);
        store(&mount.join("off"), &content);
        let mut before = stored_bytes(&cluster, 2);
        assert_eq!(before, 2 << 20, "off unless asked for");
        for (how, codec) in [("lz4", "lz4"), ("zstd", "zstd"), ("zstd:12", "zstd")] {
            let name = format!("{how} file");
            let said = set(&cluster, how);
            assert!(said.stdout.contains(codec), "{said}");
            // Once the mount has heard of it, the same content makes other chunks.
            let now = loop {
                store(&mount.join(&name), &content);
                let now = stored_bytes(&cluster, 2);
                if now > before {
                    break now;
                }
            };
            assert!(now - before < 1 << 20, "{how}: {before} then {now}");
            let info = json(&cluster, &["info", "--json", &format!("/{name}")]);
            assert_eq!(info["files"][0]["content"]["list"][0]["codec"], codec);
            before = now;
        }
        set(&cluster, "off");
        let names = ["off", "lz4 file", "zstd file", "zstd:12 file"];
        mount.unmount();
        let mount = cluster.mount();
        for name in names {
            assert!(fs::read(mount.join(name)).unwrap() == content, "{name}");
        }
        store(&mount.join("again"), &content);
        let info = json(&cluster, &["info", "--json", "/again"]);
        assert_eq!(info["files"][0]["content"]["list"][0]["codec"], "plain");
        mount.unmount();
        for wrong in ["gzip", "zstd:20", "lz4:1"] {
            let ran = cluster.cairn(30, &["cluster", "set", "--compression", wrong]);
            assert!(ran.code() == Some(2) && ran.stderr.contains("zstd:LEVEL"), "{ran}");
        }
        cluster.assert_sound();
    });
}

#[test]
fn the_setting_and_the_codecs_survive_a_restart_and_a_dump() {
    within(120, || {
        let mut cluster = Cluster::new();
        set(&cluster, "zstd:2");
        let mount = cluster.mount();
        let content = text(2 << 20);
        store(&mount.join("a"), &content);
        mount.unmount();
        let taken = stored_bytes(&cluster, 2);
        assert!(taken < 2 << 20);
        let dump = cluster.place().join("dump");
        let ran = cluster.cairn(30, &["meta", "dump", dump.to_str().unwrap()]);
        assert!(ran.ok(), "{ran}");

        cluster.stop_master();
        fs::remove_dir_all(cluster.master_data()).unwrap();
        let mut load = Command::new(binaries::master());
        load.arg("load").arg("--data").arg(cluster.master_data()).arg(&dump);
        let ran = run(load, Duration::from_secs(60));
        assert!(ran.ok(), "{ran}");
        cluster.start_master();
        cluster.wait_healthy();
        assert_eq!(json(&cluster, &["status", "--json"])["compression"], "zstd:2");
        let mount = cluster.mount();
        assert!(fs::read(mount.join("a")).unwrap() == content);
        store(&mount.join("b"), &content);
        mount.unmount();
        assert_eq!(stored_bytes(&cluster, 2), taken, "compressed as before");
        cluster.assert_sound();
    });
}

#[test]
fn a_file_that_is_the_frame_of_another_chunk_is_not_mistaken_for_it() {
    within(60, || {
        let cluster = compressed("zstd");
        let mount = cluster.mount();
        let content = text(60_000);
        store(&mount.join("text"), &content);
        let before = stored_bytes(&cluster, 2);
        let info = json(&cluster, &["info", "--json", "/text"]);
        let id = info["files"][0]["content"]["list"][0]["id"].as_str().unwrap().to_owned();
        let frame = chunk(&cluster, id);
        assert!(frame.len() < 30_000);
        store(&mount.join("frame"), &frame);
        assert_eq!(stored_bytes(&cluster, 2), before, "one chunk, read in two ways");
        for _ in 0..2 {
            assert!(fs::read(mount.join("text")).unwrap() == content);
            assert!(fs::read(mount.join("frame")).unwrap() == frame);
            sh(mount.path(), 60, "cp text copied && sync copied");
        }
        mount.unmount();
        let mount = cluster.mount();
        assert!(fs::read(mount.join("frame")).unwrap() == frame);
        assert!(fs::read(mount.join("copied")).unwrap() == content);
        mount.unmount();
        cluster.assert_sound();
    });
}

#[test]
fn plain_clients_get_plain_chunks() {
    within(60, || {
        let cluster = compressed("zstd");
        let mount = cluster.mount();
        let content = text(1_000_000);
        store(&mount.join("a"), &content);
        mount.unmount();
        let manifest = inspect::block_on(30, async {
            let get = pb::GetManifestRequest { filename: "a".into(), ..Default::default() };
            inspect::master(&cluster).get_manifest(get).await.unwrap().into_inner()
        });
        let read: Vec<u8> =
            manifest.chunks.into_iter().flat_map(|id| chunk(&cluster, id)).collect();
        assert!(read == content);
        cluster.assert_sound();
    });
}
