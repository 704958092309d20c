//! `cairn monitor`: the cluster, live.
//!
//! [`poll`] asks the master about once an interval and goes on asking when it does not answer; [`model`]
//! turns counters into rates and keeps the last minutes; [`view`] draws them; [`terminal`] owns the screen and the
//! keys; [`lines`] is for everything that is no terminal. Polling and drawing never wait for each other.

mod lines;
pub mod model;
mod poll;
mod terminal;
mod view;

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use tokio::sync::mpsc;

use self::poll::Poll;
use super::{connection::Connection, failure::Failure, interrupt};

/// Watch throughput, operations, processes and space live; q quits
#[derive(Args, Debug)]
pub struct Monitor {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,

    /// Print one line a look, and end after N of them
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,

    /// Print one JSON object a look instead of text
    #[arg(long)]
    json: bool,
}

/// Looks that may wait to be shown.
const WAITING: usize = 4;

impl Monitor {
    /// Until q or Ctrl+C; lines until nobody reads them.
    ///
    /// # Errors
    /// When the arguments make no sense or the terminal cannot be used. A master that does not answer
    /// is shown, not an error.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let poll = Poll::new(connection, self.interval)?;
        let address = connection.master.clone();
        let (send, looks) = mpsc::channel(WAITING);
        tokio::spawn(poll.run(send));
        if self.json || self.count.is_some() || !std::io::stdout().is_terminal() {
            return tokio::select! {
                printed = lines::print(address, looks, self.json, self.count) => printed,
                interrupted = interrupt::requested() => Err(interrupted),
            };
        }
        terminal::show(address, looks, self.interval).await
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("give a number of seconds from 0.1 to 3600".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_sensible() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for nonsense in ["0", "-1", "x", "1e9", "NaN", "inf"] {
            assert!(interval(nonsense).is_err(), "{nonsense}");
        }
    }
}
