//! `cairn info`: one file, its chunks, and the state of every copy of them.
//!
//! [`content`] reads the list of chunks page by page and asks the nodes for each page; [`report`] is the
//! result, [`text`] shows it.

mod content;
pub mod report;
mod text;

use std::ffi::OsString;

use cairn_proto::{Attr, FileKind, FsError, pb};
use clap::Args;

use self::{
    content::Nodes,
    report::{FileInfo, InfoReport},
};
use super::{
    connection::Connection,
    failure::Failure,
    local_path,
    output::{self, JSON_VERSION},
    progress::Progress,
    store::{Store, StorePath},
};
use crate::rpc::Admin;

/// Show a file's attributes, its chunks and the state of their copies
#[derive(Args, Debug)]
pub struct Info {
    /// Paths in the store, or local paths inside a mount of it
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,

    /// List this many chunks of each file
    #[arg(long, value_name = "N", default_value_t = 10)]
    chunks: u64,

    /// List all chunks
    #[arg(long, conflicts_with = "chunks")]
    all: bool,

    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

impl Info {
    /// # Errors
    /// When a path does not exist or the master does not answer. A node that does not is part of the
    /// report.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let (connection, paths) = local_path::locate(&self.paths, connection)?;
        let store = Store::open(&connection, "cairn info").await?;
        let admin = Admin::connect(&connection.config("cairn info")?).await?;
        let report = self.report(&store, &admin, &paths).await;
        let report = store.end(report).await?;
        if self.json {
            return output::json(&report);
        }
        report.print()
    }

    async fn report(
        &self,
        store: &Store,
        admin: &Admin,
        paths: &[StorePath],
    ) -> Result<InfoReport, Failure> {
        let mut nodes = Nodes::new(admin).await?;
        let mut report = InfoReport { version: JSON_VERSION, files: Vec::new() };
        let progress = Progress::counts(!self.json);
        let listed = if self.all { u64::MAX } else { self.chunks };
        for path in paths {
            progress.begin("chunks", None);
            report.files.push(describe(store, &mut nodes, path, listed, &progress).await?);
        }
        Ok(report)
    }
}

async fn describe(
    store: &Store,
    nodes: &mut Nodes,
    path: &StorePath,
    listed: u64,
    progress: &Progress,
) -> Result<FileInfo, Failure> {
    let attr = store.resolve(path).await?;
    let mut info = FileInfo::new(path, &attr);
    match attr.kind() {
        FileKind::Regular => {
            let content = content::read(store, nodes, path, &attr, listed, progress).await?;
            info.content = Some(content);
        }
        FileKind::Symlink => {
            let target = read_link(store, &attr).await.map_err(|e| Failure::at(path, e))?;
            info.target = Some(String::from_utf8_lossy(&target).into_owned());
        }
        FileKind::Directory => info.entries = Some(entries(store, path, &attr).await?),
        FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {}
    }
    Ok(info)
}

async fn read_link(store: &Store, attr: &Attr) -> Result<Vec<u8>, FsError> {
    let op = pb::op::Kind::ReadLink(pb::ReadLink { ino: attr.ino.get() });
    match store.vfs.session().call(store.caller, op).await?.kind {
        pb::reply::Kind::LinkTarget(link) => Ok(link.target.to_vec()),
        other => Err(crate::vfs::answers::unexpected(&other)),
    }
}

async fn entries(store: &Store, path: &StorePath, attr: &Attr) -> Result<u64, Failure> {
    let (mut count, mut position) = (0, 0);
    loop {
        let page = store.entries(path, attr.ino, position).await?;
        let Some(last) = page.last() else { return Ok(count) };
        position = last.position;
        count += page.len() as u64;
    }
}
