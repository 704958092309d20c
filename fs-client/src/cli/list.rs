//! `cairn list`: what is in the store, without a mount.

use std::{
    ffi::OsString,
    io::{self, BufWriter, IsTerminal, Write},
};

use cairn_proto::{Attr, FileKind, Timestamp};
use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    connection::Connection,
    failure::Failure,
    output::{self, JSON_VERSION, unwritable},
    progress::Progress,
    spool::{self, Spool},
    store::{Store, StorePath},
    walk::Walk,
};

/// List files and directories
#[derive(Args, Debug)]
pub struct List {
    /// Path in the store
    #[arg(default_value = "/", hide_default_value = true)]
    path: OsString,

    /// Show mode, links, owner, group, size and time
    #[arg(short, long)]
    long: bool,

    /// List everything below, with paths
    #[arg(short, long)]
    recursive: bool,

    /// Print JSON for programs instead of text
    #[arg(long)]
    json: bool,
}

/// Entries of a directory. `cairn list --json`
#[derive(Serialize, JsonSchema)]
pub struct ListReport {
    /// Version of this report. Grows only when a field changes its meaning or goes away.
    version: u32,
    /// As they come: a directory before what is in it, with `-r`.
    #[schemars(with = "Vec<ListEntry>")]
    entries: Spool<ListEntry>,
}

/// One entry.
#[derive(Serialize, Deserialize, JsonSchema)]
struct ListEntry {
    /// Path below the one that was asked for; bytes that are no UTF-8 are replaced.
    path: String,
    /// As `ls -l` shows it: `-rw-r--r--`; the first letter is the kind.
    mode: String,
    /// Names.
    links: u32,
    /// Owner.
    uid: u32,
    /// Group.
    gid: u32,
    /// Length in bytes.
    bytes: u64,
    /// Last change of the content, UTC: `2026-11-22 10:30:00`.
    modified: String,
}

impl List {
    /// # Errors
    /// When the path does not exist or the store does not answer.
    pub async fn run(self, connection: &Connection) -> Result<(), Failure> {
        let store = Store::open(connection, "cairn list").await?;
        let result = self.show(&store).await;
        store.end(result).await
    }

    async fn show(&self, store: &Store) -> Result<(), Failure> {
        if self.json {
            return output::json(&self.report(store).await?);
        }
        let mut out = BufWriter::new(io::stdout().lock());
        self.print(store, &mut out).await?;
        out.flush().map_err(unwritable)
    }

    async fn report(&self, store: &Store) -> Result<ListReport, Failure> {
        let path = StorePath::new(&self.path);
        let attr = store.resolve(&path).await?;
        let mut entries = Spool::default();
        let mut push = |name: &[u8], attr: &Attr| {
            entries.push(ListEntry {
                path: String::from_utf8_lossy(name).into_owned(),
                mode: mode_text(attr),
                links: attr.nlink,
                uid: attr.uid,
                gid: attr.gid,
                bytes: attr.size,
                modified: time_text(attr.mtime),
            })
        };
        if attr.kind() == FileKind::Directory {
            let base = if path.is_root() { 0 } else { path.as_bytes().len() + 1 };
            let mut walk = Walk::new(path, attr.ino, self.recursive);
            while let Some(entry) = walk.next(store).await? {
                let attr = match entry.item.attr {
                    Some(attr) => attr,
                    None => store.resolve(&entry.path).await?,
                };
                push(&entry.path.as_bytes()[base..], &attr).map_err(spool::full)?;
            }
        } else {
            push(path.name(), &attr).map_err(spool::full)?;
        }
        entries.finish().map_err(spool::full)?;
        Ok(ListReport { version: JSON_VERSION, entries })
    }

    async fn print(&self, store: &Store, out: &mut impl Write) -> Result<(), Failure> {
        let path = StorePath::new(&self.path);
        let attr = store.resolve(&path).await?;
        if attr.kind() != FileKind::Directory {
            return self.line(out, path.name(), Some(&attr), attr.kind());
        }
        // On a terminal the list itself shows how it goes on.
        let progress = Progress::counts(!io::stdout().is_terminal());
        progress.begin("listed", None);
        let base = if path.is_root() { 0 } else { path.as_bytes().len() + 1 };
        let mut walk = Walk::new(path, attr.ino, self.recursive);
        while let Some(entry) = walk.next(store).await? {
            let shown = &entry.path.as_bytes()[base..];
            self.line(out, shown, entry.item.attr.as_ref(), entry.item.kind)?;
            progress.add(1);
        }
        Ok(())
    }

    fn line(
        &self,
        out: &mut impl Write,
        name: &[u8],
        attr: Option<&Attr>,
        kind: FileKind,
    ) -> Result<(), Failure> {
        if let (true, Some(attr)) = (self.long, attr) {
            let (mode, nlink, time) = (mode_text(attr), attr.nlink, time_text(attr.mtime));
            write!(
                out,
                "{mode} {nlink:>3} {:>5} {:>5} {:>12} {time} ",
                attr.uid, attr.gid, attr.size
            )
            .map_err(unwritable)?;
        }
        out.write_all(name).map_err(unwritable)?;
        out.write_all(if kind == FileKind::Directory { b"/\n" } else { b"\n" }).map_err(unwritable)
    }
}

/// `drwxr-xr-x`
pub(super) fn mode_text(attr: &Attr) -> String {
    let kind = match attr.kind() {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
    };
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::from(kind);
    for (i, (bit, with_x, without_x)) in special.into_iter().enumerate() {
        let bits = attr.mode >> (6 - 3 * i);
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (attr.mode & bit != 0, bits & 1 != 0) {
            (true, true) => with_x,
            (true, false) => without_x,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `2026-11-22 10:30:00`, UTC.
pub(super) fn time_text(time: Timestamp) -> String {
    let (days, second) = (time.seconds.div_euclid(86_400), time.seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3600, second % 3600 / 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Days since 1970 to the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(civil_from_days(-1), (1969, 12, 31));
        assert_eq!(civil_from_days(11_016), (2000, 2, 29));
        assert_eq!(civil_from_days(20_779), (2026, 11, 22));
    }
}
