//! `cairn mkdir`: make directories without a mount.

use std::ffi::OsString;

use clap::Args;

use super::{
    connection::Connection,
    failure::Failure,
    store::{Store, StorePath},
};

/// Make directories, and those above them
#[derive(Args, Debug)]
pub struct Mkdir {
    /// Paths in the store
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

impl Mkdir {
    /// # Errors
    /// When a directory cannot be made.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let store = Store::open(connection, "cairn mkdir").await?;
        let made = self.make_all(&store).await;
        store.end(made).await
    }

    async fn make_all(&self, store: &Store) -> Result<(), Failure> {
        for path in &self.paths {
            store.make_dirs(&StorePath::new(path), 0o755).await?;
        }
        Ok(())
    }
}
