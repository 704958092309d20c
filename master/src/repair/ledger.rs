//! Which home of which group lacks chunks: a pure judgement over digests, with a memory. No clock but the
//! caller's, no tasks.
//!
//! Two copies of a group that is being written differ for a moment, and that is no damage. So a difference
//! counts at once only where there is a reason to *doubt* (the master started, nodes came or went, a node
//! reported damage, a write went to too few nodes); otherwise when it was seen [`STRIKES`] times in a row.
//! A doubt ends when digests that were asked for after it arose are equal, or when a pull that began after
//! it found nothing left to pull. What a pull has seen of the other holders is remembered: as long as they
//! have not changed, the home has all that they have.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use cairn_proto::NodeId;

use super::{clock::Tick, digests::Digest};

/// Looks that must find a difference, without a reason for doubt, before it is damage.
const STRIKES: u32 = 3;
/// A group that differed without reason and was whole is believed for this long.
const REST: Duration = Duration::from_secs(120);
/// Pause after a pull that failed; doubles up to [`FAILED_MAX`].
const FAILED: Duration = Duration::from_secs(1);
const FAILED_MAX: Duration = Duration::from_secs(60);

/// A group and one of its homes.
pub(super) type Seat = (u32, NodeId);

/// What a holder has of a group, as of when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) node: NodeId,
    pub(super) digest: Digest,
    pub(super) as_of: Tick,
}

/// What is to be thought of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has all that the others have.
    Whole,
    /// It differs; that may be a write that is under way, or the digests are too old to tell.
    Unsure,
    /// It lacks something, and a pull just failed: later.
    Resting,
    /// It lacks something.
    Lacking,
}

#[derive(Debug, Default)]
struct Memory {
    /// Since when there is reason for doubt.
    doubt: Option<Tick>,
    /// The newest general doubt that was taken over.
    general: Tick,
    strikes: u32,
    /// Digests of which a strike was counted, so that the same answer counts once.
    struck: Tick,
    /// Others of which it is known that all they had is here, with what they had.
    covered: Vec<(NodeId, Digest)>,
    /// How many chunks the home had then.
    had: u64,
    rest_until: Option<Instant>,
    failures: u32,
}

impl Memory {
    fn doubt(&mut self, since: Tick) {
        *self = Self { doubt: Some(since), general: self.general, ..Self::default() };
    }

    fn covers(&self, own: &Digest, held: &Held) -> bool {
        held.digest.is_empty()
            || held.digest == *own
            || self.covered.contains(&(held.node, held.digest))
    }

    fn unless_resting(&self, now: Instant) -> Verdict {
        if self.rest_until.is_some_and(|until| now < until) {
            Verdict::Resting
        } else {
            Verdict::Lacking
        }
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    seats: HashMap<Seat, Memory>,
    /// Everything that is known from before this is in doubt.
    general: Tick,
}

impl Ledger {
    /// Nothing that is known from before `now` is believed any more.
    pub(super) fn doubt_all(&mut self, now: Tick) {
        self.general = now;
    }

    /// There is reason to doubt this seat.
    pub(super) fn doubt(&mut self, seat: Seat, now: Tick) {
        self.memory(seat).doubt(now);
    }

    /// Seats that are none any more are forgotten.
    pub(super) fn keep(&mut self, known: impl Fn(Seat) -> bool) {
        self.seats.retain(|seat, _| known(*seat));
    }

    fn memory(&mut self, seat: Seat) -> &mut Memory {
        let general = self.general;
        let memory = self.seats.entry(seat).or_default();
        if memory.general < general {
            memory.general = general;
            memory.doubt(general);
        }
        memory
    }

