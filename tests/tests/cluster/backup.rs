//! The master is lost with its disk: what its backups in the storage nodes bring back, and what not.

use std::{fs, time::Duration};

use cairn_master::failpoints as points;
use cairn_tests::{
    Cluster, Layout, Mount, Rng, inspect, tree_compare::assert_same, wait_for, within,
};

use super::metadata::{fill, master};

fn layout(nodes: usize, replicas: u32) -> Layout {
    let master_args = ["--backup-interval", "1"].map(str::to_owned).to_vec();
    Layout { nodes, replicas, master_args, ..Layout::default() }
}

fn cluster(nodes: usize, replicas: u32) -> Cluster {
    Cluster::with(layout(nodes, replicas))
}

fn backup(cluster: &Cluster) -> cairn_proto::pb::BackupStatus {
    inspect::status(cluster).unwrap().backup.unwrap()
}

/// Waits until everything that was done before the call is in a backup.
fn wait_for_backup(cluster: &Cluster) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    let saved = || backup(cluster).current_unix_ms > now && backup(cluster).failure.is_empty();
    assert!(wait_for(Duration::from_secs(30), saved), "{:?}", backup(cluster));
}

/// The master and its directory are gone.
fn lose_master(cluster: &mut Cluster) {
    cluster.kill_master();
    fs::remove_dir_all(cluster.master_data()).unwrap();
}

fn restore(cluster: &Cluster, nodes: &[usize], more: &[&str]) -> cairn_tests::command::Ran {
    let data = cluster.master_data().to_str().unwrap().to_owned();
    let addresses: Vec<_> = nodes.iter().map(|n| cluster.node_address(*n).to_string()).collect();
    let mut arguments = vec!["restore-from-nodes", "--data", &data];
    for address in &addresses {
        arguments.extend(["--node", address]);
    }
    arguments.extend(more);
    master(&arguments)
}

#[test]
fn a_lost_master_comes_back_from_its_nodes() {
    within(150, || {
        let mut cluster = cluster(3, 2);
        let mut rng = Rng::of_run("restore");
        let mount = cluster.mount();
        fill(cluster.place(), mount.path(), &mut rng);
        wait_for_backup(&cluster);
        mount.unmount();
        wait_for_backup(&cluster);
        let before = backup(&cluster);
        assert!(before.chunks > 0 && before.roots == 3, "{before:?}");
        lose_master(&mut cluster);

        let ran = restore(&cluster, &[1], &["--list", "--json"]);
        assert!(ran.ok(), "{ran}");
        let list: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(list["backups"][0]["problem"].is_null(), "{ran}");
        let ran = restore(&cluster, &[0], &[]);
        assert!(ran.ok() && ran.stdout.contains("Lost is what was acknowledged after"), "{ran}");
        let again = restore(&cluster, &[0], &[]);
        assert!(!again.ok() && again.stderr.contains("already"), "{again}");

        cluster.start_master();
        cluster.wait_healthy();
        let mount = cluster.mount();
        let source = cluster.place().join("source");
        assert!(fs::read(mount.join("shared")).unwrap() == fs::read(source.join("long")).unwrap());
        fs::remove_file(mount.join("shared")).unwrap();
        assert_same(&source, mount.path());
        fs::write(mount.join("new"), rng.bytes(200_000)).unwrap();
        wait_for_backup(&cluster);
        mount.unmount();
        cluster.assert_sound();
        let after = backup(&cluster);
        assert!(after.generation > before.generation, "{after:?}");
    });
}

/// Rows that fill many chunks.
fn make_links(mount: &Mount, name: &str) {
    for n in 0..300 {
        let target = format!("{n}-{}", name.repeat(2000 / name.len()));
        std::os::unix::fs::symlink(target, mount.join(format!("{name}{n}"))).unwrap();
    }
}

#[test]
fn an_older_backup_is_taken_when_chunks_of_the_newest_are_gone_and_that_is_said() {
    within(120, || {
        // Without repair, what was written while one node was away stays on the other.
        let mut layout = layout(2, 1);
        layout.master_args.extend(["--repair-concurrency", "0"].map(str::to_owned));
        let mut cluster = Cluster::with(layout);
        cluster.kill_node(1);
        assert!(wait_for(Duration::from_secs(20), || inspect::nodes_up(&cluster).unwrap() == 1));
        let mount = cluster.mount();
        fs::write(mount.join("old"), b"in every backup").unwrap();
        wait_for_backup(&cluster);
        let older = backup(&cluster).generation;
        cluster.start_node(1);
        cluster.wait_healthy();
        make_links(&mount, "link");
        wait_for_backup(&cluster);
        assert!(backup(&cluster).generation > older);
        drop(mount);
        lose_master(&mut cluster);
        let ran = restore(&cluster, &[0, 1], &["--list"]);
        assert!(ran.ok() && ran.stdout.matches("whole").count() >= 2, "{ran}");
        cluster.kill_node(1);
        let ran = restore(&cluster, &[0, 1], &["--list"]);
        assert!(ran.ok() && ran.stdout.contains("on no node that answers"), "{ran}");
        let ran = restore(&cluster, &[0, 1], &[]);
        assert!(ran.ok() && ran.stdout.contains("Newer, but not whole"), "{ran}");
        assert!(ran.stdout.contains("does not answer"), "{ran}");
        cluster.start_all();
        let mount = cluster.mount();
        assert_eq!(fs::read(mount.join("old")).unwrap(), b"in every backup");
        assert!(!mount.join("link299").is_symlink());
        mount.unmount();
        cluster.assert_fsck_clean();
    });
}

