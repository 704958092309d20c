//! One cycle. The order of its steps is what makes it safe; see [`super`].

use std::{
    collections::HashMap,
    ops::Range,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use cairn_proto::{NodeId, pb};
use tokio::task::{JoinSet, spawn_blocking};

use super::{
    Collector, Listener, Wish,
    limit::Expectations,
    mark::Mark,
    nodes::{Participant, sweep},
    tell,
};
use crate::{
    failpoints::{self, GC_AFTER_EPOCH, GC_AFTER_FLOOR, GC_AFTER_MARK, GC_AFTER_SWEEP},
    namespace::{Namespace, Stamps},
};

/// One cycle under way.
struct Cycle<'a> {
    collector: &'a Collector,
    wish: Wish,
    expectations: &'a mut Expectations,
    number: u32,
    listener: Option<&'a Listener>,
    report: pb::CycleReport,
    /// Bytes that each node has and files refer to.
    live: HashMap<NodeId, u64>,
}

impl Collector {
    /// Runs one cycle. It goes on when nobody listens any more.
    pub(super) async fn cycle(
        &self,
        wish: Wish,
        expectations: &mut Expectations,
        number: u32,
        listener: Option<&Listener>,
    ) -> pb::CycleReport {
        let started = Instant::now();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let report = pb::CycleReport {
            dry_run: wish.dry_run,
            started_unix: since.as_secs(),
            ..pb::CycleReport::default()
        };
        let live = HashMap::new();
        let mut cycle =
            Cycle { collector: self, wish, expectations, number, listener, report, live };
        let outcome = cycle.run().await;
        let mut report = cycle.report;
        if let Err(why) = outcome {
            if report.epoch != 0 && !wish.dry_run {
                expectations.distrust(report.epoch);
            }
            report.failure = why;
        }
        report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        audit(&report);
        report
    }
}

