//! Cycles by themselves, while there is anything to find.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Collector, Wish, is_idle};
use crate::namespace::{Counters, Namespace};

/// How soon a cycle that could not begin is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// What has to change before another cycle can find something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Traces {
    counters: Counters,
    /// Of each node: its id, chunks and bytes.
    nodes: Vec<(String, u64, u64)>,
}

/// Runs a cycle every `interval`; zero: never by itself.
pub(crate) async fn run(collector: Arc<Collector>, interval: Duration) {
    if interval.is_zero() {
        return;
    }
    let mut idle: Option<Traces> = None;
    let mut due = Instant::now() + interval;
    loop {
        sleep(due.saturating_duration_since(Instant::now())).await;
        due = Instant::now() + interval;
        if collector.ready().await.is_err() {
            due = Instant::now() + AGAIN.min(interval);
            continue;
        }
        let traces = collector.traces().await;
        if traces.is_some() && idle == traces {
            continue;
        }
        idle = if collector.one().await { traces } else { None };
    }
}

impl Collector {
    async fn traces(&self) -> Option<Traces> {
        let counters = self.ops.call(false, |namespace: &mut Namespace| namespace.counters()).await;
        let nodes = self.cluster.with(|members, _| {
            let of = |member: &crate::cluster::membership::Member| {
                let status = member.status.as_ref()?;
                let sum = |value: fn(&cairn_proto::pb::DiskStatus) -> u64| {
                    status.disks.iter().map(value).sum()
                };
                Some((status.node_id.clone(), sum(|d| d.chunks), sum(|d| d.chunk_bytes)))
            };
            members.members().filter_map(of).collect()
        });
        counters.ok().map(|counters| Traces { counters, nodes })
    }

    /// One cycle; whether it found nothing.
    async fn one(&self) -> bool {
        let mut expectations = self.running.lock().await;
        self.state().running = true;
        let report = self.cycle(Wish::default(), &mut expectations, 1, None).await;
        self.note(&report);
        is_idle(&report)
    }
}
