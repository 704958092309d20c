//! The task that looks after the copies: asks nodes what they hold, judges, begins pulls and droppings, and
//! takes in how they ended. Nothing of it waits for one node: whatever takes time is a task of its own.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_proto::{ClusterMap, Node, NodeId};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    Known, Repair,
    assess::{self, Assessment, Excess, Homes, View},
    clock::{Clock, Tick},
    degraded::{Degraded, LAG},
    digests::{self, Digest, Holdings, Told},
    handover::{HandedOver, hand_over},
    ledger::Ledger,
    plan,
    pull::{Pulled, pull},
};
use crate::namespace::Namespace;

/// How often the nodes' reports are looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// Longest time between two judgements while anything is open.
const OPEN: Duration = Duration::from_secs(1);
/// A dropping is not asked for again within this time, unless the node's answer has changed.
const HANDED_OVER: Duration = Duration::from_secs(10);
/// Droppings at once.
const HANDOVERS: usize = 8;

/// What a task of repair brings back.
enum Ended {
    Told(Told),
    Pulled(Pulled),
    HandedOver(HandedOver),
}

/// See the head of this file.
struct Caretaker {
    repair: Arc<Repair>,
    clock: Clock,
    map: Arc<ClusterMap>,
    homes: Homes,
    holdings: Holdings,
    ledger: Ledger,
    degraded: Degraded,
    /// Nodes that can be reached, and what each reports.
    reachable: HashMap<NodeId, Reported>,
    /// Digests must be from after this.
    needed: Tick,
    /// When everything was in doubt last.
    general: Tick,
    /// Groups that are being worked on.
    busy: HashSet<u32>,
    /// Pulls into each node.
    running: HashMap<NodeId, usize>,
    handovers: usize,
    /// What was dropped where, and when: until the node says how it is now.
    handed_over: HashMap<(u32, NodeId), (Digest, Instant)>,
    /// Something happened since the last judgement.
    news: bool,
    /// When to judge again although nothing happens; `None`: nothing is open.
    again: Option<Instant>,
    /// When everybody was asked again because something was not certain.
    made_sure: Option<Instant>,
    tasks: JoinSet<Ended>,
}

/// Looks after the copies until it is dropped.
pub(crate) async fn run(repair: Arc<Repair>) {
    let mut maps = repair.cluster.maps();
    let map = repair.cluster.map();
    let mut caretaker = Caretaker {
        homes: Homes::of(&map),
        map,
        repair,
        clock: Clock::default(),
        holdings: Holdings::default(),
        ledger: Ledger::default(),
        degraded: Degraded::default(),
        reachable: HashMap::new(),
        needed: Tick::NEVER,
        general: Tick::NEVER,
        busy: HashSet::new(),
        running: HashMap::new(),
        handovers: 0,
        handed_over: HashMap::new(),
        news: true,
        again: None,
        made_sure: None,
        tasks: JoinSet::new(),
    };
    caretaker.doubt_all();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        caretaker.look().await;
        tokio::select! {
            _ = ticks.tick() => {}
            () = changed(&mut maps) => {}
            Some(ended) = caretaker.tasks.join_next() => {
                caretaker.take_in(ended);
                // Those that ended at the same time.
                while let Some(ended) = caretaker.tasks.try_join_next() {
                    caretaker.take_in(ended);
                }
            }
        }
    }
}

async fn changed(maps: &mut watch::Receiver<Arc<ClusterMap>>) {
    if maps.changed().await.is_err() {
        // The cluster is gone, and this task with it in a moment.
        std::future::pending::<()>().await;
    }
}

impl Caretaker {
    /// Nothing that is known is believed any more.
    fn doubt_all(&mut self) {
        self.news = true;
        self.needed = self.clock.tick();
        self.general = self.needed;
        self.ledger.doubt_all(self.general);
    }

    async fn look(&mut self) {
        let now = Instant::now();
        self.repair.progress.sample(now);
        self.follow_map();
        self.follow_nodes();
        if self.follow_degraded().await.is_err() {
            return;
        }
        self.ask(now);
        let compared = self.has_compared();
        let settled = self.repair.cluster.is_settled();
        self.news |= self.again.is_some_and(|again| now >= again);
        if !std::mem::take(&mut self.news) {
            return;
        }
        let found = self.assess(now);
        if settled {
            self.heal(&found).await;
        }
        let Assessment { needs, excess, unsure, mut status, .. } = found;
        let open = unsure
            || !settled
            || !compared
            || !self.degraded.is_empty()
            || status.groups_not_whole + status.groups_to_drop > 0;
        self.again = open.then(|| now + OPEN);
        if unsure {
            self.make_sure(now);
        }
        status.known = compared;
        let witnesses = self.degraded.witnesses();
        let links = self.reachable.iter().map(|(id, said)| (*id, said.link)).collect();
        *self.repair.known() = Known { status, map_epoch: self.map.epoch, links, witnesses };
        if settled {
            self.begin(needs, excess);
        }
    }

