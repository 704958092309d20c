//! Locks across two mounts: flock, fcntl, open file description locks; who waits, who dies.

use std::{path::Path, thread, time::Duration};

use cairn_tests::{Cluster, Layout, sh, wait_for, within};

use crate::lock_agent::Agent;

/// A session ends when nothing is heard of its client for so many seconds.
fn expiry(seconds: u32) -> Layout {
    let master_args = vec!["--session-expiry".to_owned(), seconds.to_string()];
    Layout { master_args, ..Layout::default() }
}

/// Two programs on two mounts with one file open.
fn pair(one: &Path, two: &Path) -> (Agent, Agent) {
    let first = Agent::with(one, "w");
    assert!(wait_for(Duration::from_secs(5), || two.exists()));
    (first, Agent::with(two, "w"))
}

#[test]
fn flock_excludes_and_shares_between_mounts() {
    within(120, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        assert_eq!(a.ask("flock f sh nb"), "ok");
        assert_eq!(b.ask("flock f sh nb"), "ok");
        assert_eq!(b.ask("flock f ex nb"), "EAGAIN");
        assert_eq!(a.ask("flock f ex nb"), "ok", "a refused conversion has lost the old lock");
        assert_eq!(b.ask("flock f sh nb"), "EAGAIN");
        b.order("flock f ex");
        assert!(b.waits());
        assert_eq!(a.ask("flock f un"), "ok");
        assert_eq!(b.answer(), "ok");
        assert_eq!(a.ask("flock f sh nb"), "EAGAIN");
        assert_eq!(b.ask("close f"), "ok");
        assert_eq!(a.ask("flock f ex"), "ok", "the end of the file ended the lock");
    });
}

#[test]
fn a_lock_that_ended_by_close_can_be_had_at_once() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        // The kernel does not wait for the end of a handle: the next open and lock may be ahead of it.
        let script = "python3 - <<'E'\nimport fcntl, os\nfor i in range(300):\n\
                      \x20   f = os.open('f', os.O_RDWR | os.O_CREAT)\n\
                      \x20   fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n\
                      \x20   os.pwrite(f, b'x' * i, 0)\n    os.close(f)\nE\n";
        sh(mount.path(), 100, script);
    });
}

#[test]
fn record_locks_exclude_by_range_between_mounts() {
    within(120, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        let mut beside = Agent::with(&one.join("f"), "w");
        assert_eq!(a.ask("posix f w 100 50 nb"), "ok");
        assert_eq!(b.ask("posix f w 0 100 nb"), "ok");
        assert_eq!(b.ask("posix f r 149 1 nb"), "EAGAIN");
        assert_eq!(b.ask("get f 90 1000"), "w 100 50 unknown");
        assert_eq!(beside.ask("get f 120 10"), "w 100 50 known");
        assert_eq!(a.ask("get f 100 50"), "free", "one's own locks are not in the way");
        assert_eq!(a.ask("posix f u 110 10 nb"), "ok");
        assert_eq!(b.ask("posix f w 110 10 nb"), "ok", "the middle was unlocked");
        assert_eq!(b.ask("posix f w 109 1 nb"), "EAGAIN");
        assert_eq!(a.ask("posix f r 120 30 nb"), "ok");
        assert_eq!(b.ask("posix f r 120 30 nb"), "ok", "downgraded");
        b.order("posix f w 100 0");
        assert!(b.waits());
        assert_eq!(a.ask("posix f u 0 0"), "ok");
        assert_eq!(b.answer(), "ok");
        assert_eq!(beside.ask("posix f r 200 1 nb"), "EAGAIN");
    });
}

