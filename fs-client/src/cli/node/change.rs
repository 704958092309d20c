//! The verbs of `cairn node` that decide something. Each says what it has done and what follows from it.

use cairn_proto::pb;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::empty;
use crate::{
    cli::{
        connection::Connection,
        failure::Failure,
        output::{self, JSON_VERSION},
        units,
    },
    rpc::Admin,
};

/// Which node, and how the answer is shown.
#[derive(Args, Debug)]
struct Which {
    /// Name or id of the node, as `cairn node list` shows them
    node: String,
    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// Copy all that a node has to other nodes, then drop it there; returns when it is empty
#[derive(Args, Debug)]
pub struct Drain {
    #[command(flatten)]
    which: Which,
    /// Return at once; `cairn rebalance status` shows how far it is
    #[arg(long)]
    no_wait: bool,
    /// Drain it although there are too few other nodes for all copies: nothing leaves it until there are
    #[arg(long)]
    force: bool,
}

/// Use a node again that is being drained
#[derive(Args, Debug)]
pub struct Undrain {
    #[command(flatten)]
    which: Which,
}

/// Say that a node will be away for a while: nothing is written to it, and its copies are not made elsewhere
#[derive(Args, Debug)]
pub struct Maintenance {
    #[command(flatten)]
    which: Which,
}

/// End the maintenance of a node, or take a removed one back
#[derive(Args, Debug)]
pub struct Resume {
    #[command(flatten)]
    which: Which,
}

/// Forget a node for good; refused while it holds the only copy of anything
#[derive(Args, Debug)]
pub struct Remove {
    #[command(flatten)]
    which: Which,
    /// Remove it even if something is lost by that
    #[arg(long)]
    force: bool,
}

/// What was decided about a node. `cairn node drain|undrain|maintenance|resume|remove --json`
#[derive(Serialize, JsonSchema)]
struct ChangeReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// What people call the node; empty for one that was removed before.
    name: String,
    /// Its UUID.
    id: String,
    /// Its state now; `removed` when it is none any more.
    state: &'static str,
    /// Something is different than before.
    changed: bool,
    /// Chunks of which it held the only copy, when it was removed by force.
    chunks_lost: u64,
}

async fn change(
    admin: &Admin,
    which: &Which,
    change: pb::NodeChange,
    force: bool,
) -> Result<ChangeReport, Failure> {
    let request = pb::ChangeNodeRequest { node: which.node.clone(), change: change.into(), force };
    let answer = admin.change_node(request).await?;
    let node = answer.node.unwrap_or_default();
    let state = match change {
        pb::NodeChange::Remove => "removed",
        _ => cairn_proto::NodeState::from(node.state()).word(),
    };
    Ok(ChangeReport {
        version: JSON_VERSION,
        name: node.name,
        id: node.node_id,
        state,
        changed: answer.changed,
        chunks_lost: answer.chunks_lost,
    })
}

impl ChangeReport {
    fn name(&self) -> &str {
        if self.name.is_empty() { &self.id } else { &self.name }
    }

    /// Prints the report, or the sentence that `done` makes of it.
    fn show(&self, which: &Which, done: impl FnOnce(&str) -> String) -> Result<(), Failure> {
        if which.json {
            return output::json(self);
        }
        if self.changed {
            println!("{}", done(self.name()));
        } else {
            println!(
                "{} was {} already or is not concerned: nothing is changed",
                self.name(),
                self.state
            );
        }
        Ok(())
    }
}

impl Drain {
    /// # Errors
    /// When the master cannot be asked, or refuses.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn node")?).await?;
        let report = change(&admin, &self.which, pb::NodeChange::Drain, self.force).await?;
        if self.no_wait {
            return report.show(&self.which, |name| {
                format!("{name} is being drained: `cairn rebalance status` shows how far it is")
            });
        }
        empty::wait(&admin, &report.id, report.name(), self.which.json).await?;
        if self.which.json {
            return output::json(&report);
        }
        let name = report.name();
        println!("{name} is empty: `cairn node remove {name}` takes it out of the cluster");
        Ok(())
    }
}

impl Undrain {
    /// # Errors
    /// When the master cannot be asked, or refuses.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn node")?).await?;
        let report = change(&admin, &self.which, pb::NodeChange::Undrain, false).await?;
        let state = report.state;
        report.show(&self.which, |name| {
            format!("{name} is {state} again and gets its share back in the background")
        })
    }
}

impl Maintenance {
    /// # Errors
    /// When the master cannot be asked, or refuses.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn node")?).await?;
        let report = change(&admin, &self.which, pb::NodeChange::Maintenance, false).await?;
        report.show(&self.which, |name| {
            format!(
                "{name} is in maintenance: stop it whenever you like; its copies are not made elsewhere. \
                 Afterwards `cairn node resume {name}`"
            )
        })
    }
}

impl Resume {
    /// # Errors
    /// When the master cannot be asked, or refuses.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn node")?).await?;
        let report = change(&admin, &self.which, pb::NodeChange::Resume, false).await?;
        let state = report.state;
        report.show(&self.which, |name| {
            if report.name.is_empty() {
                format!("{name} may come back: it is used as soon as it reports")
            } else {
                format!("{name} is {state} again; what it missed is copied to it at once")
            }
        })
    }
}

impl Remove {
    /// # Errors
    /// When the master cannot be asked, or refuses.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let admin = Admin::connect(&connection.config("cairn node")?).await?;
        let report = change(&admin, &self.which, pb::NodeChange::Remove, self.force).await?;
        report.show(&self.which, |name| {
            let lost = match report.chunks_lost {
                0 => String::new(),
                lost => format!(", and with it {}", units::plural(lost, "chunk")),
            };
            format!(
                "{name} ({}) is removed{lost}; a process that still serves it is refused, stop it",
                report.id
            )
        })
    }
}
