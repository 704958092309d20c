//! [`Locks`]: who holds which lock, who waits for one, and what was kept for whom. In memory; what is
//! held has rows as well, written by the operations.
//!
//! A waiter is only a note: its client was answered already. When what is in its way goes, the lock is
//! *kept* for it, first come first served: it is in everybody else's way from then on, as if it were
//! held, until its client asks again, cancels or ends. So whoever releases a lock and takes it again at
//! once does not starve the others. As on a local disk, nobody is refused for the sake of one who only
//! waits: that could bring about deadlocks that no program has made.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use cairn_proto::{
    FsError,
    lock_ranges::{Ranges, Span},
};

use super::LockFreed;
use crate::{
    engine::EngineError,
    tables::{
        keys::{self, Table},
        rows::LocksRow,
        source::{self, Source},
    },
};

/// Rows read at once.
const PAGE: usize = 1024;
/// Spans that one owner may hold on one file.
const SPANS: usize = if cfg!(test) { 256 } else { 8192 };
/// Spans that one session may hold on all files.
const SESSION_SPANS: usize = 262_144;
/// Waits of one session.
const WAITS: usize = 4096;

/// Locks of different spaces never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Space {
    /// fcntl(2)
    Posix = 1,
    /// flock(2)
    Flock = 2,
}

impl Space {
    pub(super) const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Posix),
            2 => Some(Self::Flock),
            _ => None,
        }
    }
}

/// Who holds a lock: nobody is in his own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Party {
    pub(super) session: u64,
    pub(super) owner: u64,
    pub(super) space: Space,
}

impl Party {
    fn meets(&self, other: &Self) -> bool {
        self.space == other.space && self != other
    }
}

/// Who is in the way, and with what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conflict {
    pub(super) party: Party,
    pub(super) span: Span,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    party: Party,
    wanted: Span,
    wait_id: u64,
    /// Kept for it since it became free.
    kept: bool,
}

#[derive(Debug, Default)]
struct FileLocks {
    held: BTreeMap<Party, Ranges>,
    waiting: VecDeque<Waiter>,
}