#[test]
fn what_did_not_change_is_not_sent_again_and_old_generations_go() {
    within(120, || {
        let mut cluster = cluster(2, 2);
        let mount = cluster.mount();
        make_links(&mount, "link");
        wait_for_backup(&cluster);
        let first = backup(&cluster);
        assert!(first.chunks > 20, "{first:?}");
        for n in 0..5 {
            fs::write(mount.join(format!("small{n}")), b"x").unwrap();
            wait_for_backup(&cluster);
        }
        let last = backup(&cluster);
        let sent = (last.chunks_sent - first.chunks_sent) / 2 / (last.done - first.done);
        assert!(sent < first.chunks / 2, "{sent} of {} chunks each time", first.chunks);
        let files = || fs::read_dir(cluster.node_data(0).join("backups")).unwrap().count();
        assert!(files() <= 4, "{} roots", files());
        // A restarted master knows what it keeps, and goes on.
        drop(mount);
        cluster.kill_master();
        cluster.start_master();
        cluster.wait_healthy();
        wait_for_backup(&cluster);
        assert!(backup(&cluster).generation > last.generation);
        cluster.assert_sound();
    });
}

/// The master dies at a step of a backup. Then it is started again, makes further backups, and is lost.
fn master_dies_at(point: &'static str) {
    within(120, move || {
        let mut cluster = Cluster::with(Layout { failpoints: true, ..layout(2, 2) });
        cluster.kill_master();
        cluster.start_master_with(&[("CAIRN_FAILPOINTS", &format!("{point}=exit@2"))]);
        cluster.wait_healthy();
        let mount = cluster.mount();
        fs::write(mount.join("before"), b"written before the crash").unwrap();
        let mut n = 0;
        let died = wait_for(Duration::from_secs(30), || {
            n += 1;
            // It fails when the master is away for long; it is not what is asked here.
            let _ = fs::write(mount.join(format!("file{n}")), b"x");
            !cluster.master().is_running()
        });
        assert!(died, "the master did not pass {point}");
        cluster.kill_master();
        let ran = restore(&cluster, &[0, 1], &["--list"]);
        assert!(ran.ok() && ran.stdout.contains("whole"), "after {point}: {ran}");
        cluster.start_master();
        cluster.wait_healthy();
        fs::write(mount.join("after"), b"written after the crash").unwrap();
        wait_for_backup(&cluster);
        drop(mount);
        lose_master(&mut cluster);
        let ran = restore(&cluster, &[0, 1], &[]);
        assert!(ran.ok(), "{ran}");
        cluster.start_master();
        cluster.wait_healthy();
        let mount = cluster.mount();
        assert_eq!(fs::read(mount.join("before")).unwrap(), b"written before the crash");
        assert_eq!(fs::read(mount.join("after")).unwrap(), b"written after the crash");
        mount.unmount();
        cluster.assert_sound();
    });
}

#[test]
fn the_master_dies_with_the_chunks_of_a_backup_on_the_nodes() {
    master_dies_at(points::BACKUP_CHUNKS);
}

#[test]
fn the_master_dies_with_a_backup_finished_that_no_node_knows() {
    master_dies_at(points::BACKUP_FINISHED);
}

#[test]
fn the_master_dies_before_older_backups_are_forgotten() {
    master_dies_at(points::BACKUP_ROOTS);
}

/// Garbage is collected between backups and the loss of the master, and after the restore.
#[test]
fn what_is_backed_up_is_no_garbage_and_what_is_garbage_after_a_restore_goes() {
    within(120, || {
        let mut cluster = cluster(2, 2);
        let mut rng = Rng::of_run("backup and garbage");
        let mount = cluster.mount();
        make_links(&mount, "link");
        fs::write(mount.join("kept"), rng.bytes(1_000_000)).unwrap();
        fs::write(mount.join("garbage"), rng.bytes(3_000_000)).unwrap();
        wait_for_backup(&cluster);
        fs::remove_file(mount.join("garbage")).unwrap();
        wait_for_backup(&cluster);
        let kept = fs::read(mount.join("kept")).unwrap();
        mount.unmount();
        let ran = cluster.cairn(60, &["gc", "--force"]);
        assert!(ran.ok(), "{ran}");
        wait_for_backup(&cluster);
        lose_master(&mut cluster);
        let ran = restore(&cluster, &[0], &[]);
        assert!(ran.ok() && !ran.stdout.contains("not whole"), "{ran}");
        cluster.start_master();
        cluster.wait_healthy();
        let mount = cluster.mount();
        assert!(fs::read(mount.join("kept")).unwrap() == kept);
        fs::write(mount.join("new"), rng.bytes(500_000)).unwrap();
        mount.unmount();
        let ran = cluster.cairn(60, &["gc", "--force"]);
        assert!(ran.ok(), "{ran}");
        cluster.assert_sound();
        wait_for_backup(&cluster);
        let ran = restore(&cluster, &[0], &["--list"]);
        assert!(ran.ok() && ran.stdout.contains("whole"), "{ran}");
    });
}
