//! A disk that can lose its power: what was not synced is lost, kept or torn at random, by a seed.
//!
//! [`PowerCutDisk`] is a small FUSE file system in the test's own process, on which the data
//! directories of real masters and nodes are put. It also fails on request ([`Fault`]), cuts writes
//! short and fills up. It keeps two images of everything in memory: what programs see, and what is
//! on the platter; a sync copies from the first to the second.
//!
//! A power cut in a test: [`freeze`](PowerCutDisk::freeze) (nothing is answered any more, so nothing
//! later can be acknowledged), kill the processes, [`cut`](PowerCutDisk::cut), start them again.

mod adapter;
mod content;
mod disk;
mod faults;
mod names;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use fuser::{BackgroundSession, Config, MountOption};
use tempfile::TempDir;

pub use faults::{Fault, Step};
pub use names::SyncedBy;

use self::{
    adapter::{Adapter, Power, Shared},
    disk::Disk,
};
use crate::{mount::detach, rng::Rng};

/// A mounted fault disk. Unmounts when dropped.
#[derive(Debug)]
pub struct PowerCutDisk {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    rng: Rng,
    place: TempDir,
}

impl PowerCutDisk {
    /// An empty disk, mounted. `seed` decides what cuts leave.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn new(seed: u64, synced_by: SyncedBy) -> Self {
        let place = crate::scratch("powercut");
        let shared = Arc::new(Shared::new(Disk::new(synced_by)));
        let mut disk = Self { shared, session: None, rng: Rng::new(seed), place };
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// A directory on it, which is made when it is missing.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).expect("the disk takes a directory");
        path
    }

    fn mount(&mut self) {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powercut".into()), MountOption::NoAtime];
        let adapter = Adapter(Arc::clone(&self.shared));
        let session = fuser::spawn_mount(adapter, self.place.path(), &config);
        self.session = Some(session.expect("FUSE mounts a test disk (is /dev/fuse there?)"));
    }

    fn unmount(&mut self) {
        if let Some(session) = self.session.take() {
            detach(self.place.path());
            drop(session);
        }
    }

    /// From now on the disk answers nothing, so that no process acknowledges anything more. The
    /// processes that use it must be killed before [`cut`](Self::cut).
    pub fn freeze(&self) {
        self.shared.switch(Power::Frozen);
    }

    /// Those who wait for the frozen disk get EIO; the dead among them can go.
    pub fn abandon(&self) {
        self.shared.switch(Power::Off);
    }

    /// The power goes and comes back: mounted again with what the disk has kept.
    pub fn cut(&mut self) {
        self.abandon();
        self.unmount();
        {
            let mut state = self.shared.lock();
            state.0 = Power::On;
            state.1.cut(&mut self.rng);
        }
        self.mount();
    }

    /// Plans an error.
    pub fn plan(&self, fault: Fault) {
        self.shared.lock().1.faults.plan(fault);
    }

    /// How many operations have failed as planned.
    pub fn hits(&self) -> u64 {
        self.shared.lock().1.faults.hits
    }

    /// Writes longer than this write only so much.
    pub fn longest_write(&self, bytes: usize) {
        self.shared.lock().1.faults.longest_write = bytes;
    }

    /// From now on only so much fits on the disk.
    pub fn capacity(&self, bytes: u64) {
        self.shared.lock().1.faults.capacity = bytes;
    }

    /// No faults any more.
    pub fn heal(&self) {
        self.shared.lock().1.faults.clear();
    }
}

impl Drop for PowerCutDisk {
    fn drop(&mut self) {
        self.abandon();
        self.unmount();
    }
}
