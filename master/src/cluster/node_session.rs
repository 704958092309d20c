//! The stream of one storage node: reports in, orders out. The end of the stream is news at once.

use std::{pin::Pin, sync::Arc};

use cairn_proto::{Node, pb};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use super::{Cluster, membership::LinkId};
use crate::session::stream::told;

/// Orders that may wait for a node that does not read them. More are not needed: each says it all.
const ORDERS: usize = 16;

/// What tonic sends to the node.
pub(crate) type Orders = Pin<Box<dyn Stream<Item = Result<pb::NodeOrders, Status>> + Send>>;

/// Serves `reports` on a task of its own; the orders for the node come out of what is returned.
pub(crate) fn serve(
    cluster: &Arc<Cluster>,
    reports: Streaming<pb::NodeReport>,
    stopping: watch::Receiver<bool>,
) -> Orders {
    let (sender, orders) = mpsc::channel(ORDERS);
    let link = NodeLink {
        cluster: Arc::clone(cluster),
        id: cluster.new_link(),
        orders: sender,
        node: None,
        has_epoch: 0,
    };
    tokio::spawn(link.run(reports, stopping));
    Box::pin(ReceiverStream::new(orders))
}

struct NodeLink {
    cluster: Arc<Cluster>,
    id: LinkId,
    orders: mpsc::Sender<Result<pb::NodeOrders, Status>>,
    node: Option<Node>,
    /// The newest map that the node has or was sent.
    has_epoch: u64,
}

impl NodeLink {
    async fn run(
        mut self,
        mut reports: Streaming<pb::NodeReport>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut maps = self.cluster.maps();
        let mut gc_epochs = self.cluster.gc_epoch.subscribe();
        let ended = loop {
            tokio::select! {
                report = reports.message() => match report {
                    Ok(Some(report)) => {
                        if let Err(refusal) = self.report(report) {
                            break Some(refusal);
                        }
                    }
                    Ok(None) => break None,
                    Err(broken) => break Some(broken),
                },
                Ok(()) = maps.changed() => {
                    maps.borrow_and_update();
                    self.order();
                }
                Ok(()) = gc_epochs.changed() => {
                    gc_epochs.borrow_and_update();
                    self.order();
                }
                () = self.orders.closed() => break None,
                // The nodes stay as they are for the next start.
                () = told(&mut stopping) => return,
            }
        };
        if let Some(node) = &self.node {
            self.cluster.with(|members, now| members.lost(node.id, self.id, now));
        }
        if let Some(why) = ended {
            tracing::debug!(%why, "a node's stream ended");
            // A full queue means that the node does not listen anyway.
            let _ = self.orders.try_send(Err(why));
        }
    }

    fn report(&mut self, report: pb::NodeReport) -> Result<(), Status> {
        let node = report.node.as_ref().ok_or_else(|| {
            Status::invalid_argument("a report without its node: fill in NodeReport.node")
        })?;
        let node = Node::try_from(node)?;
        if let Some(known) = &self.node
            && known.id != node.id
        {
            return Err(Status::invalid_argument(format!(
                "this stream is of node {}, not of {}: one stream for each node",
                known.id, node.id
            )));
        }
        let id = node.id;
        let taken = self
            .cluster
            .with(|members, now| members.report(self.id, node.clone(), report.status, now));
        if let Err(refusal) = taken {
            tracing::warn!(node = %id, address = node.address(), %refusal, "node refused");
            return Err(Status::failed_precondition(refusal.to_string()));
        }
        self.node = Some(node);
        self.has_epoch = report.map_epoch;
        self.cluster.with(|members, _| members.note_digests(id, report.digest_version));
        if report.leaving {
            self.cluster.with(|members, now| members.leaving(id, self.id, now));
        }
        self.order();
        Ok(())
    }

    /// Tells the node what it needs to know. Skipped while it does not read; its next report repeats
    /// what it lacks.
    fn order(&mut self) {
        let map = self.cluster.map();
        let newer = map.epoch > self.has_epoch;
        let every = self.cluster.patience.suspect_after / 3;
        let orders = pb::NodeOrders {
            map: newer.then(|| map.as_ref().into()),
            gc_epoch: *self.cluster.gc_epoch.borrow(),
            report_ms: u32::try_from(every.as_millis()).unwrap_or(u32::MAX).max(1),
        };
        if self.orders.try_send(Ok(orders)).is_ok() && newer {
            self.has_epoch = map.epoch;
        }
    }
}
