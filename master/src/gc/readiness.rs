//! [`Readiness`]: after a start no cycle begins until every session from before has come back or expired
//! and had a moment to send again what this master may have lost, and the nodes have reported.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Collector;
use crate::namespace::Namespace;

/// For what sessions that came back send again.
const MOMENT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    settled_at: Mutex<Option<Instant>>,
    why: Mutex<String>,
}

impl Readiness {
    /// Why no cycle begins; empty when one may.
    pub(crate) fn waiting_for(&self) -> String {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, why: &str) {
        why.clone_into(&mut self.why.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes whether the sessions are settled; how long they have been.
    fn settled(&self, now: Option<bool>) -> Option<Duration> {
        let mut at = self.settled_at.lock().unwrap_or_else(PoisonError::into_inner);
        if at.is_none() && now == Some(true) {
            *at = Some(Instant::now());
        }
        at.map(|at| at.elapsed())
    }
}

impl Collector {
    /// # Errors
    /// Why no cycle may begin.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let why = self.obstacle().await;
        self.readiness.note(why.as_deref().unwrap_or_default());
        why.map_or(Ok(()), Err)
    }

    async fn obstacle(&self) -> Option<String> {
        if self.readiness.settled(None).is_none() {
            match self.ops.call(false, |namespace: &mut Namespace| namespace.is_settled()).await {
                Ok(settled) => _ = self.readiness.settled(Some(settled)),
                Err(error) => return Some(error.to_string()),
            }
        }
        match self.readiness.settled(None) {
            None => Some("sessions from before the master's start have not come back".to_owned()),
            Some(since) if since < MOMENT => {
                Some("sessions from before the master's start are sending again".to_owned())
            }
            Some(_) => self.cluster.unsettled_because(),
        }
    }
}
