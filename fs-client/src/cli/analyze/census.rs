//! Counts files, references, chunks and copies, and notes the first of each.

use std::collections::HashSet;

use cairn_proto::{FileKind, ManifestRun, pb};

use super::{
    Asked,
    copies::{Copied, Copies},
    report::{AnalyzeReport, ChunkRow, FileRow},
};
use crate::{
    cli::{
        failure::Failure,
        progress::Progress,
        reference_sort::{Counted, Merged, ReferenceSort},
        spool, units,
    },
    rpc::Admin,
};

/// Counts everything; at most `listed` chunks and files are listed.
///
/// # Errors
/// When the master cannot be asked, or the temporary directory is full. A node that stops answering is
/// noted in the report.
pub(super) async fn take(
    admin: &Admin,
    nodes: Vec<Asked>,
    listed: u64,
    report: &mut AnalyzeReport,
    progress: &Progress,
) -> Result<(), Failure> {
    let references = walk(admin, listed, report, progress).await?;
    let most = report.storage.iter().map(|node| node.chunks).max().unwrap_or(0);
    progress.begin("chunks", Some(most));
    let mut copies = Copies::new(nodes);
    compare(&mut copies, references, listed, report, progress).await?;
    let chunks = &mut report.chunks;
    chunks.not_counted.append(&mut copies.broken);
    chunks.complete = chunks.not_counted.is_empty();
    chunks.replication_factor = units::ratio(chunks.total, chunks.unique);
    chunks.compression_ratio = units::ratio(chunks.content_bytes, chunks.referenced_bytes);
    chunks.dedup_ratio = units::ratio(chunks.referenced_bytes, chunks.unique_bytes);
    report.distribution.finish().map_err(spool::full)?;
    report.manifest.finish().map_err(spool::full)
}

/// Walks all files; their references in the order of the chunks' ids.
async fn walk(
    admin: &Admin,
    listed: u64,
    report: &mut AnalyzeReport,
    progress: &Progress,
) -> Result<Merged, Failure> {
    progress.begin("files", Some(admin.status().await?.files));
    let mut sort = ReferenceSort::default();
    let mut linked = HashSet::new();
    let mut chunks_of_file = 0;
    let mut entries = admin.walk("", true).await?;
    while let Some(entry) = entries.next().await? {
        let attr = entry.attr.unwrap_or_default();
        match FileKind::from_mode(attr.mode) {
            Some(FileKind::Directory) => report.files.directories += 1,
            Some(FileKind::Regular) => {}
            // A special file with several names counts once as well.
            _ => report.files.others += u64::from(attr.nlink <= 1 || linked.insert(attr.ino)),
        }
        if FileKind::from_mode(attr.mode) != Some(FileKind::Regular) {
            continue;
        }
        // The other names of a file add nothing; its first entry decides.
        let known = attr.nlink > 1 && linked.contains(&attr.ino);
        for run in entry.runs {
            let run = ManifestRun::try_from(run)
                .map_err(|e| Failure::new(format!("/{}: {e}", entry.path)))?;
            for chunk in run.refs.into_iter().flatten() {
                chunks_of_file += 1;
                if !known {
                    report.chunks.references += 1;
                    report.chunks.referenced_bytes += u64::from(chunk.stored_len);
                    report.chunks.content_bytes += u64::from(chunk.logical_len);
                    *report.chunks.codecs.entry(chunk.codec.word()).or_default() += 1;
                    sort.push(chunk.id, 0, chunk.stored_len).map_err(spool::full)?;
                }
            }
        }
        if entry.more {
            continue;
        }
        if !known {
            count_file(report, &attr);
            if attr.nlink > 1 {
                linked.insert(attr.ino);
            }
            progress.add(1);
        }
        report.files.names += 1;
        let chunks = std::mem::take(&mut chunks_of_file);
        if report.manifest.len() < listed {
            let row = FileRow { path: format!("/{}", entry.path), chunks, bytes: attr.size };
            report.manifest.push(row).map_err(spool::full)?;
        }
    }
    sort.finish().map_err(spool::full)
}

fn count_file(report: &mut AnalyzeReport, attr: &pb::Attr) {
    report.files.files += 1;
    report.files.logical_bytes += attr.size;
}

/// Puts what the nodes hold and what the files need side by side.
async fn compare(
    copies: &mut Copies,
    mut references: Merged,
    listed: u64,
    report: &mut AnalyzeReport,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut next_reference = || references.next().transpose().map_err(spool::full);
    let mut copied = copies.next().await;
    let mut counted = next_reference()?;
    loop {
        let id = match (&copied, &counted) {
            (None, None) => return Ok(()),
            (Some(copied), None) => copied.id,
            (None, Some(counted)) => counted.id,
            (Some(copied), Some(counted)) => copied.id.min(counted.id),
        };
        let here = copied.take_if(|c| c.id == id);
        let needed = counted.take_if(|c| c.id == id);
        if here.is_some() {
            copied = copies.next().await;
            progress.add(1);
        }
        if needed.is_some() {
            counted = next_reference()?;
        }
        note(report, here, needed, listed)?;
    }
}

/// Counts one chunk: `here` are its copies, `needed` its references; one of them at least is there.
fn note(
    report: &mut AnalyzeReport,
    here: Option<Copied>,
    needed: Option<Counted>,
    listed: u64,
) -> Result<(), Failure> {
    let Some(id) = here.as_ref().map(|c| c.id).or(needed.map(|n| n.id)) else { return Ok(()) };
    let len = here.as_ref().map(|c| c.stored_len).or(needed.map(|n| n.stored_len)).unwrap_or(0);
    let replicas = here.map(|c| c.nodes).unwrap_or_default();
    let references = needed.map_or(0, |n| n.count);
    let chunks = &mut report.chunks;
    let bytes = u64::from(len);
    chunks.total += replicas.len() as u64;
    chunks.total_bytes += bytes * replicas.len() as u64;
    if !replicas.is_empty() {
        chunks.unique += 1;
        chunks.unique_bytes += bytes;
    }
    if references == 0 {
        chunks.unreferenced += 1;
        chunks.unreferenced_bytes += bytes;
    }
    let copies = u32::try_from(replicas.len()).unwrap_or(u32::MAX);
    *chunks.copies.entry(copies).or_default() += 1;
    if report.distribution.len() < listed {
        let row = ChunkRow { id: id.to_string(), bytes: len, replicas, references };
        report.distribution.push(row).map_err(spool::full)?;
    }
    Ok(())
}