    /// Looks at a seat: `own` is what the home has, `others` what the other holders that can be reached
    /// have.
    pub(super) fn judge(
        &mut self,
        seat: Seat,
        own: &Held,
        others: &[Held],
        now: Instant,
    ) -> Verdict {
        let memory = self.memory(seat);
        if own.digest.chunks < memory.had {
            memory.covered.clear();
            memory.had = 0;
        }
        let oldest = others.iter().map(|held| held.as_of).fold(own.as_of, Tick::min);
        let fresh = memory.doubt.is_none_or(|since| oldest > since);
        if others.iter().all(|held| memory.covers(&own.digest, held)) {
            if !fresh {
                return Verdict::Unsure;
            }
            (memory.doubt, memory.strikes, memory.failures) = (None, 0, 0);
            return Verdict::Whole;
        }
        if memory.doubt.is_some() {
            return if fresh { memory.unless_resting(now) } else { Verdict::Unsure };
        }
        let newest = others.iter().map(|held| held.as_of).fold(own.as_of, Tick::max);
        if newest > memory.struck {
            memory.struck = newest;
            memory.strikes = memory.strikes.saturating_add(1);
        }
        if memory.strikes < STRIKES { Verdict::Unsure } else { memory.unless_resting(now) }
    }

    /// A pull that began at `began` has got everything that `others` had then; the home had `own`.
    pub(super) fn pulled(
        &mut self,
        seat: Seat,
        began: Tick,
        (own, others): (u64, Vec<(NodeId, Digest)>),
        now: Instant,
    ) {
        let memory = self.memory(seat);
        if memory.doubt.is_some_and(|since| since >= began) {
            return;
        }
        let before = Self::default_memory(memory.general);
        *memory = Memory { covered: others, had: own, rest_until: Some(now + REST), ..before };
    }

    fn default_memory(general: Tick) -> Memory {
        Memory { general, ..Memory::default() }
    }

    /// A pull did not get everything.
    pub(super) fn failed(&mut self, seat: Seat, now: Instant) {
        let memory = self.memory(seat);
        let pause = FAILED.saturating_mul(1 << memory.failures.min(6)).min(FAILED_MAX);
        memory.failures = memory.failures.saturating_add(1);
        memory.rest_until = Some(now + pause);
    }

    /// Whether the last pull for this seat failed.
    pub(super) fn has_failed(&self, seat: Seat) -> bool {
        self.seats.get(&seat).is_some_and(|memory| memory.failures > 0)
    }

