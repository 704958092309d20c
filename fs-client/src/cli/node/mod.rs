//! `cairn node`: the storage nodes, and what people decide about them.
//!
//! - [`list`]: all of them. [`change`]: drain, undrain, maintenance, resume, remove. [`empty`]: waiting until
//!   a node that is drained is empty.

pub mod change;
mod empty;
pub mod list;

use clap::{Args, Subcommand};

use super::{connection::Connection, failure::Failure};

/// List storage nodes, empty them, take them away
#[derive(Args, Debug)]
pub struct Node {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    List(list::List),
    Drain(change::Drain),
    Undrain(change::Undrain),
    Maintenance(change::Maintenance),
    Resume(change::Resume),
    Remove(change::Remove),
}

impl Node {
    /// # Errors
    /// When the master cannot be asked, or refuses.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        match self.verb {
            Verb::List(verb) => verb.run(connection).await,
            Verb::Drain(verb) => verb.run(connection).await,
            Verb::Undrain(verb) => verb.run(connection).await,
            Verb::Maintenance(verb) => verb.run(connection).await,
            Verb::Resume(verb) => verb.run(connection).await,
            Verb::Remove(verb) => verb.run(connection).await,
        }
    }
}
