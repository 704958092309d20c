//! A node that joins gets its share, nothing else moves, and clients go on.

use cairn_tests::{Cluster, inspect, within};

use super::copies::{check, chunks_on, quick, repair, wait_whole, write};

#[test]
fn a_fourth_empty_node_gets_its_share_and_no_more() {
    within(240, || {
        let mut cluster = Cluster::with(quick(3, 2));
        let mount = cluster.mount();
        let files = mount.join("files");
        write(&files, 0, 120);
        wait_whole(&cluster);
        let all = inspect::stored_chunks(&cluster, 3);
        // A chunk that was being written when the nodes were compared may have been copied by repair.
        let before = repair(&cluster).chunks_moved;
        assert!(before < all / 10, "nothing was lost, and {before} of {all} chunks were copied");
        let fourth = cluster.add_node();
        // Reads never fail while it is still empty.
        check(&files, 0, 120);
        wait_whole(&cluster);
        let got = chunks_on(&cluster, fourth);
        let moved = repair(&cluster).chunks_moved - before;
        assert_eq!(got, moved, "whatever was copied was copied to it");
        let held: u64 = (0..4).map(|n| chunks_on(&cluster, n)).sum();
        assert_eq!(held, all, "the old homes have let go");
        // All weigh the same. With so few groups in use, its share is not exactly a quarter.
        let share = all / 4;
        assert!(
            moved.abs_diff(share) <= share / 5,
            "{moved} of {all} copies moved, {share} expected"
        );
        write(&files, 120, 130);
        check(&files, 0, 130);
    });
}