#[test]
fn closing_any_descriptor_ends_the_locks_of_the_process() {
    within(120, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        assert_eq!(a.ask("posix f w 0 10"), "ok");
        assert_eq!(a.ask(&format!("open g {} r", one.join("f").display())), "ok");
        assert_eq!(a.ask("posix g r 20 10"), "ok");
        assert_eq!(b.ask("posix f w 0 0 nb"), "EAGAIN");
        assert_eq!(a.ask("close g"), "ok");
        assert_eq!(b.ask("posix f w 0 0 nb"), "ok", "a reader's close as well");
        assert_eq!(b.ask("posix f u 0 0"), "ok");
        // A child inherits the open file, and not the locks of its parent.
        assert_eq!(a.ask("posix f w 0 10"), "ok");
        assert_eq!(a.ask("fork"), "ok");
        assert_eq!(a.ask("close f"), "ok");
        assert_eq!(b.ask("posix f w 0 10 nb"), "ok");
    });
}

#[test]
fn locks_of_an_open_file_last_as_long_as_it_is_open_anywhere() {
    within(120, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        for lock in ["ofd f w 0 0", "flock f ex"] {
            let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
            let try_lock = format!("{lock} nb");
            assert_eq!(a.ask(lock), "ok");
            assert_eq!(a.ask("dup f g"), "ok");
            assert_eq!(a.ask("close f"), "ok");
            assert_eq!(b.ask(&try_lock), "EAGAIN", "{lock}: the copy is open");
            assert_eq!(a.ask("fork"), "ok");
            assert_eq!(a.ask("close g"), "ok");
            assert_eq!(b.ask(&try_lock), "EAGAIN", "{lock}: the child has it open");
            b.order(lock);
            assert!(b.waits());
            assert_eq!(a.ask("close child"), "ok");
            assert_eq!(b.answer(), "ok", "{lock}");
        }
        let mut a = Agent::with(&one.join("f"), "w");
        assert_eq!(a.ask(&format!("open g {} w", one.join("f").display())), "ok");
        assert_eq!(a.ask("ofd f w 0 10"), "ok");
        assert_eq!(a.ask("ofd g w 5 1 nb"), "EAGAIN", "two open files of one process");
        assert_eq!(a.ask("posix f w 5 1 nb"), "EAGAIN", "the process is another owner");
    });
}

#[test]
fn a_program_may_take_both_kinds_on_one_file() {
    within(120, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        assert_eq!(a.ask("flock f ex"), "ok");
        assert_eq!(a.ask("posix f w 0 0"), "ok");
        assert_eq!(b.ask("flock f sh nb"), "EAGAIN");
        assert_eq!(b.ask("posix f r 7 1 nb"), "EAGAIN");
        assert_eq!(a.ask("flock f un"), "ok");
        assert_eq!(b.ask("flock f ex nb"), "ok");
        assert_eq!(b.ask("posix f r 7 1 nb"), "EAGAIN");
    });
}

#[test]
fn a_signal_ends_the_wait_for_a_lock_and_leaves_nothing_behind() {
    within(120, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        let mut c = Agent::with(&two.join("f"), "w");
        for (lock, unlock) in [("posix f w 0 10", "posix f u 0 10"), ("flock f ex", "flock f un")] {
            assert_eq!(a.ask(lock), "ok");
            assert_eq!(b.ask("alarm 0.7"), "ok");
            assert_eq!(b.ask(lock), "EINTR", "{lock}");
            assert_eq!(a.ask(unlock), "ok");
            assert_eq!(c.ask(&format!("{lock} nb")), "ok", "{lock}: nobody waits any more");
            assert_eq!(c.ask(unlock), "ok");
        }
        // Who is killed while it waits is gone at once, and so is its place.
        assert_eq!(a.ask("flock f ex"), "ok");
        b.order("flock f ex");
        assert!(b.waits());
        b.kill();
        assert_eq!(a.ask("flock f un"), "ok");
        assert_eq!(c.ask("flock f ex nb"), "ok");
    });
}

#[test]
fn a_deadlock_between_two_mounts_is_found() {
    within(120, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        assert_eq!(a.ask("posix f w 0 1"), "ok");
        assert_eq!(b.ask("posix f w 1 1"), "ok");
        a.order("posix f w 1 1");
        assert!(a.waits());
        assert_eq!(b.ask("posix f w 0 1"), "EDEADLK");
        assert_eq!(b.ask("posix f u 1 1"), "ok");
        assert_eq!(a.answer(), "ok");
    });
}