    /// Nodes that do not change are not asked again by themselves; what is not certain would stay so.
    fn make_sure(&mut self, now: Instant) {
        if self.made_sure.is_none_or(|at| now.saturating_duration_since(at) >= OPEN) {
            self.made_sure = Some(now);
            self.needed = self.clock.tick();
        }
    }

    fn follow_map(&mut self) {
        let map = self.repair.cluster.map();
        if map.epoch == self.map.epoch {
            return;
        }
        let same_places = map.pg_bits == self.map.pg_bits
            && map.replicas == self.map.replicas
            && map.nodes.len() == self.map.nodes.len()
            && map.nodes.iter().zip(&self.map.nodes).all(|(a, b)| {
                (a.id, a.weight, &a.zone, a.state) == (b.id, b.weight, &b.zone, b.state)
            });
        self.map = map;
        if same_places {
            return;
        }
        self.homes = Homes::of(&self.map);
        self.handed_over.clear();
        let (map, homes) = (&self.map, &self.homes);
        self.holdings.keep(|id| map.node(id).is_some());
        self.ledger.keep(|(group, home)| homes.get(group).contains(&home));
        self.doubt_all();
    }

    /// A node that comes back, and one that finds damage, are reasons for doubt.
    fn follow_nodes(&mut self) {
        let reachable = self.repair.cluster.reachable();
        let reachable = reachable.into_iter().map(|(node, said)| (node.id, said)).collect();
        let before = std::mem::replace(&mut self.reachable, reachable);
        self.news |= before != self.reachable;
        let same = |id, said: &Reported| before.get(id).is_some_and(|old| old.link == said.link);
        if self.reachable.iter().any(|(id, said)| !same(id, said)) {
            self.doubt_all();
        }
        let damaged: Vec<NodeId> = self
            .reachable
            .iter()
            // Not only when it has more: one may be found in the moment in which another is healed.
            .filter(|(id, said)| {
                let told = |said: &Reported| (said.damaged_chunks, said.digest_version);
                said.damaged_chunks > 0 && before.get(id).is_some_and(|old| told(old) != told(said))
            })
            .map(|(id, _)| *id)
            .collect();
        for node in damaged {
            let since = self.clock.tick();
            self.needed = since;
            for group in self.homes.groups_of(node) {
                self.ledger.doubt((group, node), since);
            }
        }
    }

    async fn follow_degraded(&mut self) -> Result<(), crate::op_thread::CallError> {
        if self.repair.activity.stored().degraded_groups == 0 && self.degraded.is_empty() {
            return Ok(());
        }
        let (cluster, ops) = (&self.repair.cluster, &self.repair.ops);
        let marks = ops.call(false, |namespace: &mut Namespace| namespace.degraded_marks()).await?;
        let alive = cluster.with(|members, now| {
            let alive = members.members().filter(|m| {
                m.node.state != cairn_proto::NodeState::Out
                    && now.saturating_duration_since(m.heard) < LAG
            });
            alive.map(|m| m.node.id).collect::<BTreeSet<_>>()
        });
        let noted = self.degraded.take(&marks, &alive);
        if !noted.is_empty() {
            self.news = true;
            let since = self.clock.tick();
            self.needed = since;
            for group in noted {
                for home in self.homes.get(group) {
                    self.ledger.doubt((group, *home), since);
                }
            }
        }
        Ok(())
    }

    /// Asks the nodes about which too little is known.
    fn ask(&mut self, now: Instant) {
        for (node, reported) in self.repair.cluster.reachable() {
            if self.holdings.should_ask(node.id, reported.digest_version, self.needed, now) {
                let (repair, pg_bits) = (Arc::clone(&self.repair), self.map.pg_bits);
                let asked = self.clock.tick();
                self.tasks.spawn(async move {
                    Ended::Told(digests::ask(&repair.chunks, node, pg_bits, asked).await)
                });
            }
        }
    }

