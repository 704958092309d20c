//! [`ClusterMap`]: the storage nodes, their states, and the parameters of placement.
//!
//! A map is immutable; a change makes a new one with a greater epoch. Everybody who holds the same
//! epoch computes the same targets (see [`crate::placement`]).

use crate::{
    Compression, Malformed, NodeId,
    limits::{NODES_MAX, PG_BITS_MAX, REPLICAS_MAX},
    pb,
};

/// What the master thinks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// Takes reads and writes.
    Up,
    /// Late or unreachable a moment ago: no new writes, read last.
    Suspect,
    /// Silent for longer.
    Down,
    /// Down for so long that its data is copied elsewhere.
    Out,
    /// Being emptied: readable, no new writes.
    Draining,
    /// Away on purpose: no writes, no repair.
    Maintenance,
}

impl NodeState {
    /// Whether new chunks go there.
    pub const fn takes_writes(self) -> bool {
        match self {
            Self::Up => true,
            Self::Suspect | Self::Down | Self::Out | Self::Draining | Self::Maintenance => false,
        }
    }

    /// Whether copies belong there in the long run.
    pub const fn is_home(self) -> bool {
        match self {
            Self::Up | Self::Suspect | Self::Down | Self::Maintenance => true,
            Self::Out | Self::Draining => false,
        }
    }

    /// Whether a read tries it among the first.
    pub const fn reads_first(self) -> bool {
        match self {
            Self::Up | Self::Draining => true,
            Self::Suspect | Self::Down | Self::Out | Self::Maintenance => false,
        }
    }

    /// One lower-case word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Out => "out",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }
}

/// One storage node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Who it is, whatever its address.
    pub id: NodeId,
    /// Name or address to connect to.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Relative capacity; 0 takes no data.
    pub weight: u32,
    /// Failure domain; copies go to distinct zones first.
    pub zone: String,
    /// State.
    pub state: NodeState,
    /// What people call it.
    pub name: String,
}

impl Node {
    /// `host:port`, an IPv6 address in brackets.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The cluster at one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMap {
    /// Grows with every change.
    pub epoch: u64,
    /// All nodes, also those that are down.
    pub nodes: Vec<Node>,
    /// A placement group is this many leading bits of a chunk id.
    pub pg_bits: u32,
    /// Copies wanted of every chunk, at least 1.
    pub replicas: u32,
    /// Copies without which a write fails, 1 to `replicas`.
    pub min_replicas: u32,
    /// What becomes of chunks before they are stored.
    pub compression: Compression,
}

impl ClusterMap {
    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|n| n.id == id)
    }
}

impl From<NodeState> for pb::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Up => Self::Up,
            NodeState::Suspect => Self::Suspect,
            NodeState::Down => Self::Down,
            NodeState::Out => Self::Out,
            NodeState::Draining => Self::Draining,
            NodeState::Maintenance => Self::Maintenance,
        }
    }
}

impl From<pb::NodeState> for NodeState {
    /// A state that is not given, or that only a newer version knows, is treated as suspect.
    fn from(state: pb::NodeState) -> Self {
        match state {
            pb::NodeState::Up => Self::Up,
            pb::NodeState::Unspecified | pb::NodeState::Suspect => Self::Suspect,
            pb::NodeState::Down => Self::Down,
            pb::NodeState::Out => Self::Out,
            pb::NodeState::Draining => Self::Draining,
            pb::NodeState::Maintenance => Self::Maintenance,
        }
    }
}

impl From<&Node> for pb::Node {
    fn from(n: &Node) -> Self {
        Self {
            node_id: n.id.to_string(),
            host: n.host.clone(),
            port: u32::from(n.port),
            weight: n.weight,
            zone: n.zone.clone(),
            state: pb::NodeState::from(n.state).into(),
            name: n.name.clone(),
        }
    }
}

impl TryFrom<&pb::Node> for Node {
    type Error = Malformed;

    fn try_from(n: &pb::Node) -> Result<Self, Malformed> {
        let port = u16::try_from(n.port)
            .ok()
            .filter(|p| *p != 0)
            .ok_or_else(|| Malformed::new("node", format!("port {}", n.port)))?;
        if n.host.is_empty() || n.host.len() > 255 || n.zone.len() > 255 || n.name.len() > 255 {
            return Err(Malformed::new("node", "host, zone or name has no sensible length"));
        }
        Ok(Self {
            id: n.node_id.parse()?,
            host: n.host.to_string(),
            port,
            weight: n.weight.min(1 << 20),
            zone: n.zone.to_string(),
            state: n.state().into(),
            name: n.name.to_string(),
        })
    }
}

impl From<&ClusterMap> for pb::ClusterMap {
    fn from(map: &ClusterMap) -> Self {
        Self {
            epoch: map.epoch,
            nodes: map.nodes.iter().map(pb::Node::from).collect(),
            pg_bits: map.pg_bits,
            replicas: map.replicas,
            min_replicas: map.min_replicas,
            compression: Some(map.compression.into()),
        }
    }
}

impl TryFrom<&pb::ClusterMap> for ClusterMap {
    type Error = Malformed;

    fn try_from(map: &pb::ClusterMap) -> Result<Self, Malformed> {
        let wrong = |why: String| Err(Malformed::new("cluster map", why));
        if map.nodes.len() > NODES_MAX {
            return wrong(format!("{} nodes", map.nodes.len()));
        }
        if map.pg_bits > PG_BITS_MAX {
            return wrong(format!("{} group bits", map.pg_bits));
        }
        if map.replicas == 0 || map.replicas > REPLICAS_MAX {
            return wrong(format!("{} replicas", map.replicas));
        }
        if map.min_replicas == 0 || map.min_replicas > map.replicas {
            return wrong(format!("{} of {} replicas required", map.min_replicas, map.replicas));
        }
        Ok(Self {
            epoch: map.epoch,
            nodes: map.nodes.iter().map(Node::try_from).collect::<Result<_, _>>()?,
            pg_bits: map.pg_bits,
            replicas: map.replicas,
            min_replicas: map.min_replicas,
            compression: map.compression.as_ref().map_or(Compression::Off, Compression::from),
        })
    }
}
