//! The simplest promise: a store of three nodes is whole.

use std::fs;

use cairn_tests::{Cluster, Layout, Rng, within};

#[test]
fn three_nodes_hold_two_copies_of_everything() {
    within(60, || {
        let cluster = Cluster::with(Layout { nodes: 3, ..Layout::default() });
        let mount = cluster.mount();
        let bytes = Rng::of_run("start").bytes(3_000_000);
        fs::write(mount.join("file"), &bytes).unwrap();
        assert!(fs::read(mount.join("file")).unwrap() == bytes);
        mount.unmount();
        cluster.assert_sound();
    });
}
