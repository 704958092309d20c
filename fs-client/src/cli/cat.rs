//! `cairn cat`: write files of the store to standard output.

use std::{ffi::OsString, io::Write};

use cairn_proto::{FileKind, FsError};
use clap::Args;

use super::{
    connection::Connection,
    failure::Failure,
    output::{end_without_reader, unwritable},
    progress::Progress,
    store::{Store, StorePath},
};
use crate::vfs::OpenMode;

/// Write files to standard output
#[derive(Args, Debug)]
pub struct Cat {
    /// Paths in the store
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

impl Cat {
    /// # Errors
    /// When a file cannot be read or standard output be written.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let store = Store::open(connection, "cairn cat").await?;
        let shown = self.show(&store).await;
        store.end(shown).await
    }

    async fn show(&self, store: &Store) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        for path in &self.paths {
            copy_out(store, &StorePath::new(path), &mut out, &Progress::bytes(false)).await?;
        }
        out.flush().map_err(unwritable)
    }
}

/// Writes the file at `path` to `out`.
///
/// # Errors
/// A sentence with the path.
pub(super) async fn copy_out(
    store: &Store,
    path: &StorePath,
    out: &mut impl Write,
    progress: &Progress,
) -> Result<(), Failure> {
    let attr = store.resolve(path).await?;
    let vfs = &store.vfs;
    let at = |e| Failure::at(path, e);
    match attr.kind() {
        FileKind::Regular => {}
        FileKind::Directory => return Err(at(FsError::IsDirectory)),
        FileKind::Symlink
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice
        | FileKind::BlockDevice => {
            return Err(Failure::new(format!(
                "{path} is no regular file: it has no bytes to read"
            )));
        }
    }
    let mode = OpenMode { read: true, ..OpenMode::default() };
    let opened = vfs.open(store.caller, attr.ino, mode).await.map_err(at)?;
    progress.begin(&path.to_string(), Some(opened.attr.size));
    let mut offset = 0;
    let result = loop {
        let piece = match vfs.read(opened.fh, offset, PIECE).await {
            Ok(piece) if piece.is_empty() => break Ok(()),
            Ok(piece) => piece,
            Err(e) => break Err(at(e)),
        };
        offset += piece.len() as u64;
        progress.add(piece.len() as u64);
        if let Err(e) = out.write_all(&piece) {
            end_without_reader(&e);
            break Err(Failure::new(format!("cannot write what {path} holds: {e}")));
        }
    };
    let released = vfs.release(opened.fh).await.map_err(at);
    result.and(released)
}
