//! [`Fault`]: what happens to a part, and the schedule of a seed. The same seed has the same schedule,
//! however long the run is.

use std::{fmt, time::Duration};

use crate::Rng;

/// Something that happens and is over later. Numbers are those of nodes and mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a start afterwards.
    KillNode(usize),
    /// SIGSTOP, SIGCONT.
    StopNode(usize),
    /// SIGTERM, and a start afterwards.
    RestartNode(usize),
    /// Its connections are broken and refused.
    CutNode(usize),
    /// Nothing comes through to it or from it.
    SilenceNode(usize),
    /// Clients reach it, the master does not hear of it.
    IsolateNode(usize),
    /// Everything to it takes longer.
    SlowNode(usize, Duration),
    /// No space is left on its disk.
    FullNode(usize),
    /// A bit of a chunk on its disk turns over; another node has the chunk.
    Rot(usize),
    /// Its clock is wrong by so many seconds.
    NodeClock(usize, i64),
    /// `kill -9`, and a start afterwards.
    KillMaster,
    /// SIGSTOP, SIGCONT.
    StopMaster,
    /// SIGTERM, and a start afterwards.
    RestartMaster,
    /// Its clock is wrong by so many seconds.
    MasterClock(i64),
    /// `kill -9` of the mount's daemon; its supervisor starts the next one.
    KillMount(usize),
    /// `kill -9` of the mount's daemon and supervisor; it is mounted again.
    LoseMount(usize),
    /// SIGSTOP, SIGCONT.
    StopMount(usize),
    /// Its connection to the master is broken and refused.
    CutMount(usize),
    /// Nothing comes through between it and the master.
    SilenceMount(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What there is that faults can happen to.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// Storage nodes.
    pub nodes: usize,
    /// Mounts.
    pub mounts: usize,
    /// The node whose disk fills up.
    pub full: usize,
    /// The node whose disk rots: always the same, so that no chunk rots everywhere.
    pub rotten: usize,
}

/// One entry of a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    /// What happens.
    pub fault: Fault,
    /// Something else at the same time, with another kind of part.
    pub second: Option<Fault>,
    /// How long.
    pub hold: Duration,
    /// How long nothing happens afterwards.
    pub rest: Duration,
}

/// The endless schedule of a seed.
#[derive(Debug)]
pub struct Schedule {
    rng: Rng,
    targets: Targets,
}

impl Schedule {
    /// Of `seed`.
    pub const fn new(seed: u64, targets: Targets) -> Self {
        Self { rng: Rng::new(seed), targets }
    }

    fn of_nodes(&mut self) -> Fault {
        let node = self.rng.index(self.targets.nodes);
        match self.rng.below(11) {
            0 | 1 => Fault::KillNode(node),
            2 => Fault::StopNode(node),
            3 => Fault::RestartNode(node),
            4 => Fault::CutNode(node),
            5 => Fault::SilenceNode(node),
            6 => Fault::IsolateNode(node),
            7 => Fault::SlowNode(node, Duration::from_millis(5 + self.rng.below(80))),
            8 => Fault::FullNode(self.targets.full),
            9 => Fault::Rot(self.targets.rotten),
            _ => Fault::NodeClock(node, self.seconds()),
        }
    }

    fn of_others(&mut self) -> Fault {
        let mount = self.rng.index(self.targets.mounts);
        match self.rng.below(11) {
            0 | 1 => Fault::KillMaster,
            2 => Fault::StopMaster,
            3 => Fault::RestartMaster,
            4 => Fault::MasterClock(self.seconds()),
            5 | 6 => Fault::KillMount(mount),
            7 => Fault::LoseMount(mount),
            8 => Fault::StopMount(mount),
            9 => Fault::CutMount(mount),
            _ => Fault::SilenceMount(mount),
        }
    }

    /// A minute to a year, forward or back.
    fn seconds(&mut self) -> i64 {
        let seconds = [60, 3_600, 86_400, 365 * 86_400][self.rng.index(4)];
        if self.rng.one_in(2) { -seconds } else { seconds }
    }
}

impl Iterator for Schedule {
    type Item = Episode;

    fn next(&mut self) -> Option<Episode> {
        let of_nodes = self.rng.below(5) < 3;
        let (fault, other) = if of_nodes {
            (self.of_nodes(), self.of_others())
        } else {
            (self.of_others(), self.of_nodes())
        };
        let second = self.rng.one_in(4).then_some(other);
        let hold = Duration::from_millis(200 + self.rng.below(4_000));
        let rest = Duration::from_millis(200 + self.rng.below(2_500));
        Some(Episode { fault, second, hold, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_schedule_and_every_fault_comes() {
        let targets = Targets { nodes: 3, mounts: 2, full: 0, rotten: 1 };
        let shown = |seed| {
            let some = Schedule::new(seed, targets).take(400);
            some.map(|e| format!("{e:?}")).collect::<Vec<_>>()
        };
        assert_eq!(shown(7), shown(7));
        assert_ne!(shown(7), shown(8));
        let all = shown(7).join("\n");
        for kind in ["KillNode", "FullNode", "Rot", "MasterClock", "KillMount", "LoseMount"] {
            assert!(all.contains(kind), "{kind} never comes");
        }
    }
}
