//! Whole trees go in and come out the same, also after everything was stopped and started again.

use std::path::Path;

use cairn_tests::{
    Cluster, Rng, rng::scale, sh, tree_compare::assert_same, tree_random, tree_random::Shape,
    within,
};

fn odd_tree(place: &Path) -> std::path::PathBuf {
    let source = place.join("source");
    let files = 500 * usize::try_from(scale()).unwrap();
    let shape = Shape { files, ..Shape::default() };
    tree_random::make(&source, shape, &mut Rng::of_run("tree"));
    source
}

/// The same for `diff -r` (which calls any two named pipes different) and for rsync, which also looks
/// at types, modes, owners, times and hard links.
fn same_for_rsync(left: &Path, right: &Path) {
    let (left, right) = (left.display(), right.display());
    sh(&std::env::temp_dir(), 200, &format!("diff -r --no-dereference -x fifo '{left}' '{right}'"));
    let rsync = format!("rsync -anHci --delete '{left}/' '{right}/'");
    let differs = sh(&std::env::temp_dir(), 200, &rsync);
    assert_eq!(differs.trim(), "", "rsync would change this");
}

#[test]
fn a_tree_copied_in_is_the_same_after_everything_was_restarted() {
    within(400, || {
        let mut cluster = Cluster::new();
        let source = odd_tree(cluster.place());
        let mount = cluster.mount();
        sh(mount.path(), 120, &format!("cp -a '{}' tree", source.display()));
        assert_same(&source, &mount.join("tree"));
        mount.unmount();
        cluster.stop_all();
        cluster.start_all();
        let mount = cluster.mount();
        assert_same(&source, &mount.join("tree"));
        same_for_rsync(&source, &mount.join("tree"));
        sh(mount.path(), 120, "rm -rf tree && [ -z \"$(ls -A)\" ]");
        cluster.assert_sound();
    });
}

#[test]
fn the_system_documentation_survives_cp_and_restart() {
    within(400, || {
        let mut cluster = Cluster::new();
        let mount = cluster.mount();
        let copy = "for d in share/doc include lib/git-core; do
              if [ -d /usr/$d ]; then mkdir -p $d && cp -a /usr/$d/. $d/; fi
            done";
        sh(mount.path(), 300, copy);
        drop(mount);
        cluster.stop_all();
        cluster.start_all();
        let mount = cluster.mount();
        let check = "for d in share/doc include lib/git-core; do
              [ -d /usr/$d ] || continue
              diff -r --no-dereference /usr/$d $d && rsync -anHci --delete /usr/$d/ $d/
            done";
        assert_eq!(sh(mount.path(), 300, check).trim(), "");
        cluster.assert_fsck_clean();
    });
}

#[test]
fn a_tree_through_tar_is_the_same() {
    within(300, || {
        let cluster = Cluster::new();
        let source = odd_tree(cluster.place());
        let mount = cluster.mount();
        let script = format!(
            "tar -C '{}' --xattrs -cf in.tar . && mkdir out && tar -C out --xattrs -xpf in.tar",
            source.display()
        );
        sh(mount.path(), 200, &script);
        assert_same(&source, &mount.join("out"));
    });
}

#[test]
fn a_tree_through_upload_and_download_is_the_same() {
    within(300, || {
        let cluster = Cluster::new();
        odd_tree(cluster.place());
        let up = cluster.cairn(120, &["upload", "-r", "source", "--to", "/"]);
        assert!(up.ok(), "{up}");
        let mount = cluster.mount();
        same_for_rsync(&cluster.place().join("source"), &mount.join("source"));
        let down = cluster.cairn(120, &["download", "-r", "/source", "back"]);
        assert!(down.ok(), "{down}");
        let back = cluster.place().join("back");
        let back = if back.join("source").is_dir() { back.join("source") } else { back };
        same_for_rsync(&cluster.place().join("source"), &back);
    });
}
