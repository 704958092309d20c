//! The simplest promise: a store of three nodes is whole.

use std::fs;

use cairn_tests::{Cluster, Layout, Mount, Rng, within};

fn write_and_compare(mount: &Mount) {
    let bytes = Rng::of_run("start").bytes(3_000_000);
    fs::write(mount.join("file"), &bytes).unwrap();
    assert!(fs::read(mount.join("file")).unwrap() == bytes);
}

#[test]
fn three_nodes_hold_two_copies_of_everything() {
    within(60, || {
        let cluster = Cluster::with(Layout { nodes: 3, ..Layout::default() });
        let mount = cluster.mount();
        write_and_compare(&mount);
        mount.unmount();
        cluster.assert_sound();
    });
}
