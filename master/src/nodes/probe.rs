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

/// By address.
type Running = HashMap<String, watch::Receiver<Option<bool>>>;

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

    /// Whether `node` answers now.
    pub(crate) async fn answers(&self, node: &Node) -> bool {
        let mut result = self.join_or_start(node);
        // An error means that the probe's task is gone, which happens only when the runtime stops.
        result.wait_for(Option::is_some).await.is_ok_and(|answer| *answer == Some(true))
    }

    fn join_or_start(&self, node: &Node) -> watch::Receiver<Option<bool>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let address = node.address();
        if let Some(result) = running.get(&address) {
            return result.clone();
        }
        let (sender, result) = watch::channel(None);
        running.insert(address.clone(), result.clone());
        let prober = self.clone();
        tokio::spawn(async move {
            let alive = timeout(PROBE_TIMEOUT, prober.ask(&address)).await.unwrap_or(false);
            prober.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
            sender.send_replace(Some(alive));
        });
        result
    }

    async fn ask(&self, address: &str) -> bool {
        let Ok(endpoint) = transport::endpoint(address, PROBE_TIMEOUT) else { return false };
        let Ok(channel) = endpoint.connect().await else { return false };
        let mut client = StorageServiceClient::with_interceptor(channel, self.greeting.clone());
        match client.node_status(pb::NodeStatusRequest {}).await {
            Ok(_) => true,
            // A small node in another language need not know this call; it is alive all the same.
            Err(refused) => refused.code() == Code::Unimplemented,
        }
    }
}
