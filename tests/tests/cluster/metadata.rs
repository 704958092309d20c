//! Dumps of the metadata: taken while the store is written to, loaded elsewhere, refused when they are
//! not as they were written.

use std::{fs, path::Path, process::Command, time::Duration};

use cairn_tests::{
    Cluster, Rng, binaries,
    command::{Ran, run},
    sh,
    tree_compare::assert_same,
    tree_random,
    tree_random::Shape,
    within,
};

/// `cairn-master VERB ...`
pub(super) fn master(arguments: &[&str]) -> Ran {
    let mut command = Command::new(binaries::master());
    command.args(arguments);
    run(command, Duration::from_secs(60))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Trees, links, attributes, holes, a file with several segments that another one shares.
pub(super) fn fill(place: &Path, into: &Path, rng: &mut Rng) {
    let source = place.join("source");
    tree_random::make(&source, Shape { files: 60, ..Shape::default() }, rng);
    fs::write(source.join("long"), rng.bytes(10_000_000)).unwrap();
    let script = "ln long again && truncate -s 20M sparse && setfattr -n user.a -v b again";
    sh(&source, 20, script);
    sh(place, 60, &format!("cp -a source/. '{}' && sync", into.display()));
    sh(into, 20, "cp --reflink=auto long shared");
}

#[test]
fn a_loaded_dump_is_the_file_system_of_the_moment_it_was_taken() {
    within(120, || {
        let mut cluster = Cluster::new();
        let mut rng = Rng::of_run("dump");
        let mount = cluster.mount();
        fill(cluster.place(), mount.path(), &mut rng);
        let dump = cluster.place().join("dump");
        let ran = cluster.cairn(30, &["meta", "dump", text(&dump), "--json"]);
        assert!(ran.ok(), "{ran}");
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["bytes"], fs::metadata(&dump).unwrap().len());
        assert_eq!(report["fs_uuid"], cluster.fs_uuid());
        fs::write(mount.join("later"), b"not in the dump").unwrap();
        mount.unmount();
        cluster.kill_master();

        let old = cluster.place().join("old");
        fs::rename(cluster.master_data(), &old).unwrap();
        let data = text(cluster.master_data()).to_owned();
        let ran = master(&["load", "--data", &data, text(&dump)]);
        assert!(ran.ok(), "{ran}");
        cluster.start_master();
        cluster.wait_healthy();
        let mount = cluster.mount();
        assert!(!mount.join("later").exists());
        let source = cluster.place().join("source");
        assert!(fs::read(mount.join("shared")).unwrap() == fs::read(source.join("long")).unwrap());
        fs::remove_file(mount.join("shared")).unwrap();
        assert_same(&source, mount.path());
        let highest = |of: &Path| {
            use std::os::unix::fs::MetadataExt;
            let entries = fs::read_dir(of).unwrap();
            entries.map(|e| e.unwrap().metadata().unwrap().ino()).max().unwrap()
        };
        let before = highest(mount.path());
        fs::write(mount.join("new"), b"after the load").unwrap();
        let ino = highest(mount.path());
        assert!(ino > before + (1 << 31), "{ino}: no number is given to two files");
        mount.unmount();
        cluster.assert_sound();
    });
}

#[test]
fn what_is_not_whole_or_not_wanted_is_refused() {
    within(60, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        fs::write(mount.join("a"), Rng::of_run("refused").bytes(500_000)).unwrap();
        mount.unmount();
        let place = cluster.place().to_owned();
        let dump = place.join("dump");
        assert!(cluster.cairn(30, &["meta", "dump", text(&dump)]).ok());
        let whole = fs::read(&dump).unwrap();
        let (cut, changed) = (place.join("cut"), place.join("changed"));
        fs::write(&cut, &whole[..whole.len() - 5]).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        fs::write(&changed, &bytes).unwrap();

        let new = place.join("new");
        for (file, why) in [(&cut, "cut off at byte"), (&changed, "altered or damaged at byte")] {
            let ran = master(&["load", "--data", text(&new), text(file)]);
            assert!(ran.code() == Some(1) && ran.stderr.contains(why), "{ran}");
            let ran = master(&["load", "--check", text(file)]);
            assert!(ran.code() == Some(1) && ran.stderr.contains(why), "{ran}");
            assert!(!master(&["info", "--data", text(&new)]).ok(), "nothing is left that serves");
        }
        let ran = master(&["load", "--data", text(cluster.master_data()), text(&dump)]);
        assert!(ran.code() == Some(1) && ran.stderr.contains("already"), "{ran}");
        let ran = master(&["load", "--data", text(&new), text(&dump)]);
        assert!(ran.ok(), "after refusals the same directory will do: {ran}");
        let ran = master(&["load", "--check", text(&dump)]);
        assert!(ran.ok() && ran.stdout.contains("is whole"), "{ran}");
    });
}
