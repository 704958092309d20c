//! Programs that lean on what POSIX says: repositories with many worktrees, builds, a database server,
//! loads made for finding faults, and the tests of Python's own library.

use std::{fs, net::TcpListener};

use cairn_tests::{Cluster, Mount, rng::scale, sh, within};

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
            pids=; for w in 1 2 3 4; do work $w & pids="$pids $!"; done
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

#[test]
fn make_builds_a_c_project_in_parallel_and_nothing_twice() {
    within(300, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let script = r##"
            mkdir src && cd src
            printf '#define BASE 1\n' >base.h
            for n in $(seq 60); do
              printf '#include "base.h"\n#include "h%d.h"\nint f%d(void) { return BASE + K%d; }\n' $n $n $n >f$n.c
              printf '#define K%d %d\nint f%d(void);\n' $n $n $n >h$n.h
            done
            { for n in $(seq 60); do echo "#include \"h$n.h\""; done
              echo '#include <stdio.h>'
              echo 'int main(void) { int sum = 0;'
              for n in $(seq 60); do echo "sum += f$n();"; done
              echo 'printf("%d\n", sum); return 0; }'; } >main.c
            cat >Makefile <<'MAKE'
OBJECTS := $(patsubst %.c,%.o,$(wildcard f*.c))
CFLAGS := -O1 -g -MMD
program: main.o libf.a
	$(CC) -o $@ main.o libf.a
libf.a: $(OBJECTS)
	rm -f $@; ar rcs $@ $^
-include $(wildcard *.d)
MAKE
            make -s -j4
            [ "$(./program)" = 1890 ]
            make -q
            sleep 0.01; sed -i 's/K7 7/K7 1007/' h7.h
            [ "$(make -n -j4 | grep -c ' -c ')" = 2 ]
            make -s -j4 && [ "$(./program)" = 2890 ]
            sleep 0.01; printf '#define BASE 2\n' >base.h
            make -s -j4 && [ "$(./program)" = 2950 ] && make -q
            make -s -B -j4 && [ "$(./program)" = 2950 ]
        "##;
        sh(mount.path(), 240, script);
        drop(mount);
        cluster.assert_fsck_clean();
    });
}

#[test]
fn postgresql_initdb_and_pgbench() {
    within(400, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        mount.open_to_everybody();
        // PostgreSQL does not run as root. A port that was free a moment ago is the best there is.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = format!(
            r#"
            bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
            mkdir pg && chown nobody pg && cd pg
            as() {{ setpriv --reuid=nobody --regid=nogroup --clear-groups env -u TMPDIR HOME=$PWD "$@"; }}
            export PGPORT={port} PGHOST=127.0.0.1 PGUSER=tester LC_ALL=C.UTF-8
            as $bin/initdb -D data -A trust -U tester -E UTF8 >/dev/null
            echo "listen_addresses='127.0.0.1'" >>data/postgresql.conf
            echo "unix_socket_directories=''" >>data/postgresql.conf
            start() {{ as $bin/pg_ctl -D data -l log -w -t 60 start >/dev/null; }}
            stop() {{ as $bin/pg_ctl -D data -m $1 -w stop >/dev/null; }}
            start
            trap 'cat log; as $bin/pg_ctl -D data -m immediate stop' EXIT
            as $bin/createdb bench
            as $bin/pgbench -i -s 2 -q bench 2>/dev/null
            as $bin/pgbench -c 4 -j 2 -t {transactions} bench 2>&1 | grep -F 'failed transactions: 0 '
            sums="SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
                  AND (SELECT count(*) FROM pgbench_history) = 4 * {transactions}"
            [ "$(as $bin/psql -Atc "$sums" bench)" = t ]
            # Killed without a word, it recovers from its log.
            stop immediate; start
            [ "$(as $bin/psql -Atc "$sums" bench)" = t ]
            as $bin/psql -Atqc 'VACUUM FULL' bench
            stop fast
            trap - EXIT
            as $bin/pg_checksums --version >/dev/null; ! grep -E 'PANIC|FATAL.*(Input|No space)' log
            "#,
            transactions = 300 * scale(),
        );
        sh(mount.path(), 300, &script);
        drop(mount);
        cluster.assert_fsck_clean();
    });
}

/// `sh` in a directory of its own, whose name does not have to be removed by the program.
fn in_directory(mount: &Mount, name: &str, seconds: u64, script: &str) -> String {
    let directory = mount.join(name);
    fs::create_dir(&directory).unwrap();
    sh(&directory, seconds, script)
}

#[test]
fn dbench_with_four_clients() {
    within(200, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let script = format!("timeout 120 dbench -t {} 4", 8 * scale().min(10));
        let said = in_directory(&mount, "dbench", 150, &script);
        assert!(said.contains("Throughput"), "{said}");
        // Its semaphore's number is that of its process: one of another program may have it. Then its clients begin
        // without waiting for each other.
        let said = said.replace("failed to create barrier semaphore", "");
        assert!(!said.contains("ERROR") && !said.contains("failed"), "{said}");
        drop(mount);
        cluster.assert_fsck_clean();
    });
}

#[test]
fn the_file_system_stressors_of_stress_ng() {
    // Not about the file system under test: it mounts one of its own.
    const NOT: &str = "binderfs";
    within(700, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let script = format!(
            "stress-ng --class filesystem --sequential 2 --timeout {} --verify --temp-path . -x {NOT} 2>&1",
            scale().min(10)
        );
        let said = in_directory(&mount, "stress", 680, &script);
        assert!(said.contains("successful run completed"), "{said}");
        assert!(!said.contains("fail:") && !said.contains("error:"), "{said}");
        drop(mount);
        cluster.assert_fsck_clean();
    });
}

#[test]
fn the_tests_of_pythons_own_library() {
    within(500, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let script = "
            export TMPDIR=$PWD
            for module in test_os test_shutil test_tempfile test_mailbox; do
              python3 -m test $module || exit 1
            done";
        let said = in_directory(&mount, "python", 450, script);
        assert_eq!(said.matches("Result: SUCCESS").count(), 4, "{said}");
        assert!(!said.contains("no tests ran"), "{said}");
        drop(mount);
        cluster.assert_fsck_clean();
    });
}
