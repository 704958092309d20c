//! [`Files`]: the files in use, and [`Hold`], by which each handle keeps its file in use.
//!
//! A file is in the table while it has holders: open handles and opens that are under way. When the
//! last one goes, the master is told that the inode is no longer open here. That message is ordered
//! after everything before and before everything after, and it is sent under the table's lock; so an
//! open that begins later is executed later.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use cairn_proto::{Attr, FsError, Ino, pb};
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use super::{File, FileContext};

/// Uncommitted bytes older than this are written back though nobody asks.
const DIRTY_AGE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Slot {
    file: Arc<File>,
    holders: usize,
    /// Some open of it has succeeded, so the master counts it as open.
    opened: bool,
}

type Table = Mutex<HashMap<Ino, Slot>>;

/// See the module's head.
pub struct Files {
    context: Arc<FileContext>,
    table: Arc<Table>,
}

impl Files {
    /// No file is in use. Starts the timer that writes back what is old.
    pub fn new(context: FileContext) -> Self {
        let context = Arc::new(context);
        context.runtime.spawn(write_back_old(Arc::downgrade(&context)));
        Self { context, table: Arc::default() }
    }

    /// What all files share.
    pub fn context(&self) -> &Arc<FileContext> {
        &self.context
    }

    /// The file if it is in use.
    pub fn get(&self, ino: Ino) -> Option<Arc<File>> {
        lock(&self.table).get(&ino).map(|slot| Arc::clone(&slot.file))
    }

    /// Keeps `ino` in use; to be called before the master is asked to open it.
    pub fn hold(&self, ino: Ino) -> Hold {
        let mut table = lock(&self.table);
        let slot = table.entry(ino).or_insert_with(|| Slot {
            file: Arc::new(File::new(ino, Arc::clone(&self.context))),
            holders: 0,
            opened: false,
        });
        slot.holders += 1;
        Hold { file: Arc::clone(&slot.file), table: Arc::clone(&self.table), last_chance: false }
    }

    /// Whether `hold` is the only one of its file.
    pub fn is_last(&self, hold: &Hold) -> bool {
        lock(&self.table).get(&hold.file.ino()).is_none_or(|slot| slot.holders == 1)
    }

    /// `attr` with what this mount has written and not committed yet.
    pub fn merged(&self, attr: Attr) -> Attr {
        match self.get(attr.ino) {
            Some(file) => file.merged(attr),
            None => attr,
        }
    }

    /// Writes back every file.
    ///
    /// # Errors
    /// The first that a file reports.
    pub async fn flush_all(&self) -> Result<(), FsError> {
        let files = self.context.dirty_files();
        let results = join_all(files.iter().map(|file| file.flush())).await;
        results.into_iter().collect()
    }
}

/// Keeps a file in use until dropped.
pub struct Hold {
    file: Arc<File>,
    table: Arc<Table>,
    /// Made by the drop of another hold, which has flushed already.
    last_chance: bool,
}

impl Hold {
    /// The file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The master has answered an open of it.
    pub fn opened(&mut self) {
        if let Some(slot) = lock(&self.table).get_mut(&self.file.ino()) {
            slot.opened = true;
        }
    }

    /// What a handle leaves uncommitted (it was dropped half-way, or a mapping outlived it) is
    /// written back before the inode is released.
    fn flush_first(&self) {
        let ino = self.file.ino();
        let again = {
            let mut table = lock(&self.table);
            let Some(slot) = table.get_mut(&ino) else { return };
            slot.holders += 1;
            let (file, table) = (Arc::clone(&self.file), Arc::clone(&self.table));
            Self { file, table, last_chance: true }
        };
        self.file.context.runtime.spawn(async move {
            if let Err(error) = again.file.flush().await {
                tracing::error!(%ino, %error, "bytes written to a file that nobody has open any longer are lost");
            }
        });
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.last_chance && self.file.has_uncommitted() {
            self.flush_first();
        }
        let ino = self.file.ino();
        let mut table = lock(&self.table);
        let Some(slot) = table.get_mut(&ino) else { return };
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        let opened = slot.opened;
        table.remove(&ino);
        if opened {
            let op = pb::Release { inodes: vec![ino.get()] };
            self.file.context.session().post(pb::op::Kind::Release(op));
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", self.file.ino())
    }
}

fn lock(table: &Table) -> MutexGuard<'_, HashMap<Ino, Slot>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_back_old(context: Weak<FileContext>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(context) = context.upgrade() else { return };
        for file in context.dirty_files() {
            if file.dirty_for().is_some_and(|age| age >= DIRTY_AGE) {
                file.flush_in_background();
            }
        }
    }
}
