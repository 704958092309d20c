//! Looking for oneself whether a node answers: a fresh connection and one call, within half a second.
//!
//! Many clients report one dead node at the same moment: those who ask while a probe is under way get
//! its answer, so that a node is never probed twice at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cairn_proto::{
    Node,
    handshake::Greeting,
    pb::{self, storage_service_client::StorageServiceClient},
    transport,
};
use tokio::{sync::watch, time::timeout};
use tonic::Code;

/// How long a node has to answer.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answers and has a disk that works.
    Well,
    /// It answers, but says that all its disks have failed: good for reads at most.
    Broken,
    /// No answer in time.
    Gone,
}

impl Health {
    /// Of a node that answers with this status.
    pub(crate) fn of(status: &pb::NodeStatusResponse) -> Self {
        // A node that tells nothing of its disks is believed to have some.
        if !status.disks.is_empty() && status.disks.iter().all(|disk| disk.failed) {
            Self::Broken
        } else {
            Self::Well
        }
    }
}

/// By address.
type Running = HashMap<String, watch::Receiver<Option<Health>>>;

/// Probes nodes, each at most once at a time.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    greeting: Greeting,
    running: Arc<Mutex<Running>>,
}

impl Prober {
    /// Greets every node with `greeting`.
    pub(crate) fn new(greeting: Greeting) -> Self {
        Self { greeting, running: Arc::default() }
    }

    /// How `node` is now.
    pub(crate) async fn look(&self, node: &Node) -> Health {
        let mut result = self.join_or_start(node);
        // An error means that the probe's task is gone, which happens only when the runtime stops.
        result.wait_for(Option::is_some).await.ok().and_then(|found| *found).unwrap_or(Health::Gone)
    }

    fn join_or_start(&self, node: &Node) -> watch::Receiver<Option<Health>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let address = node.address();
        if let Some(result) = running.get(&address) {
            return result.clone();
        }
        let (sender, result) = watch::channel(None);
        running.insert(address.clone(), result.clone());
        let prober = self.clone();
        tokio::spawn(async move {
            let asked = timeout(PROBE_TIMEOUT, prober.ask(&address)).await;
            let health = asked.unwrap_or(Health::Gone);
            prober.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
            sender.send_replace(Some(health));
        });
        result
    }

    async fn ask(&self, address: &str) -> Health {
        let Ok(endpoint) = transport::endpoint(address, PROBE_TIMEOUT) else { return Health::Gone };
        let Ok(channel) = endpoint.connect().await else { return Health::Gone };
        let mut client = StorageServiceClient::with_interceptor(channel, self.greeting.clone());
        match client.node_status(pb::NodeStatusRequest {}).await {
            Ok(status) => Health::of(status.get_ref()),
            // A small node in another language need not know this call; it is alive all the same.
            Err(refused) if refused.code() == Code::Unimplemented => Health::Well,
            Err(_) => Health::Gone,
        }
    }
}
