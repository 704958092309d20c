//! The local disk as the measure: the same program runs in a directory of it and in one of a mount, and
//! has to print the same.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use cairn_tests::{Cluster, run, within};

/// What `program` prints in a fresh directory at `place`.
fn printed(place: &Path, program: &[&str]) -> String {
    let dir = place.join("compared");
    fs::create_dir(&dir).unwrap();
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).current_dir(&dir).env("LC_ALL", "C.UTF-8");
    let ran = run(command, Duration::from_secs(100));
    assert!(ran.ok(), "{ran}");
    ran.stdout
}

/// Runs `program` here and there. It has to print at least `lines` lines, or it has not done what it
/// should: the local disk must know what is compared.
pub(crate) fn same_as_local(program: &[&'static str], lines: usize) {
    let program = program.to_vec();
    within(240, move || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        // Other users come and look.
        mount.open_to_everybody();
        fs::set_permissions(cluster.place(), fs::Permissions::from_mode(0o755)).unwrap();
        let local = printed(cluster.place(), &program);
        let mounted = printed(mount.path(), &program);
        let pairs = local.lines().zip(mounted.lines()).enumerate();
        let differing: Vec<String> = pairs
            .filter(|(_, (there, here))| there != here)
            .map(|(number, (there, here))| format!("line {number}: {here:?}, locally {there:?}"))
            .collect();
        assert!(differing.is_empty(), "{}", differing.join("\n"));
        assert_eq!(local.lines().count(), mounted.lines().count());
        assert!(local.lines().count() >= lines, "the local disk does not know them:\n{local}");
        mount.unmount();
        cluster.assert_fsck_clean();
    });
}