    /// Whether it is known that the home has all that `holder` has of the group. Judge first.
    pub(super) fn covers(&self, seat: Seat, own: &Held, holder: &Held) -> bool {
        self.seats.get(&seat).is_some_and(|memory| {
            memory.general == self.general
                && memory.doubt.is_none()
                && memory.covers(&own.digest, holder)
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::repair::clock::Clock;

    const SEAT: Seat = (7, NodeId(Uuid::from_u128(1)));

    fn digest(number: u8, chunks: u64) -> Digest {
        Digest { chunks, bytes: chunks * 100, xor: [number; 32] }
    }

    fn held(node: u128, digest: Digest, as_of: Tick) -> Held {
        Held { node: NodeId(Uuid::from_u128(node)), digest, as_of }
    }

    /// Looks at a seat where the home and one other hold these.
    fn look(ledger: &mut Ledger, own: Digest, other: Digest, as_of: Tick, now: Instant) -> Verdict {
        ledger.judge(SEAT, &held(1, own, as_of), &[held(2, other, as_of)], now)
    }

    #[test]
    fn a_difference_in_doubt_counts_at_once_but_not_by_old_digests() {
        let (mut ledger, mut clock, t) = (Ledger::default(), Clock::default(), Instant::now());
        let before = clock.tick();
        ledger.doubt_all(clock.tick());
        let (a, b) = (digest(1, 10), digest(2, 12));
        assert_eq!(look(&mut ledger, a, b, before, t), Verdict::Unsure);
        assert_eq!(look(&mut ledger, a, a, before, t), Verdict::Unsure, "equal, but when?");
        assert_eq!(look(&mut ledger, a, b, clock.tick(), t), Verdict::Lacking);
        assert_eq!(look(&mut ledger, a, Digest::default(), clock.tick(), t), Verdict::Whole);
        assert_eq!(look(&mut ledger, a, b, clock.tick(), t), Verdict::Unsure, "the doubt is over");
        ledger.doubt(SEAT, clock.tick());
        assert_eq!(look(&mut ledger, a, b, clock.tick(), t), Verdict::Lacking);
    }

    #[test]
    fn a_difference_without_a_reason_counts_when_it_stays() {
        let (mut ledger, mut clock, t) = (Ledger::default(), Clock::default(), Instant::now());
        let (a, b) = (digest(1, 10), digest(2, 12));
        for _ in 0..5 {
            assert_eq!(look(&mut ledger, a, b, clock.tick(), t), Verdict::Unsure);
            let tick = clock.tick();
            assert_eq!(look(&mut ledger, a, b, tick, t), Verdict::Unsure);
            assert_eq!(look(&mut ledger, a, b, tick, t), Verdict::Unsure, "the same answers");
            assert_eq!(look(&mut ledger, a, a, clock.tick(), t), Verdict::Whole);
        }
        let looks: Vec<_> = (0..4).map(|_| look(&mut ledger, a, b, clock.tick(), t)).collect();
        assert_eq!(looks[..2], [Verdict::Unsure; 2]);
        assert_eq!(looks[2..], [Verdict::Lacking; 2]);
    }

    #[test]
    fn what_a_pull_has_seen_is_believed_until_the_other_changes_or_the_home_loses_something() {
        let (mut ledger, mut clock, t) = (Ledger::default(), Clock::default(), Instant::now());
        ledger.doubt_all(clock.tick());
        let (mine, theirs) = (digest(1, 20), digest(2, 12));
        let began = clock.tick();
        assert_eq!(look(&mut ledger, mine, theirs, clock.tick(), t), Verdict::Lacking);
        let other = NodeId(Uuid::from_u128(2));
        ledger.pulled(SEAT, began, (20, vec![(other, theirs)]), t);
        let now = clock.tick();
        assert_eq!(look(&mut ledger, mine, theirs, now, t), Verdict::Whole);
        assert!(ledger.covers(SEAT, &held(1, mine, now), &held(2, theirs, now)));
        let fewer = digest(3, 19);
        assert_eq!(look(&mut ledger, fewer, theirs, clock.tick(), t), Verdict::Unsure);
        for _ in 0..2 {
            look(&mut ledger, fewer, theirs, clock.tick(), t);
        }
        assert_eq!(look(&mut ledger, fewer, theirs, clock.tick(), t), Verdict::Resting);
        let later = t + REST;
        assert_eq!(look(&mut ledger, fewer, theirs, clock.tick(), later), Verdict::Lacking);
    }

    #[test]
    fn a_pull_that_began_before_the_doubt_does_not_end_it() {
        let (mut ledger, mut clock, t) = (Ledger::default(), Clock::default(), Instant::now());
        let (mine, theirs) = (digest(1, 20), digest(2, 12));
        let began = clock.tick();
        ledger.doubt(SEAT, clock.tick());
        let other = NodeId(Uuid::from_u128(2));
        ledger.pulled(SEAT, began, (20, vec![(other, theirs)]), t);
        assert_eq!(look(&mut ledger, mine, theirs, clock.tick(), t), Verdict::Lacking);
    }

    #[test]
    fn failures_rest_longer_and_longer_and_a_new_doubt_ends_that() {
        let (mut ledger, mut clock, t) = (Ledger::default(), Clock::default(), Instant::now());
        ledger.doubt_all(clock.tick());
        let (a, b) = (digest(1, 10), digest(2, 12));
        assert_eq!(look(&mut ledger, a, b, clock.tick(), t), Verdict::Lacking);
        ledger.failed(SEAT, t);
        ledger.failed(SEAT, t);
        assert!(ledger.has_failed(SEAT));
        assert_eq!(look(&mut ledger, a, b, clock.tick(), t + FAILED), Verdict::Resting);
        assert_eq!(look(&mut ledger, a, b, clock.tick(), t + FAILED * 2), Verdict::Lacking);
        ledger.failed(SEAT, t);
        ledger.doubt_all(clock.tick());
        assert_eq!(look(&mut ledger, a, b, clock.tick(), t), Verdict::Lacking);
    }
}
