//! Keeps the master informed: registers the node and reports its status on one long-lived stream.
//!
//! The master may be away, be restarted or not be there yet: the node goes on serving and tries again
//! for ever. A master of another file system is told apart: that is an error a person has to mend, so
//! it is logged as one and tried rarely.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use cairn_proto::{
    ClusterMap, NodeState,
    handshake::{self, Greeting, Token},
    limits::MESSAGE_MAX,
    pb::{self, master_service_client::MasterServiceClient},
    status::{innermost, sentence},
    transport,
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{
    service::Stopping,
    status::{self, Identity},
    store::Store,
};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
const BACKOFF_REFUSED: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);
const GOODBYE: Duration = Duration::from_millis(500);
const REPORT_MS_DEFAULT: u32 = 500;
const REPORT_MS: std::ops::RangeInclusive<u32> = 50..=10_000;

/// The newest map that the node has; `None` before the first.
pub type MapSender = watch::Sender<Option<Arc<ClusterMap>>>;

/// What a heartbeat needs.
pub struct Heartbeat {
    /// `host:port` of the master.
    pub master: String,
    /// Shared secret, if there is one.
    pub token: Option<Token>,
    /// Who the node is.
    pub identity: Arc<Identity>,
    /// How others reach it, and where it stands.
    pub node: cairn_proto::Node,
    /// Asked for status, told of epochs.
    pub store: Arc<Store>,
    /// Told of new maps.
    pub map: MapSender,
    /// Set while the master hears of the node.
    pub connected: Arc<AtomicBool>,
}

/// Why a connection to the master ended.
enum Lost {
    /// It may come back.
    Away(String),
    /// It does not want this node.
    Refused(String),
}

impl From<Status> for Lost {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::FailedPrecondition | Code::Unauthenticated | Code::PermissionDenied => {
                Self::Refused(status.message().to_owned())
            }
            Code::Unimplemented => Self::Refused(
                "it is no master; is it a storage node? Check the address given with --master"
                    .to_owned(),
            ),
            _ => Self::Away(sentence(&status)),
        }
    }
}

