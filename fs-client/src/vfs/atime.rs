//! Times of reads: which reads count, and how they reach the master.
//!
//! The kernel leaves `atime` of a FUSE file system to the daemon. A read that counts is noted here, shown
//! at once in this mount's attributes, and sent to the master with others about once a second and at the
//! end. It costs no operation of its own; a time that gets lost on the way is no loss of data.
//!
//! Reads that the kernel answers from its page cache are not seen, so they do not count.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use cairn_proto::{Attr, Ino, Timestamp, pb, pb::op::Kind};
use tokio::time::{MissedTickBehavior, interval};

use super::{Caller, Vfs, open::OpenFile};
use crate::clock;

/// How often noted times are sent.
const PERIOD: Duration = Duration::from_secs(1);
/// `relatime` counts a read at least this often.
const DAY: i64 = 24 * 3600;
/// Times noted at most; further ones are left out.
const NOTED_MAX: usize = 65_536;
/// Times in one operation.
const BATCH: usize = 4096;

/// Which reads count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum AtimePolicy {
    /// The first after a change, and one a day: what Linux does unless told otherwise
    #[default]
    Relatime,
    /// None
    Noatime,
    /// All that are not answered from the kernel's page cache
    Strictatime,
}

impl AtimePolicy {
    /// Whether a read at `now` of an inode with these attributes counts.
    fn counts(self, attr: &Attr, now: Timestamp) -> bool {
        match self {
            Self::Noatime => false,
            Self::Strictatime => true,
            Self::Relatime => {
                attr.mtime >= attr.atime
                    || attr.ctime >= attr.atime
                    || now.seconds.saturating_sub(attr.atime.seconds) >= DAY
            }
        }
    }
}

#[derive(Debug, Default)]
struct Times {
    /// To be sent.
    noted: HashMap<Ino, Timestamp>,
    /// On the way to the master, or there: shown until answers that lack them have arrived.
    sent: HashMap<Ino, Timestamp>,
}

/// See the module's head. Nothing counts until a policy is set.
#[derive(Debug, Default)]
pub struct Atimes {
    policy: OnceLock<AtimePolicy>,
    times: Mutex<Times>,
}

impl Atimes {
    /// Notes a read now of an inode whose attributes were `attr` when it was last heard of. Answers the
    /// time when it counts.
    fn read(&self, attr: &Attr) -> Option<Timestamp> {
        let policy = *self.policy.get()?;
        let now = clock::now();
        // The second look knows of reads that the attributes do not tell of yet.
        if !policy.counts(attr, now) || !policy.counts(&self.shown(*attr), now) {
            return None;
        }
        let mut times = self.lock();
        if times.noted.len() < NOTED_MAX || times.noted.contains_key(&attr.ino) {
            times.noted.insert(attr.ino, now);
        }
        Some(now)
    }

    /// `attr` with the time of a read that the master may not know yet.
    pub(super) fn shown(&self, attr: Attr) -> Attr {
        if self.policy.get().is_none() {
            return attr;
        }
        let times = self.lock();
        let noted = times.noted.get(&attr.ino).or_else(|| times.sent.get(&attr.ino));
        Attr { atime: noted.map_or(attr.atime, |noted| attr.atime.max(*noted)), ..attr }
    }

    /// The time of the last read of `ino` is about to be set.
    pub(super) fn forget(&self, ino: Ino) {
        let mut times = self.lock();
        times.noted.remove(&ino);
        times.sent.remove(&ino);
    }

    /// What is to be sent now.
    fn take(&self) -> Vec<(Ino, Timestamp)> {
        let mut times = self.lock();
        times.sent = std::mem::take(&mut times.noted);
        times.sent.iter().map(|(ino, time)| (*ino, *time)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vfs {
    /// From now on reads count as `policy` says.
    pub fn keep_atimes(self: &Arc<Self>, policy: AtimePolicy) {
        if policy != AtimePolicy::Noatime && self.atimes.policy.set(policy).is_ok() {
            tokio::spawn(send_now_and_then(Arc::downgrade(self)));
        }
    }

    /// A read of an open file.
    pub(super) fn file_was_read(&self, open: &OpenFile) {
        if self.atimes.policy.get().is_some() && !open.mode.noatime {
            open.file().was_read(|attr| self.atimes.read(attr));
        }
    }

    /// A read of a directory or symbolic link.
    pub(super) fn other_was_read(&self, ino: Ino) {
        if self.atimes.policy.get().is_some()
            && let Some(attr) = self.inodes.last_told(ino)
        {
            self.atimes.read(&attr);
        }
    }

    /// Sends the times that have been noted.
    pub(super) async fn send_atimes(&self) {
        let times = self.atimes.take();
        for batch in times.chunks(BATCH) {
            let access = |(ino, time): &(Ino, Timestamp)| pb::Access {
                ino: ino.get(),
                atime: Some((*time).into()),
            };
            let accesses = batch.iter().map(access).collect();
            let op = Kind::Accessed(pb::Accessed { accesses });
            if let Err(error) = self.ask(Caller::default(), op).await {
                tracing::debug!(%error, "times of reads did not reach the master");
                return;
            }
        }
    }
}

async fn send_now_and_then(vfs: Weak<Vfs>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(vfs) = vfs.upgrade() else { return };
        vfs.send_atimes().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::inodes::tests::attr;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn attr_with(atime: i64, mtime: i64, ctime: i64) -> Attr {
        Attr { atime: at(atime), mtime: at(mtime), ctime: at(ctime), ..attr(1, 1, None) }
    }

    #[test]
    fn relatime_counts_the_first_read_after_a_change_and_one_a_day() {
        let counts = |attr| AtimePolicy::Relatime.counts(&attr, at(100));
        assert!(counts(attr_with(50, 60, 40)), "the content changed after the last read");
        assert!(counts(attr_with(50, 40, 60)), "the inode changed");
        assert!(counts(attr_with(50, 50, 50)), "a new file");
        assert!(!counts(attr_with(51, 50, 50)));
        assert!(counts(attr_with(100 - DAY, 5, 5)));
        assert!(!AtimePolicy::Noatime.counts(&attr_with(0, 1, 1), at(100)));
        assert!(AtimePolicy::Strictatime.counts(&attr_with(51, 50, 50), at(100)));
    }

    #[test]
    fn a_read_is_shown_until_the_master_has_it() {
        let atimes = Atimes::default();
        let old = attr_with(5, 5, 5);
        assert_eq!(atimes.read(&old), None, "no policy, no times");
        atimes.policy.set(AtimePolicy::Relatime).unwrap();
        let read = atimes.read(&old).unwrap();
        assert_eq!(atimes.shown(old).atime, read);
        assert_eq!(atimes.read(&old), None, "it has been read after its last change");
        assert_eq!(atimes.take(), [(old.ino, read)]);
        assert_eq!(atimes.shown(old).atime, read, "on its way");
        assert!(atimes.take().is_empty());
        assert_eq!(atimes.shown(old).atime, at(5));
        atimes.read(&old).unwrap();
        atimes.forget(old.ino);
        assert!(atimes.take().is_empty(), "it was set");
    }
}
