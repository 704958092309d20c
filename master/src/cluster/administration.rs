//! What people decide about the cluster. A decision is durable first, then known, then in the map; the
//! answer comes when it is in the map, so that who asks next sees it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cairn_proto::{ClusterMap, Compression, Node, NodeId, NodeState, limits::NODES_MAX};
use thiserror::Error;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Cluster,
    membership::{Known, Settings},
};
use crate::{
    engine::EngineError,
    format::Format,
    namespace::Namespace,
    op_thread::{CallError, OpQueue},
    tables::rows::ClusterRow,
};

/// How long a decision that is durable may take to get into the map.
const PUBLISHED: Duration = Duration::from_secs(5);

/// Why a decision is not taken.
#[derive(Debug, Error)]
pub(crate) enum Undecided {
    /// Nobody is called that.
    #[error("no node has the name or id {0}: `cairn node list` shows all")]
    Unknown(String),
    /// Several are called that.
    #[error("{count} nodes are called {name}: give the id, which `cairn node list` shows")]
    Ambiguous { name: String, count: usize },
    /// It cannot be stored.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What is stored cannot be read.
    #[error("the stored decisions cannot be read: {0}")]
    Engine(#[from] EngineError),
}

/// What a namespace knows of the cluster; what nobody has changed is as formatted.
pub(crate) fn known(namespace: &Namespace, format: &Format) -> Result<Known, EngineError> {
    let row = namespace.cluster_row()?;
    let or = |stored: u32, formatted| if stored == 0 { formatted } else { stored };
    Ok(Known {
        nodes: namespace.nodes()?,
        removed: row.removed.iter().filter_map(|id| Uuid::from_slice(id).ok()).collect(),
        settings: Settings {
            replicas: or(row.replicas, format.replicas),
            min_replicas: or(row.min_replicas, format.min_replicas),
            compression: row.compression.as_ref().map_or(format.compression, Compression::from),
        },
    })
}

/// Changes the stored decisions and whatever belongs to it; power-safe when this returns.
async fn store(
    ops: &OpQueue,
    change: impl FnOnce(&mut Namespace, &mut ClusterRow) + Send + 'static,
) -> Result<(), Undecided> {
    let work = move |namespace: &mut Namespace| {
        let mut row = namespace.cluster_row()?;
        change(namespace, &mut row);
        namespace.put_cluster_row(&row);
        Ok::<_, EngineError>(())
    };
    Ok(ops.call(true, work).await??)
}

fn removed(row: &ClusterRow) -> BTreeSet<Uuid> {
    row.removed.iter().filter_map(|id| Uuid::from_slice(id).ok()).collect()
}

fn set_removed(row: &mut ClusterRow, ids: &BTreeSet<Uuid>) {
    let kept = ids.iter().take(NODES_MAX);
    row.removed = kept.map(|id| bytes::Bytes::copy_from_slice(id.as_bytes())).collect();
}

impl Cluster {
    /// The node that people call `name`: its name or its id.
    pub(crate) fn find(&self, name: &str) -> Result<Node, Undecided> {
        let id = Uuid::parse_str(name).ok();
        self.with(|members, _| {
            let named = |node: &Node| Some(node.id.0) == id || node.name == name;
            let found: Vec<_> =
                members.members().map(|m| &m.node).filter(|node| named(node)).collect();
            match found[..] {
                [] => Err(Undecided::Unknown(name.to_owned())),
                [one] => Ok(one.clone()),
                _ => Err(Undecided::Ambiguous { name: name.to_owned(), count: found.len() }),
            }
        })
    }

    /// The id of a node that was removed.
    pub(crate) fn find_removed(&self, name: &str) -> Option<NodeId> {
        let id = Uuid::parse_str(name).ok()?;
        self.with(|members, _| members.removed().contains(&id)).then_some(NodeId(id))
    }

    /// The node shall be drained, be left alone, or (`None`) be used like any other.
    pub(crate) async fn decide(
        self: &Arc<Self>,
        ops: &OpQueue,
        node: &Node,
        wish: Option<NodeState>,
    ) -> Result<(), Undecided> {
        let row = Node { state: wish.unwrap_or(NodeState::Suspect), ..node.clone() };
        store(ops, move |namespace, _| namespace.put_node(&row)).await?;
        let id = node.id;
        self.with(|members, now| members.decide(id, wish, now));
        let decided = |state| matches!(state, NodeState::Draining | NodeState::Maintenance);
        self.published(|map| {
            map.node(id).is_none_or(|node| match wish {
                Some(state) => node.state == state,
                None => !decided(node.state),
            })
        })
        .await;
        Ok(())
    }

    /// The node is forgotten, and refused should it report.
    pub(crate) async fn remove(
        self: &Arc<Self>,
        ops: &OpQueue,
        id: NodeId,
    ) -> Result<(), Undecided> {
        store(ops, move |namespace, row| {
            let mut ids = removed(row);
            ids.insert(id.0);
            set_removed(row, &ids);
            namespace.remove_node(id);
        })
        .await?;
        self.with(|members, _| members.remove(id));
        self.published(|map| map.node(id).is_none()).await;
        Ok(())
    }

    /// A node that was removed may come back.
    pub(crate) async fn readmit(&self, ops: &OpQueue, id: NodeId) -> Result<(), Undecided> {
        store(ops, move |_, row| {
            let mut ids = removed(row);
            ids.remove(&id.0);
            set_removed(row, &ids);
        })
        .await?;
        self.with(|members, _| members.readmit(id));
        Ok(())
    }

    /// So many copies there shall be, and so new chunks shall be stored.
    pub(crate) async fn set_settings(
        self: &Arc<Self>,
        ops: &OpQueue,
        settings: Settings,
    ) -> Result<(), Undecided> {
        store(ops, move |_, row| {
            row.replicas = settings.replicas;
            row.min_replicas = settings.min_replicas;
            row.compression = Some(settings.compression.into());
        })
        .await?;
        self.with(|members, _| members.set_settings(settings));
        let Settings { replicas, min_replicas, compression } = settings;
        self.published(|map| {
            (map.replicas, map.min_replicas, map.compression)
                == (replicas, min_replicas, compression)
        })
        .await;
        Ok(())
    }

    /// Waits for a map that shows the decision. It is durable already: late is not wrong.
    async fn published(&self, shows: impl Fn(&ClusterMap) -> bool) {
        let mut maps = self.maps();
        let shown = timeout(PUBLISHED, maps.wait_for(|map| shows(map))).await;
        if shown.is_err() {
            tracing::warn!("a decision about the cluster is stored but not in the map yet");
        }
    }
}
