//! Programs that ask more of a file system than copying: git, sqlite, a compiler.

use cairn_tests::{Cluster, sh, within};

#[test]
fn git_init_add_commit_gc_fsck_and_clone() {
    within(300, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let script = r#"
            git init -q repo && cd repo
            git config user.name t && git config user.email t@example.org
            for i in $(seq 200); do mkdir -p d$((i % 10)); echo "file $i" >d$((i % 10))/f$i; done
            head -c 3000000 /dev/urandom >big
            git add . && git commit -qm one
            for i in $(seq 20); do echo more >>d1/f1; git commit -qam "change $i"; done
            git gc -q && git fsck --full --strict
            cd .. && git clone -q repo copy && cd copy && git fsck --full
            [ "$(git rev-parse HEAD)" = "$(git -C ../repo rev-parse HEAD)" ]
            [ -z "$(git status --porcelain)" ] && cmp big ../repo/big
            git checkout -q -b branch HEAD~5 && git checkout -q - && git stash list
        "#;
        sh(mount.path(), 200, script);
        drop(mount);
        let mount = cluster.mount();
        sh(mount.path(), 60, "git -C repo fsck --full && git -C copy status --porcelain");
        cluster.assert_fsck_clean();
    });
}

#[test]
fn sqlite_with_rollback_journal_and_with_wal() {
    within(300, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        for mode in ["DELETE", "TRUNCATE", "WAL"] {
            let script = format!(
                "sqlite3 {mode}.db 'PRAGMA journal_mode={mode}; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX i ON t(v);'
                 for n in 1 2 3 4 5; do
                   sqlite3 {mode}.db \"BEGIN; WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<2000)
                     INSERT INTO t(v) SELECT hex(randomblob(50)) FROM c; COMMIT; DELETE FROM t WHERE id % 7 = $n;\"
                 done
                 sqlite3 {mode}.db 'BEGIN; DELETE FROM t; ROLLBACK; PRAGMA integrity_check; SELECT count(*) > 5000 FROM t; VACUUM;'"
            );
            let said = sh(mount.path(), 120, &script);
            assert!(said.ends_with("ok\n1\n"), "{mode}: {said}");
        }
        drop(mount);
        let mount = cluster.mount();
        for mode in ["DELETE", "TRUNCATE", "WAL"] {
            let said =
                sh(mount.path(), 60, &format!("sqlite3 {mode}.db 'PRAGMA integrity_check;'"));
            assert_eq!(said, "ok\n");
        }
    });
}

#[test]
fn a_small_rust_project_builds_and_runs() {
    within(300, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let script = "
            export CARGO_HOME=${CARGO_HOME:-/root/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-/root/.rustup}
            unset CARGO_TARGET_DIR
            mkdir -p hello/src && cd hello
            printf '[package]\\nname = \"hello\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[workspace]\\n' >Cargo.toml
            printf 'fn main() { println!(\"hello from the store\"); }\\n' >src/main.rs
            cargo build -q --offline && ./target/debug/hello && cargo run -q --offline";
        let said = sh(mount.path(), 200, script);
        assert_eq!(said, "hello from the store\n".repeat(2));
    });
}
