//! How many lists name each segment, for a batch of segments in each pass.

use super::{BATCH, Check, Stop};
use crate::{
    engine::Direction,
    namespace::Remedy,
    tables::{
        keys::{self, Table},
        rows::{ListRow, ReclaimRow, ShareRow},
        source,
    },
};

impl Check<'_> {
    pub(super) fn segments(&mut self) -> Result<(), Stop> {
        let reader = self.reader();
        let mut segments = reader.scan(Table::Segments.all(), Direction::Forward);
        loop {
            let mut batch: Vec<(u64, u64)> = Vec::new();
            for pair in segments.by_ref().take(BATCH) {
                let id = source::owner(&pair?.0)?;
                let share: Option<ShareRow> = source::row(&mut self.source, &keys::share(id))?;
                self.progress.segments += 1;
                batch.push((id, share.map_or(1, |row| row.users.max(1))));
            }
            if batch.is_empty() {
                return Ok(());
            }
            let mut found = vec![0u64; batch.len()];
            let mut count = |id: u64| {
                if let Ok(at) = batch.binary_search_by_key(&id, |(id, _)| *id) {
                    found[at] += 1;
                }
            };
            for pair in reader.scan(Table::Lists.all(), Direction::Forward) {
                let (key, value) = pair?;
                let row: ListRow = source::decode(&key, value)?;
                row.entries.iter().for_each(|entry| count(entry.segment));
            }
            for pair in reader.scan(Table::Reclaims.all(), Direction::Forward) {
                let (key, value) = pair?;
                let row: ReclaimRow = source::decode(&key, value)?;
                row.segments.into_iter().for_each(&mut count);
            }
            for ((segment, counted), found) in batch.into_iter().zip(found) {
                if counted != found {
                    let what =
                        format!("segment {segment} has {found} users, should have {counted}");
                    self.say_with(what, Remedy::Users { segment, counted, found });
                }
                self.step()?;
            }
        }
    }
}