#[test]
fn the_locks_of_who_is_killed_are_free() {
    within(180, || {
        let layout = expiry(4);
        let cluster = Cluster::with(layout);
        let (mut one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        assert_eq!(a.ask("flock f ex"), "ok");
        assert_eq!(a.ask("posix f w 0 0"), "ok");
        b.order("flock f ex");
        assert!(b.waits());
        a.kill();
        assert_eq!(b.answer(), "ok", "a program was killed");
        assert_eq!(b.ask("posix f w 0 0 nb"), "ok");
        assert_eq!(b.ask("flock f un"), "ok");
        assert_eq!(b.ask("posix f u 0 0"), "ok");
        let mut a = Agent::with(&one.join("f"), "w");
        assert_eq!(a.ask("flock f ex"), "ok");
        b.order("flock f ex");
        assert!(b.waits());
        one.kill9();
        assert_eq!(b.answer(), "ok", "a mount daemon was killed");
    });
}

#[test]
fn locks_and_waits_outlive_the_master() {
    within(180, || {
        let mut cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        let mut c = Agent::with(&two.join("f"), "w");
        assert_eq!(a.ask("flock f ex"), "ok");
        assert_eq!(a.ask("posix f r 5 5"), "ok");
        b.order("flock f ex");
        assert!(b.waits());
        cluster.kill_master();
        cluster.start_master();
        assert!(b.waits());
        assert_eq!(c.ask("posix f w 7 1 nb"), "EAGAIN");
        assert_eq!(a.ask("write f written-under-the-lock"), "ok");
        assert_eq!(a.ask("flock f un"), "ok");
        assert_eq!(b.answer(), "ok");
        assert_eq!(b.ask("read f"), "written-under-the-lock");
    });
}

#[test]
fn without_the_master_a_lock_fails_at_the_deadline_and_none_is_left_behind() {
    within(180, || {
        let mut cluster = Cluster::new();
        let (one, two) = (cluster.mount_with(&["--deadline", "3"]), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        assert_eq!(a.ask("posix f w 0 10"), "ok");
        cluster.kill_master();
        assert_eq!(a.ask("flock f ex nb"), "EIO");
        assert_eq!(a.ask("posix f w 20 10"), "EIO");
        assert_eq!(a.ask("posix f u 0 10"), "EIO");
        cluster.start_master();
        b.order("posix f w 0 0");
        assert_eq!(b.answer(), "ok", "the unlock was not forgotten");
        assert_eq!(b.ask("flock f ex"), "ok", "what failed was not granted later");
        assert_eq!(b.ask("posix f u 0 0"), "ok");
        assert_eq!(a.ask("posix f w 0 10"), "ok");
    });
}

#[test]
fn who_lost_a_lock_does_not_go_on_writing() {
    within(180, || {
        let layout = expiry(3);
        let cluster = Cluster::with(layout);
        let (one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        assert_eq!(a.ask("flock f ex"), "ok");
        assert_eq!(a.ask("write f mine"), "ok");
        one.stop();
        assert_eq!(b.ask("flock f ex"), "ok", "the session has expired");
        assert_eq!(b.ask("write f other"), "ok");
        one.cont();
        let refused = wait_for(Duration::from_secs(20), || a.ask("write f again") == "EIO");
        assert!(refused, "it went on writing");
        thread::sleep(Duration::from_secs(6));
        assert_eq!(b.ask("read f"), "other");
        assert_eq!(a.ask("flock f ex nb"), "EIO", "this handle is to be closed");
        assert_eq!(b.ask("flock f un"), "ok");
        // What is reported is the bytes that were lost, not the close.
        let closed = a.ask("close f");
        assert!(closed == "ok" || closed == "EIO", "{closed}");
        assert_eq!(a.ask(&format!("open f {} w", one.join("f").display())), "ok");
        assert_eq!(a.ask("flock f ex"), "ok");
        assert_eq!(a.ask("read f"), "other");
    });
}

#[test]
fn a_lock_shows_what_the_other_mount_wrote_under_it() {
    within(180, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let (mut a, mut b) = pair(&one.join("f"), &two.join("f"));
        for (lock, unlock) in [("flock f ex", "flock f un"), ("posix f w 9 1", "posix f u 9 1")] {
            for round in 0..30 {
                let text =
                    format!("{unlock}-{round}-{}", "x".repeat(round * 7 % 50)).replace(' ', "_");
                let (writer, reader) =
                    if round % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
                assert_eq!(writer.ask(lock), "ok");
                assert_eq!(writer.ask(&format!("write f {text}")), "ok");
                assert_eq!(writer.ask(unlock), "ok");
                assert_eq!(reader.ask(lock), "ok");
                assert!(reader.ask("read f").starts_with(&text), "round {round}");
                assert!(reader.ask("size f").parse::<usize>().unwrap() >= text.len());
                assert_eq!(reader.ask(unlock), "ok");
            }
        }
    });
}

#[test]
fn appends_and_counts_under_a_lock_from_two_mounts() {
    within(240, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        std::fs::write(one.join("counter"), "0").unwrap();
        std::fs::write(one.join("log"), "").unwrap();
        let script = r#"
            for i in $(seq 60); do
              (flock 9
               n=$(cat counter); echo $((n + 1)) >counter
               echo "$n $NAME" >>log) 9<lock || exit 1
            done
        "#;
        std::fs::write(one.join("lock"), "").unwrap();
        assert!(wait_for(Duration::from_secs(5), || two.join("lock").exists()));
        thread::scope(|scope| {
            for (mount, name) in [(&one, "a"), (&one, "b"), (&two, "c")] {
                let script = format!("NAME={name}\n{script}");
                let path = mount.path();
                scope.spawn(move || sh(path, 200, &script));
            }
        });
        let log = std::fs::read_to_string(two.join("log")).unwrap();
        let numbers: Vec<u32> =
            log.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (0..180).collect::<Vec<_>>());
    });
}