impl Cycle<'_> {
    /// # Errors
    /// Why nothing, or not everything, was swept.
    async fn run(&mut self) -> Result<(), String> {
        self.collector.ready().await?;
        self.tell("announcing a new epoch to the storage nodes").await;
        let stamps =
            self.raise(|now, greatest| Stamps { epoch: now.epoch.max(greatest) + 1, ..now });
        let stamps = stamps.await?;
        failpoints::hit(GC_AFTER_EPOCH);
        self.report.epoch = stamps.epoch;
        self.collector.cluster.gc_epoch.send_replace(stamps.epoch);
        let (participants, left_out) = self.collector.choose(stamps.epoch).await;
        self.report.nodes_left_out = left_out;
        let floor = stamps.epoch - 1;
        // From here on a commit with an older stamp is refused. When this is answered, all that were
        // accepted before are committed, so the view has them.
        self.raise(move |now, _| Stamps { floor, ..now }).await?;
        failpoints::hit(GC_AFTER_FLOOR);
        self.report.floor = floor;
        self.tell("marking what is referred to").await;
        let mark = self.mark().await?;
        (self.report.references, self.report.referenced_bytes) = (mark.references, mark.bytes);
        self.sweep_all(Arc::new(mark), participants).await?;
        failpoints::hit(GC_AFTER_SWEEP);
        if !self.wish.dry_run {
            let referenced = self.report.referenced_bytes;
            self.expectations.complete(referenced, self.live.drain());
            let note = move |namespace: &mut Namespace| namespace.note_collected(referenced);
            self.collector.ops.call(false, note).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    async fn tell(&self, step: &str) {
        let (cycle, step) = (self.number, step.to_owned());
        let progress = pb::CollectProgress { cycle, step, ..pb::CollectProgress::default() };
        tell(self.listener, progress).await;
    }

    /// Raises epoch and floor; durable when this returns.
    async fn raise(
        &self,
        to: impl FnOnce(Stamps, u64) -> Stamps + Send + 'static,
    ) -> Result<Stamps, String> {
        let greatest = self.collector.greatest_epoch();
        let work = move |namespace: &mut Namespace| {
            let stamps = to(namespace.stamps(), greatest);
            namespace.raise_stamps(stamps);
            stamps
        };
        let stamps = self.collector.ops.call(true, work).await.map_err(|e| e.to_string())?;
        self.collector.state().stamps = stamps;
        Ok(stamps)
    }

    async fn mark(&self) -> Result<Mark, String> {
        let pg_bits = self.collector.cluster.map().pg_bits;
        let salt = uuid::Uuid::new_v4().as_u64_pair().0;
        let view = self.collector.ops.call(false, |namespace| namespace.view()).await;
        let view = view.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        blocking(move || Mark::count(view, pg_bits, salt)).await
    }

    async fn sweep_all(
        &mut self,
        mark: Arc<Mark>,
        mut participants: Vec<Participant>,
    ) -> Result<(), String> {
        let ranges = mark.ranges();
        let count = ranges.len();
        for (n, range) in ranges.into_iter().enumerate() {
            self.tell("the storage nodes sweep").await;
            participants = self.sweep_range(&mark, participants, range, n + 1 == count).await?;
        }
        self.report.nodes_swept = u32::try_from(participants.len()).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Sweeps a range of groups on all nodes at once; those that have done it.
    async fn sweep_range(
        &mut self,
        mark: &Arc<Mark>,
        participants: Vec<Participant>,
        range: Range<u32>,
        last: bool,
    ) -> Result<Vec<Participant>, String> {
        let marked = {
            let (mark, range) = (Arc::clone(mark), range);
            blocking(move || mark.filters(&range)).await?
        };
        failpoints::hit(GC_AFTER_MARK);
        let marked = Arc::new(marked);
        let before = self.collector.ops.call(false, |ns: &mut Namespace| ns.collected()).await;
        let before = before.map_err(|e| e.to_string())?;
        let mut sweeps = JoinSet::new();
        for participant in &participants {
            let plan = self.plan(participant, mark, before, last);
            let greeting = self.collector.greeting.clone();
            sweeps.spawn(sweep(greeting, participant.node.clone(), plan, Arc::clone(&marked)));
        }
        let (mut stayed, mut stopped) = (Vec::new(), Vec::new());
        while let Some(answer) = sweeps.join_next().await {
            let Ok((id, answer)) = answer else { continue };
            match answer {
                Ok(progress) => {
                    if !progress.stopped.is_empty() {
                        stopped.push(progress.stopped.clone());
                    }
                    self.add(id, &progress);
                    stayed.push(id);
                }
                Err(why) => self.report.nodes_left_out.push(why),
            }
        }
        match stopped.pop() {
            Some(why) => Err(why),
            None => Ok(participants.into_iter().filter(|p| stayed.contains(&p.node.id)).collect()),
        }
    }

    fn plan(
        &self,
        participant: &Participant,
        mark: &Mark,
        before: u64,
        last: bool,
    ) -> pb::SweepPlan {
        let Participant { node, stored } = participant;
        let limit = self.expectations.limit(node.id, *stored, mark.bytes, before);
        pb::SweepPlan {
            epoch: self.report.epoch,
            floor: self.report.floor,
            pg_bits: mark.pg_bits,
            salt: mark.salt,
            erase_from: self.expectations.erase_from,
            quarantine_bytes_max: if self.wish.force { u64::MAX } else { limit },
            dry_run: self.wish.dry_run,
            reclaim: last,
        }
    }

    fn add(&mut self, id: NodeId, progress: &pb::SweepProgress) {
        let live = progress.live.unwrap_or_default().bytes;
        *self.live.entry(id).or_default() += live;
        let report = &mut self.report;
        report.returned_bytes += progress.returned_bytes;
        for (sum, more) in [
            (&mut report.live, &progress.live),
            (&mut report.young, &progress.young),
            (&mut report.quarantined, &progress.quarantined),
            (&mut report.waiting, &progress.waiting),
            (&mut report.restored, &progress.restored),
            (&mut report.erased, &progress.erased),
        ] {
            let (sum, more) = (sum.get_or_insert_default(), more.unwrap_or_default());
            sum.chunks += more.chunks;
            sum.bytes += more.bytes;
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work).await.unwrap_or_else(|panic| Err(panic.to_string()))
}

/// One line for each cycle that found or did anything, or failed.
fn audit(report: &pb::CycleReport) {
    let tally = |tally: &Option<pb::ChunkTally>| tally.unwrap_or_default();
    let (young, quarantined) = (tally(&report.young), tally(&report.quarantined));
    let (restored, erased) = (tally(&report.restored), tally(&report.erased));
    let found = young.chunks + quarantined.chunks + restored.chunks + erased.chunks;
    let pb::CycleReport { epoch, floor, dry_run, nodes_swept, references, .. } = report;
    if !report.failure.is_empty() {
        let why = &report.failure;
        tracing::warn!(epoch, floor, dry_run, why, "garbage collection: a cycle did not end");
    } else if found > 0 {
        tracing::info!(
            epoch,
            floor,
            dry_run,
            nodes_swept,
            left_out = report.nodes_left_out.join("; "),
            references,
            live_chunks = tally(&report.live).chunks,
            young_chunks = young.chunks,
            quarantined_chunks = quarantined.chunks,
            quarantined_bytes = quarantined.bytes,
            restored_chunks = restored.chunks,
            erased_chunks = erased.chunks,
            erased_bytes = erased.bytes,
            returned_bytes = report.returned_bytes,
            duration_ms = report.duration_ms,
            "garbage collection: swept"
        );
    }
}
