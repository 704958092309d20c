//! `cairn cluster set`: what holds for the whole file system and can be changed while it is used.

use cairn_proto::pb;
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION},
};
use crate::rpc::Admin;

/// Change what holds for the whole file system
#[derive(Args, Debug)]
pub struct Cluster {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Set(Set),
}

/// Change how many copies of every chunk there are; what exists follows in the background
#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
struct Set {
    /// Copies of every chunk, on different storage nodes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    replicas: Option<u32>,
    /// Copies without which a write fails
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    min_replicas: Option<u32>,
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// The copies as they are to be from now on. `cairn cluster set --json`
#[derive(Serialize, JsonSchema)]
pub struct CopiesReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// Copies that every chunk shall have.
    replicas: u32,
    /// Copies without which a write fails.
    min_replicas: u32,
    /// Nodes that can take copies. Fewer than `replicas`: some copies wait for another node.
    nodes: u32,
}

impl Cluster {
    /// # Errors
    /// When the master cannot be asked, or refuses.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let Verb::Set(set) = self.verb;
        let admin = Admin::connect(&connection.config("cairn cluster")?).await?;
        let request = pb::SetCopiesRequest {
            replicas: set.replicas.unwrap_or(0),
            min_replicas: set.min_replicas.unwrap_or(0),
        };
        let pb::SetCopiesResponse { replicas, min_replicas, nodes } =
            admin.set_copies(request).await?;
        if set.json {
            let version = JSON_VERSION;
            return output::json(&CopiesReport { version, replicas, min_replicas, nodes });
        }
        println!(
            "{replicas} copies of every chunk, at least {min_replicas} for a write; \
             `cairn rebalance status` shows how what exists follows"
        );
        if nodes < replicas {
            println!(
                "only {nodes} nodes can take copies: the others wait until there are more nodes"
            );
        }
        Ok(())
    }
}
