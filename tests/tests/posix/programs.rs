//! Programs that lean on what POSIX says: many worktrees of one repository, a parallel build.

use cairn_tests::{Cluster, sh, within};

#[test]
fn git_with_four_parallel_worktrees() {
    within(300, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let script = r#"
            git init -q repo && cd repo
            git config user.name t && git config user.email t@example.org
            git config gc.auto 0
            for i in $(seq 50); do mkdir -p d$((i % 5)); echo "file $i" >d$((i % 5))/f$i; done
            git add . && git commit -qm first
            for w in 1 2 3 4; do git worktree add -q ../w$w -b branch$w; done
            cd ..
            work() {
              cd w$1
              for i in $(seq 10); do
                echo "$1 $i" >>d$((i % 5))/f$i && git commit -qam "worktree $1, change $i" || exit 1
              done
            }
            for w in 1 2 3 4; do work $w & pids="$pids $!"; done
            for p in $pids; do wait $p || exit 1; done
            cd repo && git fsck --full --strict
            for w in 1 2 3 4; do git merge -q -X ours -m "merge $w" branch$w || exit 1; done
            git gc -q && git fsck --full
            [ "$(git log --oneline --no-merges | wc -l)" = 41 ]
            for w in 1 2 3 4; do [ -z "$(git -C ../w$w status --porcelain)" ] || exit 1; done
        "#;
        sh(mount.path(), 200, script);
        drop(mount);
        cluster.assert_fsck_clean();
    });
}
