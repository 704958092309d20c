//! [`Poll`]: asks the master for its status again and again, connecting anew when that fails.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::{sync::mpsc, time::MissedTickBehavior};

use crate::{
    cli::{connection::Connection, failure::Failure, status::report::StatusReport},
    config::ClientConfig,
    rpc::Admin,
};

/// Longest that one look may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// One look at the cluster.
pub(super) struct Look {
    /// When the answer came.
    pub(super) at: Instant,
    /// The same by the clock, in seconds since 1970.
    pub(super) time: f64,
    /// What the master says, or why it does not.
    pub(super) answer: Result<StatusReport, String>,
}

/// See the head of this file.
pub(super) struct Poll {
    config: ClientConfig,
    interval: Duration,
    admin: Option<Admin>,
}

impl Poll {
    /// # Errors
    /// When the token file cannot be read.
    pub(super) fn new(connection: &Connection, interval: Duration) -> Result<Self, Failure> {
        let mut config = connection.config("cairn monitor")?;
        config.deadline = config.deadline.min(PATIENCE);
        config.connect_timeout = config.connect_timeout.min(PATIENCE);
        Ok(Self { config, interval, admin: None })
    }

    /// Until nobody looks any more.
    pub(super) async fn run(mut self, looks: mpsc::Sender<Look>) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answer = self.ask().await;
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let look = Look { at: Instant::now(), time: since_1970.as_secs_f64(), answer };
            if looks.send(look).await.is_err() {
                return;
            }
        }
    }

    async fn ask(&mut self) -> Result<StatusReport, String> {
        let admin = match self.admin.take() {
            Some(admin) => admin,
            None => Admin::connect(&self.config).await.map_err(|e| e.to_string())?,
        };
        let status = admin.status().await.map_err(|e| e.to_string())?;
        self.admin = Some(admin);
        Ok(status.into())
    }
}