    /// Whether every node that can be reached has told what it holds since nodes came or went. Before, the
    /// numbers mean nothing. A node that cannot tell, for example one of another make, is not waited for.
    fn has_compared(&self) -> bool {
        self.reachable.keys().all(|id| self.holdings.has_told_since(*id, self.general))
    }

    fn assess(&mut self, now: Instant) -> Assessment {
        let reachable: BTreeSet<NodeId> = self.reachable.keys().copied().collect();
        let members: BTreeSet<NodeId> = self.map.nodes.iter().map(|node| node.id).collect();
        let view = View {
            map: &self.map,
            homes: &self.homes,
            reachable: &reachable,
            holdings: &self.holdings,
            degraded: &self.degraded.witnessed(&members, &reachable),
            busy: &self.busy,
        };
        assess::assess(&view, &mut self.ledger, now)
    }

    /// Degraded groups that are whole are degraded no longer.
    async fn heal(&mut self, found: &Assessment) {
        let healed: Vec<(u32, u64)> = found
            .healed
            .iter()
            .filter_map(|group| Some((*group, self.degraded.mark(*group)?)))
            .collect();
        if healed.is_empty() {
            return;
        }
        tracing::info!(groups = healed.len(), "groups have all their copies again");
        let clear = move |namespace: &mut Namespace| {
            healed.into_iter().for_each(|(group, mark)| namespace.clear_degraded(group, mark));
        };
        // If it cannot be stored they stay on the list, and are looked at again.
        let _ = self.repair.ops.call(false, clear).await;
    }

    fn begin(&mut self, needs: Vec<assess::Need>, excess: Vec<Excess>) {
        if self.repair.limits.concurrency == 0 {
            return;
        }
        let pulls: usize = self.running.values().sum();
        let slots = self.repair.limits.concurrency.saturating_sub(pulls);
        for job in plan::jobs(needs, &self.running, slots) {
            *self.running.entry(job.target).or_default() += 1;
            self.busy.extend(job.needs.iter().map(|need| need.group));
            let (repair, map) = (Arc::clone(&self.repair), Arc::clone(&self.map));
            let began = self.clock.tick();
            self.tasks.spawn(async move { Ended::Pulled(pull(repair, map, job, began).await) });
        }
        for excess in excess {
            if self.handovers >= HANDOVERS {
                return;
            }
            let key = (excess.group, excess.node);
            let just_now = self
                .handed_over
                .get(&key)
                .is_some_and(|(digest, at)| *digest == excess.digest && at.elapsed() < HANDED_OVER);
            if !just_now && self.busy.insert(excess.group) {
                self.handed_over.insert(key, (excess.digest, Instant::now()));
                self.handovers += 1;
                let (repair, map) = (Arc::clone(&self.repair), Arc::clone(&self.map));
                self.tasks
                    .spawn(async move { Ended::HandedOver(hand_over(repair, map, excess).await) });
            }
        }
    }

    fn take_in(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let now = Instant::now();
        self.news = true;
        match ended {
            Ok(Ended::Told(told)) => drop(self.holdings.note(told)),
            Ok(Ended::Pulled(pulled)) => self.pull_ended(pulled, now),
            Ok(Ended::HandedOver(HandedOver { excess, kept })) => {
                self.handovers -= 1;
                self.busy.remove(&excess.group);
                if kept.is_some_and(|kept| kept > 0) {
                    let since = self.clock.tick();
                    for home in self.homes.get(excess.group) {
                        self.ledger.doubt((excess.group, *home), since);
                    }
                    self.needed = since;
                }
            }
            Err(error) => tracing::error!(%error, "a task of repair did not end well"),
        }
    }

    fn pull_ended(&mut self, pulled: Pulled, now: Instant) {
        let Pulled { job, began, complete } = pulled;
        if let Some(running) = self.running.get_mut(&job.target) {
            *running = running.saturating_sub(1);
        }
        for need in job.needs {
            self.busy.remove(&need.group);
            let seat = (need.group, need.home);
            if !self.homes.get(need.group).contains(&need.home) {
                continue;
            }
            if complete {
                self.ledger.pulled(seat, began, (need.has, need.sources), now);
            } else {
                self.ledger.failed(seat, now);
            }
        }
    }
}

/// What the caretaker needs of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    /// Changes with every change of what the node holds.
    pub(crate) digest_version: u64,
    /// Chunks that it knows to be damaged.
    pub(crate) damaged_chunks: u64,
    /// Which of its report streams that was: another one may be another process, on an empty disk.
    pub(crate) link: Option<u64>,
}

/// A node and what it said last.
pub(crate) type Reachable = (Node, Reported);