impl Heartbeat {
    /// Reports until the node stops; then says goodbye, so that the master need not wait for silence.
    pub async fn run(self, mut stopping: Stopping) {
        let mut backoff = BACKOFF_MIN;
        let mut complained = false;
        loop {
            let mut heard = false;
            let ended = self.session(&mut stopping, &mut heard).await;
            self.connected.store(false, Relaxed);
            let lost = match ended {
                Ok(()) => return,
                Err(lost) => lost,
            };
            if heard {
                (backoff, complained) = (BACKOFF_MIN, false);
            }
            let wait = match lost {
                Lost::Refused(why) => {
                    tracing::error!(master = %self.master, "the master refuses this node: {why}");
                    BACKOFF_REFUSED
                }
                Lost::Away(why) if complained => {
                    tracing::debug!(master = %self.master, "the master is away: {why}");
                    backoff
                }
                Lost::Away(why) => {
                    complained = true;
                    tracing::warn!(master = %self.master, "the master does not answer ({why}): start it, or correct --master; trying on");
                    backoff
                }
            };
            backoff = (backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                () = stopping.wait() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One connection. `Ok` when the node stops.
    async fn session(&self, stopping: &mut Stopping, heard: &mut bool) -> Result<(), Lost> {
        let (reports, mut orders) = tokio::select! {
            () = stopping.wait() => return Ok(()),
            connected = self.connect() => connected?,
        };
        *heard = true;
        self.connected.store(true, Relaxed);
        tracing::info!(master = %self.master, "registered with the master");
        let mut report_ms = REPORT_MS_DEFAULT;
        let mut ticks = ticker(report_ms);
        loop {
            tokio::select! {
                () = stopping.wait() => {
                    self.say_goodbye(reports, orders).await;
                    return Ok(());
                }
                order = orders.message() => match order? {
                    Some(order) => {
                        // A new ticker fires at once, and each report is answered by an order.
                        if order.report_ms != 0 && order.report_ms != report_ms {
                            report_ms = order.report_ms;
                            ticks = ticker(report_ms);
                        }
                        if self.obey(order).await {
                            // The master waits for nodes to have heard of an epoch.
                            self.send_report(&reports).await?;
                        }
                    }
                    None => return Err(Lost::Away("it closed the connection".into())),
                },
                _ = ticks.tick() => self.send_report(&reports).await?,
                // Clients wait for a map without this node.
                () = self.store.disk_change() => self.send_report(&reports).await?,
            }
        }
    }

    async fn send_report(&self, reports: &mpsc::Sender<pb::NodeReport>) -> Result<(), Lost> {
        match reports.try_send(self.report(false).await) {
            // A report that cannot leave is out of date anyway.
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                Err(Lost::Away("the connection broke".into()))
            }
        }
    }

    async fn connect(
        &self,
    ) -> Result<(mpsc::Sender<pb::NodeReport>, Streaming<pb::NodeOrders>), Lost> {
        let away = |e: tonic::transport::Error| Lost::Away(innermost(&e));
        let late = |_| Lost::Away("no answer in time".into());
        let endpoint = transport::endpoint(&self.master, CONNECT).map_err(away)?;
        let channel = timeout(CONNECT, endpoint.connect()).await.map_err(late)?.map_err(away)?;
        let greeting = Greeting::new(Some(self.identity.fs), self.token.as_ref());
        let mut client = MasterServiceClient::with_interceptor(channel, greeting)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let hello = pb::HelloRequest {
            version: handshake::VERSION,
            features: handshake::FEATURES,
            fs_uuid: self.identity.fs.to_string(),
        };
        timeout(ANSWER, client.hello(hello)).await.map_err(late)??;
        let (reports, queue) = mpsc::channel(4);
        // The first report is in the queue before the master can ask for it.
        let _ = reports.try_send(self.report(false).await);
        let orders = timeout(ANSWER, client.node_session(ReceiverStream::new(queue)));
        Ok((reports, orders.await.map_err(late)??.into_inner()))
    }

    async fn report(&self, leaving: bool) -> pb::NodeReport {
        let (identity, store) = (Arc::clone(&self.identity), Arc::clone(&self.store));
        let status = self.store.blocking(move || status::node_status(&identity, &store)).await;
        pb::NodeReport {
            node: Some(pb::Node::from(&self.node)),
            gc_epoch: status.gc_epoch,
            status: Some(status),
            map_epoch: self.map.borrow().as_ref().map_or(0, |map| map.epoch),
            leaving,
            digest_version: self.store.groups().version(),
        }
    }

    /// True when it brought a new epoch of garbage collection.
    async fn obey(&self, order: pb::NodeOrders) -> bool {
        match order.map.as_ref().map(ClusterMap::try_from) {
            None => {}
            Some(Ok(map)) => {
                self.map.send_if_modified(|held| {
                    let newer = held.as_ref().is_none_or(|h| h.epoch < map.epoch);
                    if newer {
                        *held = Some(Arc::new(map));
                    }
                    newer
                });
            }
            Some(Err(e)) => tracing::warn!("the master sent a map that makes no sense: {e}"),
        }
        let (store, epoch) = (Arc::clone(&self.store), order.gc_epoch);
        let learn = move || {
            let before = store.epoch();
            store.learn_epoch(epoch);
            store.epoch() != before
        };
        self.store.blocking(learn).await
    }

    async fn say_goodbye(
        &self,
        reports: mpsc::Sender<pb::NodeReport>,
        mut orders: Streaming<pb::NodeOrders>,
    ) {
        let goodbye = async {
            let _ = reports.send(self.report(true).await).await;
            drop(reports);
            while let Ok(Some(_)) = orders.message().await {}
        };
        // A master that is away learns it from the silence.
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

fn ticker(report_ms: u32) -> tokio::time::Interval {
    let ms = report_ms.clamp(*REPORT_MS.start(), *REPORT_MS.end());
    // A little early, so that a busy machine does not make the node look late.
    let mut ticks = interval(Duration::from_millis(u64::from(ms) * 4 / 5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// How the master is told where the node is. The weight is its capacity in GiB, so that it does not
/// change (and move data) while the disks fill.
pub fn describe(
    identity: &Identity,
    host: String,
    port: u16,
    zone: String,
    store: &Store,
) -> cairn_proto::Node {
    let capacity: u64 = store.status().iter().map(|v| v.space.capacity).sum();
    cairn_proto::Node {
        id: identity.node_id,
        host,
        port,
        weight: u32::try_from(capacity >> 30).unwrap_or(u32::MAX).clamp(1, 1 << 20),
        zone,
        state: NodeState::Up,
        name: identity.name.clone(),
    }
}
