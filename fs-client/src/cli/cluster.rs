//! `cairn cluster set`: what holds for the whole file system and can be changed while it is used.

use cairn_proto::{Compression, pb};
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

/// Change the copies of every chunk, which what exists follows in the background, or the compression of new ones
#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
struct Set {
    /// Copies of every chunk, on different storage nodes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    replicas: Option<u32>,
    /// Copies without which a write fails
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    min_replicas: Option<u32>,
    /// How chunks are made smaller before they are stored: off, lz4, zstd or zstd:LEVEL (1 to 19). What is
    /// stored stays as it is
    #[arg(long, value_name = "HOW")]
    compression: Option<Compression>,
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// What holds for the whole file system from now on. `cairn cluster set --json`
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
    /// What clients do with new chunks: `off`, `lz4` or `zstd:LEVEL`.
    compression: String,
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
            compression: set.compression.map(pb::Compression::from),
        };
        let pb::SetCopiesResponse { replicas, min_replicas, nodes, compression } =
            admin.set_copies(request).await?;
        if set.compression.is_some() && compression.is_none() {
            return Err(Failure::new(
                "the master knows no compression: use the same release on both sides".to_owned(),
            ));
        }
        let compression = compression.as_ref().map_or(Compression::Off, Compression::from);
        if set.json {
            let version = JSON_VERSION;
            let compression = compression.to_string();
            let report = CopiesReport { version, replicas, min_replicas, nodes, compression };
            return output::json(&report);
        }
        println!(
            "{replicas} copies of every chunk, at least {min_replicas} for a write; \
             `cairn rebalance status` shows how what exists follows"
        );
        println!("new chunks: {}", explained(compression));
        if nodes < replicas {
            println!(
                "only {nodes} nodes can take copies: the others wait until there are more nodes"
            );
        }
        Ok(())
    }
}

fn explained(compression: Compression) -> String {
    match compression {
        Compression::Off => "stored as they are (compression off)".to_owned(),
        Compression::Lz4 | Compression::Zstd(_) => {
            format!("compressed with {compression} where that makes them smaller")
        }
    }
}
