//! Locks: who gets them, who waits, and what ends them.

use std::collections::HashMap;

use cairn_proto::SessionId;
use proptest::prelude::*;

use super::*;
use crate::{namespace::LockFreed, tables::keys::Table};

const POSIX: u32 = 1;
const FLOCK: u32 = 2;
const UNLOCK: u32 = 0;
const READ: u32 = 1;
const WRITE: u32 = 2;
const END: u64 = i64::MAX as u64;

/// A store, and the sequence numbers of several sessions in it.
struct Lab {
    store: Store,
    ino: u64,
    seqs: HashMap<u64, u64>,
}

impl Lab {
    fn new() -> Self {
        let mut store = Store::new();
        let ino = store.file(ROOT, "f");
        Self { store, ino, seqs: HashMap::new() }
    }

    fn session(&mut self) -> u64 {
        let id = self.store.ns.open_session("other").unwrap().0;
        self.store.ns.commit().unwrap();
        id
    }

    fn send(&mut self, session: u64, kind: op::Kind) -> Result<reply::Kind, FsError> {
        let seq = self.seqs.entry(session).or_insert(100);
        *seq += 1;
        let origin = Origin { session, seq: *seq, acked_below: *seq };
        self.store.send(origin, kind)
    }

    fn set(
        &mut self,
        who: (u64, u64),
        lock: pb::FileLock,
        wait_id: u64,
    ) -> Result<pb::LockReply, FsError> {
        let lock = Some(pb::FileLock { owner: who.1, pid: 9, ..lock });
        let request = pb::SetLock { ino: self.ino, lock, wait_id };
        match self.send(who.0, op::Kind::SetLock(request))? {
            reply::Kind::Lock(reply) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    fn posix(
        &mut self,
        who: (u64, u64),
        kind: u32,
        range: (u64, u64),
        wait_id: u64,
    ) -> Result<bool, FsError> {
        let lock =
            pb::FileLock { kind, space: POSIX, start: range.0, end: range.1, ..Default::default() };
        self.set(who, lock, wait_id).map(|reply| reply.granted)
    }

    fn flock(&mut self, who: (u64, u64), kind: u32, wait_id: u64) -> bool {
        let lock = pb::FileLock { kind, space: FLOCK, start: 0, end: END, ..Default::default() };
        self.set(who, lock, wait_id).unwrap().granted
    }

    fn freed(&mut self) -> Vec<(u64, u64)> {
        let ino = self.ino;
        let freed = self.store.ns.take_freed_locks();
        freed
            .into_iter()
            .map(|LockFreed { session, ino: of, wait_id }| {
                assert_eq!(of, ino);
                (session, wait_id)
            })
            .collect()
    }

    fn rows(&mut self) -> usize {
        self.store.ns.commit().unwrap();
        self.store.rows(Table::Locks)
    }
}

#[test]
fn a_lock_excludes_other_owners_and_sessions() {
    let mut lab = Lab::new();
    let (one, two) = (lab.store.session, lab.session());
    assert_eq!(lab.posix((one, 1), WRITE, (10, 19), 0), Ok(true));
    assert_eq!(lab.posix((one, 2), READ, (19, 30), 0), Ok(false));
    assert_eq!(lab.posix((two, 1), READ, (0, 10), 0), Ok(false));
    assert_eq!(lab.posix((two, 1), WRITE, (20, END), 0), Ok(true));
    assert_eq!(lab.posix((one, 1), UNLOCK, (12, 15), 0), Ok(true));
    assert_eq!(lab.posix((two, 1), READ, (12, 15), 0), Ok(true));
    assert!(lab.flock((two, 5), WRITE, 0), "flock and fcntl do not meet");
    assert!(!lab.flock((one, 5), READ, 0));
    assert_eq!(lab.rows(), 3);
}

#[test]
fn what_is_in_the_way_is_named() {
    let mut lab = Lab::new();
    let (one, two) = (lab.store.session, lab.session());
    lab.posix((one, 1), WRITE, (10, 19), 0).unwrap();
    for (session, pid) in [(one, 9), (two, 0)] {
        let lock =
            pb::FileLock { kind: READ, space: POSIX, end: END, owner: 7, ..Default::default() };
        let request = pb::TestLock { ino: lab.ino, lock: Some(lock) };
        let Ok(reply::Kind::Lock(reply)) = lab.send(session, op::Kind::TestLock(request)) else {
            panic!("no answer to a question about a lock")
        };
        let found = reply.conflict.unwrap();
        assert!(!reply.granted);
        assert_eq!((found.kind, found.start, found.end, found.pid), (WRITE, 10, 19, pid));
    }
}

#[test]
fn who_waits_gets_it_in_turn_and_nobody_takes_it_before() {
    let mut lab = Lab::new();
    let sessions = [lab.store.session, lab.session(), lab.session()];
    assert!(lab.flock((sessions[0], 1), WRITE, 0));
    assert!(!lab.flock((sessions[1], 1), WRITE, 11));
    assert!(!lab.flock((sessions[2], 1), WRITE, 12));
    assert!(!lab.flock((sessions[1], 1), WRITE, 11), "asking again keeps the place");
    assert_eq!(lab.freed(), []);
    assert!(lab.flock((sessions[0], 1), UNLOCK, 0));
    assert_eq!(lab.freed(), [(sessions[1], 11)]);
    assert!(!lab.flock((sessions[0], 1), WRITE, 0), "it is kept");
    assert!(!lab.flock((sessions[2], 1), WRITE, 12));
    assert!(lab.flock((sessions[1], 1), WRITE, 11));
    lab.flock((sessions[1], 1), UNLOCK, 0);
    assert_eq!(lab.freed(), [(sessions[2], 12)]);
    let cancel = pb::CancelLock { ino: lab.ino, wait_id: 12 };
    lab.send(sessions[2], op::Kind::CancelLock(cancel)).unwrap();
    assert!(lab.flock((sessions[0], 1), WRITE, 0), "given up");
}

#[test]
fn readers_that_wait_are_let_in_together() {
    let mut lab = Lab::new();
    let (one, two) = (lab.store.session, lab.session());
    lab.posix((one, 1), WRITE, (0, 9), 0).unwrap();
    assert_eq!(lab.posix((two, 1), READ, (0, 9), 1), Ok(false));
    assert_eq!(lab.posix((two, 2), WRITE, (5, 5), 2), Ok(false));
    assert_eq!(lab.posix((two, 3), READ, (0, 9), 3), Ok(false));
    lab.posix((one, 1), READ, (0, 9), 0).unwrap();
    assert_eq!(lab.freed(), [(two, 1), (two, 3)], "a downgrade lets readers in");
}

#[test]
fn flock_gives_the_old_lock_up_before_it_waits_for_the_new() {
    let mut lab = Lab::new();
    let (one, two) = (lab.store.session, lab.session());
    assert!(lab.flock((one, 1), READ, 0) && lab.flock((two, 1), READ, 0));
    assert!(!lab.flock((one, 1), WRITE, 1));
    assert!(lab.flock((two, 1), WRITE, 2), "no deadlock of two that upgrade");
    lab.flock((two, 1), UNLOCK, 0);
    assert_eq!(lab.freed(), [(one, 1)]);
    assert!(lab.flock((one, 1), WRITE, 1));
}

#[test]
fn the_one_who_closes_a_cycle_is_told() {
    let mut lab = Lab::new();
    let parties = [(lab.store.session, 1), (lab.session(), 1), (lab.session(), 4)];
    for (at, party) in (0..).zip(parties) {
        assert_eq!(lab.posix(party, WRITE, (at, at), 0), Ok(true));
    }
    assert_eq!(lab.posix(parties[0], WRITE, (1, 1), 1), Ok(false));
    assert_eq!(lab.posix(parties[1], WRITE, (2, 2), 1), Ok(false));
    assert_eq!(lab.posix(parties[2], WRITE, (0, 0), 0), Ok(false), "who does not wait closes none");
    assert_eq!(lab.posix(parties[2], WRITE, (0, 0), 1), Err(FsError::Deadlock));
    lab.posix(parties[2], UNLOCK, (0, END), 0).unwrap();
    assert_eq!(lab.freed(), [(parties[1].0, 1)]);
}

#[test]
fn the_end_of_a_session_frees_its_locks() {
    let mut lab = Lab::new();
    let (one, two) = (lab.store.session, lab.session());
    assert!(lab.flock((two, 1), WRITE, 0));
    lab.posix((two, 1), WRITE, (0, 5), 0).unwrap();
    assert!(!lab.flock((one, 1), WRITE, 3));
    assert_eq!(lab.rows(), 2);
    lab.store.ns.expire_session(SessionId(two)).unwrap();
    assert_eq!(lab.freed(), [(one, 3)]);
    assert_eq!(lab.rows(), 0);
    assert!(lab.flock((one, 1), WRITE, 3));
    lab.store.release(lab.ino);
    assert_eq!(lab.rows(), 0, "what is not open is not locked");
}

#[test]
fn locks_outlive_the_master_and_waits_are_made_anew() {
    let mut lab = Lab::new();
    let (one, two) = (lab.store.session, lab.session());
    assert!(lab.flock((one, 1), WRITE, 0));
    lab.posix((one, 2), READ, (3, 8), 0).unwrap();
    lab.posix((one, 2), WRITE, (5, 5), 0).unwrap();
    lab.store.ns.commit().unwrap();
    lab.store.restart();
    assert!(!lab.flock((two, 1), READ, 4));
    assert_eq!(lab.posix((two, 1), READ, (3, 4), 0), Ok(true));
    assert_eq!(lab.posix((two, 1), READ, (5, 5), 0), Ok(false));
    lab.flock((one, 1), UNLOCK, 0);
    assert_eq!(lab.freed(), [(two, 4)]);
    lab.store.restart();
    assert!(!lab.flock((two, 1), READ, 4), "what was not committed is not undone half");
}

#[test]
fn a_repeated_request_is_answered_as_the_first_time() {
    let mut lab = Lab::new();
    let (one, two) = (lab.store.session, lab.session());
    let lock = pb::FileLock { kind: WRITE, space: FLOCK, end: END, ..Default::default() };
    let request = pb::SetLock { ino: lab.ino, lock: Some(lock), wait_id: 0 };
    let origin = Origin { session: one, seq: 500, acked_below: 1 };
    let first = lab.store.send(origin, op::Kind::SetLock(request)).unwrap();
    lab.flock((one, 0), UNLOCK, 0);
    assert!(lab.flock((two, 0), WRITE, 0));
    assert_eq!(lab.store.send(origin, op::Kind::SetLock(request)).unwrap(), first);
    assert!(!lab.flock((one, 0), WRITE, 0), "nothing was done again");
}

#[test]
fn nonsense_is_refused() {
    let mut lab = Lab::new();
    let one = (lab.store.session, 1);
    let good = pb::FileLock { kind: WRITE, space: POSIX, start: 5, end: 9, ..Default::default() };
    for bad in [
        pb::FileLock { kind: 3, ..good },
        pb::FileLock { space: 0, ..good },
        pb::FileLock { space: FLOCK, ..good },
        pb::FileLock { end: 4, ..good },
        pb::FileLock { end: u64::MAX, ..good },
    ] {
        assert_eq!(lab.set(one, bad, 0), Err(FsError::InvalidArgument), "{bad:?}");
    }
    lab.ino = 77;
    assert_eq!(lab.set(one, good, 0), Err(FsError::Stale), "no such file");
}

#[test]
fn the_number_of_locks_is_bounded() {
    let mut lab = Lab::new();
    let one = (lab.store.session, 1);
    let most = (0..1000).find(|n| lab.posix(one, READ, (3 * n, 3 * n), 0).is_err());
    assert_eq!(most, Some(256));
    assert_eq!(lab.posix(one, READ, (1, 1), 0), Ok(true), "what touches others is no more");
}

proptest! {
    /// Random requests of several owners against a table of bytes. Nobody waits.
    #[test]
    fn many_owners_agree_with_a_table_of_bytes(
        steps in prop::collection::vec((0..4u64, 0..3u32, 0..12u64, 0..12u64), 1..80),
    ) {
        let mut lab = Lab::new();
        let sessions = [lab.store.session, lab.session()];
        let mut bytes = [[0u32; 4]; 12];
        for (party, kind, a, b) in steps {
            let (start, end) = (a.min(b), a.max(b));
            let who = (sessions[party as usize % 2], party / 2);
            let free = bytes[start as usize..=end as usize].iter().all(|byte| {
                (0..4).all(|p| p == party || byte[p as usize] + kind <= 2 || byte[p as usize] == 0)
            });
            let free = free || kind == UNLOCK;
            prop_assert_eq!(lab.posix(who, kind, (start, end), 0), Ok(free));
            if free {
                for byte in &mut bytes[start as usize..=end as usize] {
                    byte[party as usize] = kind;
                }
            }
            if a == b {
                lab.store.ns.commit().unwrap();
                lab.store.restart();
            }
        }
    }
}
