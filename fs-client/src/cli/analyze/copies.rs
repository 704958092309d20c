//! [`Copies`]: the chunks of all nodes in the order of their ids, a page of each node in memory.

use std::collections::{BTreeMap, VecDeque};

use cairn_proto::{ChunkId, limits::BATCH_CHUNKS};
use futures_util::future::join_all;

use super::Asked;

/// One node's list while it is read.
struct List {
    asked: Asked,
    page: VecDeque<(ChunkId, u32)>,
    after: Option<ChunkId>,
    end: bool,
}

impl List {
    /// Gets the next page when this one is used up; why that could not be had.
    async fn refill(&mut self) -> Option<String> {
        while self.page.is_empty() && !self.end {
            #[expect(clippy::cast_possible_truncation, reason = "4,096")]
            let listed = self.asked.node.list_chunks(self.after, BATCH_CHUNKS as u32).await;
            match listed {
                Ok((page, end)) => {
                    let rising = page.is_sorted_by(|a, b| a.0 < b.0);
                    if !rising || page.first().is_some_and(|(id, _)| Some(*id) <= self.after) {
                        self.end = true;
                        return Some("its list of chunks is not in order".to_owned());
                    }
                    self.after = page.last().map(|(id, _)| *id).or(self.after);
                    self.end = end || page.is_empty();
                    self.page = page.into();
                }
                Err(why) => {
                    self.end = true;
                    return Some(why.to_string());
                }
            }
        }
        None
    }
}

/// One chunk and the nodes that hold it.
pub(super) struct Copied {
    pub(super) id: ChunkId,
    pub(super) stored_len: u32,
    pub(super) nodes: Vec<String>,
}

/// See the head of this file.
pub(super) struct Copies {
    lists: Vec<List>,
    /// Nodes that stopped answering, and why. What they listed until then was counted.
    pub(super) broken: BTreeMap<String, String>,
}

impl Copies {
    pub(super) fn new(nodes: Vec<Asked>) -> Self {
        let list = |asked| List { asked, page: VecDeque::new(), after: None, end: false };
        Self { lists: nodes.into_iter().map(list).collect(), broken: BTreeMap::new() }
    }

    /// The next chunk; `None` when all lists are at their end.
    pub(super) async fn next(&mut self) -> Option<Copied> {
        if self.lists.iter().any(|list| list.page.is_empty() && !list.end) {
            let failed = join_all(self.lists.iter_mut().map(List::refill)).await;
            for (list, why) in self.lists.iter().zip(failed) {
                if let Some(why) = why {
                    self.broken.insert(list.asked.name.clone(), why);
                }
            }
        }
        let id = self.lists.iter().filter_map(|l| l.page.front()).map(|(id, _)| *id).min()?;
        let mut copied = Copied { id, stored_len: 0, nodes: Vec::new() };
        for list in &mut self.lists {
            if let Some((_, len)) = list.page.pop_front_if(|(front, _)| *front == id) {
                copied.stored_len = copied.stored_len.max(len);
                copied.nodes.push(list.asked.name.clone());
            }
        }
        Some(copied)
    }
}
