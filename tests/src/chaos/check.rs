//! The independent checker: the journals say what must be there, a fresh mount says what is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use super::{
    journal::{self, Entry},
    model::{Doubt, FileId, Model, Node, World},
};

/// The longest that an action may take. It has several calls; each of them has the mount's deadline,
/// and a daemon that was stopped answers when it goes on.
const BOUND: Duration = Duration::from_secs(60);
/// What is shown of many complaints.
const SHOWN: usize = 25;

/// What the checker has seen of one client.
#[derive(Debug, Default)]
pub struct Seen {
    /// Actions that ended well.
    pub acknowledged: usize,
    /// Actions that failed or never ended.
    pub doubts: usize,
    /// Names that were compared.
    pub names: usize,
    /// The longest action.
    pub longest: Duration,
    /// What is wrong.
    pub wrong: Vec<String>,
}

/// Compares `root`, a client's directory in a fresh mount, with its journal.
///
/// # Errors
/// When one of them cannot be read.
pub fn client(journal: &Path, root: &Path) -> io::Result<Seen> {
    let entries = journal::read(journal)?;
    let mut seen = Seen::default();
    let model = replay(&entries, &mut seen);
    let found: BTreeSet<String> = fs::read_dir(root)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    certain(&model, root, &mut seen);
    for doubt in model.doubts() {
        settled(doubt, root, &mut seen);
    }
    let doubtful = model.doubtful_names();
    for name in &found {
        if !model.names().contains_key(name) && !doubtful.contains(name.as_str()) {
            seen.wrong.push(format!("{name} is there, and nobody made it or it was removed"));
        }
    }
    let last = entries.len().saturating_sub(1);
    for (n, entry) in entries.iter().enumerate() {
        if entry.took.is_none() && n != last {
            seen.wrong.push(format!("action {} never ended, others followed", entry.n));
        }
        if entry.took.is_some_and(|took| took > BOUND) {
            seen.wrong.push(format!("{} took {:?}", entry.action, entry.took));
        }
    }
    if seen.wrong.len() > SHOWN {
        let more = seen.wrong.len() - SHOWN;
        seen.wrong.truncate(SHOWN);
        seen.wrong.push(format!("and {more} more"));
    }
    Ok(seen)
}

fn replay(entries: &[Entry], seen: &mut Seen) -> Model {
    let mut model = Model::default();
    for entry in entries {
        seen.longest = seen.longest.max(entry.took.unwrap_or_default());
        match &entry.failure {
            None => {
                model.happened(&entry.action);
                seen.acknowledged += 1;
            }
            Some(why) => {
                if why.contains("first difference") {
                    seen.wrong.push(format!("{}: read {why}", entry.action));
                }
                model.in_doubt(&entry.action, why);
                seen.doubts += 1;
            }
        }
    }
    model
}

/// What is certain: each name with its bytes, links with the same inode, others with different ones.
fn certain(model: &Model, root: &Path, seen: &mut Seen) {
    let mut inodes: BTreeMap<u64, FileId> = BTreeMap::new();
    let mut files: BTreeMap<FileId, u64> = BTreeMap::new();
    for (name, node) in model.names() {
        seen.names += 1;
        let path = root.join(name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(e) => {
                seen.wrong.push(format!("{name} should be there: {e}"));
                continue;
            }
        };
        let Node::File(file) = node else {
            if !metadata.is_dir() {
                seen.wrong.push(format!("{name} should be a directory"));
            }
            continue;
        };
        let ino = metadata.ino();
        if *inodes.entry(ino).or_insert(*file) != *file || *files.entry(*file).or_insert(ino) != ino
        {
            seen.wrong.push(format!("{name} is a link of another file than it should be"));
        }
        match fs::read(&path) {
            Ok(bytes) => {
                if let Some(what) = difference(&bytes, model.bytes(*file)) {
                    seen.wrong.push(format!("{name}: {what}"));
                }
            }
            Err(e) => seen.wrong.push(format!("{name} cannot be read: {e}")),
        }
    }
}

fn difference(found: &[u8], wanted: &[u8]) -> Option<String> {
    let at = found.iter().zip(wanted).position(|(a, b)| a != b);
    (found != wanted).then(|| {
        let (found, wanted) = (found.len(), wanted.len());
        format!("{found} bytes instead of {wanted}, first difference: {at:?}")
    })
}

/// What is in doubt: one of the possible outcomes.
fn settled(doubt: &Doubt, root: &Path, seen: &mut Seen) {
    if doubt.worlds.iter().any(|world| holds(world, root)) {
        return;
    }
    let names: BTreeSet<&String> = doubt.worlds.iter().flatten().map(|(name, _)| name).collect();
    let shown: Vec<String> = names
        .into_iter()
        .map(|name| match fs::read(root.join(name)) {
            Ok(bytes) => format!("{name} has {} bytes", bytes.len()),
            Err(e) => format!("{name}: {e}"),
        })
        .collect();
    seen.wrong.push(format!("half of something ({}): {}", doubt.what, shown.join(", ")));
}

fn holds(world: &World, root: &Path) -> bool {
    world.iter().all(|(name, expect)| {
        let path = root.join(name);
        match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => expect.fits(None, false),
            Err(_) => false,
            Ok(metadata) if metadata.is_dir() => expect.fits(None, true),
            Ok(_) => fs::read(&path).is_ok_and(|bytes| expect.fits(Some(&bytes), false)),
        }
    })
}