impl FileLocks {
    /// Everything that is in the way of `wanted`: held, or kept for one of the first `before` waiters.
    fn conflicts(
        &self,
        party: Party,
        wanted: Span,
        before: usize,
    ) -> impl Iterator<Item = Conflict> {
        let held = self.held.iter().filter(move |(holder, _)| holder.meets(&party)).filter_map(
            move |(holder, ranges)| {
                ranges.excluding(&wanted).map(|span| Conflict { party: *holder, span })
            },
        );
        let kept = self.waiting.iter().take(before).filter(move |waiter| {
            waiter.kept && waiter.party.meets(&party) && waiter.wanted.excludes(&wanted)
        });
        held.chain(kept.map(|waiter| Conflict { party: waiter.party, span: waiter.wanted }))
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub(in crate::namespace) struct Locks {
    files: HashMap<u64, FileLocks>,
    /// Files that somebody waits for.
    waited_for: BTreeSet<u64>,
    /// By session: how many spans it holds, and how many waiters it has.
    counts: HashMap<u64, (usize, usize)>,
    freed: Vec<LockFreed>,
}

impl Locks {
    /// Reads what is held; who waits stays.
    pub(in crate::namespace) fn load(&mut self, from: &mut dyn Source) -> Result<(), EngineError> {
        for file in self.files.values_mut() {
            file.held.clear();
        }
        let mut range = Table::Locks.all();
        loop {
            let page = from.page(&range, PAGE)?;
            let Some((last, _)) = page.last().cloned() else { break };
            for (key, value) in page {
                let ino = source::owner(&key)?;
                let (session, owner, space) =
                    keys::locks_owner(&key).ok_or_else(|| source::bad_key(&key))?;
                let space =
                    Space::from_number(space.into()).ok_or_else(|| source::bad_key(&key))?;
                let row: LocksRow = source::decode(&key, value)?;
                let file = self.files.entry(ino).or_default();
                file.held.insert(Party { session, owner, space }, Ranges::from(row));
            }
            range = keys::after(&range, last);
        }
        self.files.retain(|_, file| !file.is_empty());
        self.count_anew();
        Ok(())
    }

    fn count_anew(&mut self) {
        self.counts.clear();
        for file in self.files.values() {
            for (party, ranges) in &file.held {
                self.counts.entry(party.session).or_default().0 += ranges.len();
            }
            for waiter in &file.waiting {
                self.counts.entry(waiter.party.session).or_default().1 += 1;
            }
        }
    }

    /// What is in the way of `wanted`; `wait_id` names the asker's own wait, if it has one.
    pub(super) fn conflict(
        &self,
        ino: u64,
        party: Party,
        wanted: Span,
        wait_id: u64,
    ) -> Option<Conflict> {
        let file = self.files.get(&ino)?;
        let own = |w: &Waiter| w.party.session == party.session && w.wait_id == wait_id;
        let kept = file.waiting.iter().find(|w| wait_id != 0 && own(w)).is_some_and(|w| w.kept);
        // What was kept later than ours does not concern us.
        let before = if kept { 0 } else { file.waiting.len() };
        file.conflicts(party, wanted, before).next()
    }

    /// The locks of `party` on `ino`, for a change by the caller.
    pub(super) fn held(&self, ino: u64, party: Party) -> Ranges {
        self.files.get(&ino).and_then(|f| f.held.get(&party)).cloned().unwrap_or_default()
    }

    /// Whether `party` may hold `ranges`.
    ///
    /// # Errors
    /// `NoLocks` when that is too many.
    pub(super) fn check(&self, ino: u64, party: Party, ranges: &Ranges) -> Result<(), FsError> {
        let before = self.files.get(&ino).and_then(|f| f.held.get(&party)).map_or(0, Ranges::len);
        let all = self.counts.get(&party.session).map_or(0, |counts| counts.0);
        let fits = ranges.len() <= SPANS && all - before + ranges.len() <= SESSION_SPANS;
        if fits { Ok(()) } else { Err(FsError::NoLocks) }
    }

    /// `party` holds `ranges` of `ino` from now on, and nothing else.
    pub(super) fn put(&mut self, ino: u64, party: Party, ranges: Ranges) {
        let file = self.files.entry(ino).or_default();
        let count = &mut self.counts.entry(party.session).or_default().0;
        *count += ranges.len();
        let before = if ranges.is_empty() {
            file.held.remove(&party)
        } else {
            file.held.insert(party, ranges)
        };
        *count -= before.map_or(0, |before| before.len());
        self.keep_for_waiters(ino);
    }

    /// Notes that `party` waits, at the place in the queue that it has already, if any.
    ///
    /// # Errors
    /// `NoLocks` when its session waits for too much.
    pub(super) fn wait(
        &mut self,
        ino: u64,
        party: Party,
        wanted: Span,
        wait_id: u64,
    ) -> Result<(), FsError> {
        let file = self.files.entry(ino).or_default();
        let new = Waiter { party, wanted, wait_id, kept: false };
        let own = |w: &&mut Waiter| w.party.session == party.session && w.wait_id == wait_id;
        if let Some(waiter) = file.waiting.iter_mut().find(own) {
            *waiter = new;
            return Ok(());
        }
        let count = &mut self.counts.entry(party.session).or_default().1;
        if *count >= WAITS {
            return Err(FsError::NoLocks);
        }
        *count += 1;
        file.waiting.push_back(new);
        self.waited_for.insert(ino);
        Ok(())
    }

    /// The wait has come to an end, whichever.
    pub(in crate::namespace) fn cancel(&mut self, session: u64, ino: u64, wait_id: u64) {
        self.stop_waiting(ino, |w| w.party.session == session && w.wait_id == wait_id);
    }

    fn stop_waiting(&mut self, ino: u64, which: impl Fn(&Waiter) -> bool) {
        if !self.waited_for.contains(&ino) {
            return;
        }
        let Some(file) = self.files.get_mut(&ino) else { return };
        let counts = &mut self.counts;
        file.waiting.retain(|waiter| {
            let gone = which(waiter);
            if gone && let Some(count) = counts.get_mut(&waiter.party.session) {
                count.1 -= 1;
            }
            !gone
        });
        if file.waiting.is_empty() {
            self.waited_for.remove(&ino);
        }
        self.keep_for_waiters(ino);
    }

    /// Takes away all that `session` holds and waits for, on `ino` or everywhere. Answers what it held.
    pub(super) fn drop_session(&mut self, session: u64, ino: Option<u64>) -> Vec<(u64, Party)> {
        if !self.counts.contains_key(&session) {
            return Vec::new();
        }
        let concerned = |file: &FileLocks| {
            file.held.keys().any(|party| party.session == session)
                || file.waiting.iter().any(|waiter| waiter.party.session == session)
        };
        let files: Vec<u64> = match ino {
            Some(ino) => {
                self.files.get(&ino).filter(|f| concerned(f)).map(|_| ino).into_iter().collect()
            }
            None => self.files.iter().filter(|(_, f)| concerned(f)).map(|(ino, _)| *ino).collect(),
        };
        let mut held = Vec::new();
        for ino in files {
            self.stop_waiting(ino, |waiter| waiter.party.session == session);
            let parties = self.files.get(&ino).map(|f| f.held.keys().copied().collect::<Vec<_>>());
            for party in parties.into_iter().flatten().filter(|party| party.session == session) {
                self.put(ino, party, Ranges::default());
                held.push((ino, party));
            }
        }
        if ino.is_none() {
            self.counts.remove(&session);
        }
        held
    }

    /// Something about `ino` has changed: keeps what is free for those who wait, in their order.
    fn keep_for_waiters(&mut self, ino: u64) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        for at in 0..file.waiting.len() {
            let Waiter { party, wanted, wait_id, kept } = file.waiting[at];
            if !kept && file.conflicts(party, wanted, at).next().is_none() {
                file.waiting[at].kept = true;
                self.freed.push(LockFreed { session: party.session, ino, wait_id });
            }
        }
        if file.is_empty() {
            self.files.remove(&ino);
        }
    }

    pub(in crate::namespace) fn take_freed(&mut self) -> Vec<LockFreed> {
        std::mem::take(&mut self.freed)
    }

    /// Whether `party`, waiting for `wanted`, would wait for itself: the owner of what is in its way
    /// waits for something whose owner waits ... for `party`. Asked of fcntl's locks only: an owner of
    /// an flock is an open file, which says nothing about who waits.
    pub(super) fn would_deadlock(&self, ino: u64, party: Party, wanted: Span) -> bool {
        let mut waits: HashMap<Party, Vec<(u64, Span)>> = HashMap::new();
        for ino in &self.waited_for {
            for waiter in self.files.get(ino).into_iter().flat_map(|f| &f.waiting) {
                if !waiter.kept && waiter.party.space == Space::Posix {
                    waits.entry(waiter.party).or_default().push((*ino, waiter.wanted));
                }
            }
        }
        let mut seen = BTreeSet::new();
        let mut next = self.holders(ino, party, wanted);
        while let Some(holder) = next.pop() {
            if holder == party {
                return true;
            }
            if seen.insert(holder) {
                for (ino, wanted) in waits.get(&holder).into_iter().flatten() {
                    next.extend(self.holders(*ino, holder, *wanted));
                }
            }
        }
        false
    }

    fn holders(&self, ino: u64, party: Party, wanted: Span) -> Vec<Party> {
        let Some(file) = self.files.get(&ino) else { return Vec::new() };
        file.conflicts(party, wanted, file.waiting.len()).map(|conflict| conflict.party).collect()
    }
}