#[test]
fn sqlite_on_two_mounts_takes_turns_without_corruption() {
    within(400, || {
        let cluster = Cluster::new();
        let (one, two) = (cluster.mount(), cluster.mount());
        let make = "python3 - <<'E'\nimport sqlite3\nc = sqlite3.connect('db')\n\
                    c.execute('pragma journal_mode=delete')\n\
                    c.execute('create table t(id integer primary key, who text, pad blob)')\n\
                    c.execute('create table n(v integer)')\n\
                    c.execute('insert into n values(0)')\nc.commit()\nE\n";
        sh(one.path(), 60, make);
        assert!(wait_for(Duration::from_secs(5), || two.join("db").exists()));
        let work = r#"
import sqlite3, sys, os
c = sqlite3.connect('db', timeout=120, isolation_level=None)
for i in range(150):
    c.execute('begin immediate')
    (v,) = c.execute('select v from n').fetchone()
    c.execute('update n set v = ?', (v + 1,))
    c.execute('insert into t(who, pad) values(?, ?)', (sys.argv[1], os.urandom(300 + i)))
    if i % 10 == 9:
        c.execute('delete from t where id in (select id from t where who = ? limit 3)', (sys.argv[1],))
    c.execute('commit')
"#;
        std::fs::write(one.join("work.py"), work).unwrap();
        assert!(wait_for(Duration::from_secs(5), || two.join("work.py").exists()));
        thread::scope(|scope| {
            for (mount, name) in [(&one, "a"), (&two, "b")] {
                let path = mount.path();
                scope.spawn(move || sh(path, 300, &format!("python3 work.py {name}")));
            }
        });
        let check = "python3 - <<'E'\nimport sqlite3\nc = sqlite3.connect('db')\n\
                     print(c.execute('pragma integrity_check').fetchone()[0])\n\
                     print(c.execute('select v from n').fetchone()[0])\n\
                     print(c.execute('select count(*) from t').fetchone()[0])\nE\n";
        for mount in [&one, &two] {
            let ran = sh(mount.path(), 60, check);
            assert_eq!(ran.lines().collect::<Vec<_>>(), ["ok", "300", "210"]);
        }
    });
}
