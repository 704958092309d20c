//! Whether a node can be removed for good without losing anything.
//!
//! A node that answers is compared with the others group by group, and where they differ chunk by chunk. A
//! node that is away cannot be asked: then everything must be whole without it, and nothing may have been
//! written that only it can have.

use std::collections::BTreeSet;

use cairn_proto::{ChunkError, ChunkId, Node, limits::BATCH_CHUNKS};

use super::{
    Repair,
    clock::Clock,
    digests::{self, Digests},
};

/// What removing a node would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Everything it has is elsewhere too.
    Harmless,
    /// So many chunks are nowhere else.
    OnlyCopies(u64),
    /// That cannot be told, for this reason.
    Unknown(String),
}

impl Repair {
    /// Looks at all nodes.
    pub(crate) async fn may_remove(&self, node: &Node) -> Removal {
        let mut others: Vec<Node> =
            self.cluster.reachable().into_iter().map(|(node, _)| node).collect();
        let answers = others.iter().any(|other| other.id == node.id);
        others.retain(|other| other.id != node.id);
        if !answers {
            return self.without(node);
        }
        let counted = self.only_on(node, &others).await;
        match counted {
            Ok(0) => Removal::Harmless,
            Ok(chunks) => Removal::OnlyCopies(chunks),
            Err((asked, error)) => {
                Removal::Unknown(format!("{asked} could not be asked ({error})"))
            }
        }
    }

    /// Removing a node that is away.
    fn without(&self, node: &Node) -> Removal {
        let unknown = |why: String| Removal::Unknown(why);
        if let Some(why) = self.cluster.unsettled_because() {
            return unknown(why);
        }
        let away = |other: &Node| other.id != node.id;
        let reachable: BTreeSet<_> =
            self.cluster.reachable().into_iter().map(|(node, _)| node.id).collect();
        let map = self.cluster.map();
        if let Some(other) =
            map.nodes.iter().filter(|n| away(n)).find(|n| !reachable.contains(&n.id))
        {
            return unknown(format!("it is away, and so is {}", other.name));
        }
        if map.replicas < 2 {
            return unknown("it is away, and there is one copy of everything".to_owned());
        }
        let known = self.known().clone();
        if !self.status().known || known.status.groups_not_whole > 0 {
            return unknown(
                "it is away, and not everything that it had has been copied elsewhere yet \
                 (`cairn rebalance status`)"
                    .to_owned(),
            );
        }
        let witnessed = known.witnesses.values().filter(|nodes| nodes.contains(&node.id)).count();
        if witnessed > 0 {
            return unknown(format!(
                "it is away, and {witnessed} groups were written with too few copies while it was \
                 there (`cairn verify` tells whether anything is missing)"
            ));
        }
        Removal::Harmless
    }

    async fn only_on(&self, node: &Node, others: &[Node]) -> Result<u64, (String, ChunkError)> {
        let pg_bits = self.cluster.map().pg_bits;
        let mine = self.digests_of(node, pg_bits).await?;
        let mut theirs: Vec<(&Node, Digests)> = Vec::new();
        for other in others {
            theirs.push((other, self.digests_of(other, pg_bits).await?));
        }
        let mut alone = 0;
        for (group, digest) in &mine {
            let holders = || theirs.iter().filter(|(_, held)| held.contains_key(group));
            if holders().any(|(_, held)| held.get(group) == Some(digest)) {
                continue;
            }
            let holders: Vec<&Node> = holders().map(|(node, _)| *node).collect();
            alone += self.alone_in_group(node, *group, pg_bits, &holders).await?;
        }
        Ok(alone)
    }

    async fn digests_of(&self, node: &Node, pg_bits: u32) -> Result<Digests, (String, ChunkError)> {
        let asked = Clock::default().tick();
        let told = digests::ask(&self.chunks, node.clone(), pg_bits, asked).await;
        told.answer.map(|(digests, _)| digests).map_err(|error| (node.name.clone(), error))
    }

    /// How many chunks of `group` none of `holders` has.
    async fn alone_in_group(
        &self,
        node: &Node,
        group: u32,
        pg_bits: u32,
        holders: &[&Node],
    ) -> Result<u64, (String, ChunkError)> {
        let failed = |node: &Node| {
            let name = node.name.clone();
            move |error| (name, error)
        };
        let mut alone = 0;
        let mut after = None;
        loop {
            let page = self.chunks.list_group(node, (group, pg_bits), after, BATCH_CHUNKS).await;
            let page = page.map_err(failed(node))?;
            let mut missing: Vec<ChunkId> = page.chunks;
            for holder in holders {
                if missing.is_empty() {
                    break;
                }
                let has = self.chunks.has(holder, &missing).await.map_err(failed(holder))?;
                let pairs = missing.into_iter().zip(has);
                missing = pairs.filter(|(_, has)| has.is_none()).map(|(id, _)| id).collect();
            }
            alone += missing.len() as u64;
            match page.last {
                Some(last) => after = Some(last),
                None => return Ok(alone),
            }
        }
    }
}
