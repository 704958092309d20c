//! Paths that people give to verbs which ask the store without a mount: paths in the store, or local
//! paths that lead into a mount of it. The kernel's list of mounts decides; the mount itself is not
//! touched, so a dead one does no harm.

use std::{
    ffi::{OsStr, OsString},
    path::{Component, Path, PathBuf},
};

use super::{connection::Connection, failure::Failure, store::StorePath};
use crate::fuse::mount_table::{self, Mount};

/// Each of `paths` as a path in the store, and how to reach that store: where a path leads into a mount,
/// the master is the mount's.
///
/// # Errors
/// When the paths lead to different masters.
pub(super) fn locate(
    paths: &[OsString],
    connection: &Connection,
) -> Result<(Connection, Vec<StorePath>), Failure> {
    let mounts = mount_table::all();
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let mut connection = connection.clone();
    let mut chosen: Option<String> = None;
    let mut located = Vec::new();
    for path in paths {
        let Some((master, inside)) = within_mount(&mounts, &here, path) else {
            located.push(StorePath::new(path));
            continue;
        };
        if chosen.as_ref().is_some_and(|other| *other != master) {
            return Err(Failure::new(format!(
                "{} is in the store of the master at {master}, a path before it in another one: give \
                 paths of one store at a time",
                path.display()
            )));
        }
        located.push(inside);
        chosen = Some(master);
    }
    if let Some(master) = chosen {
        connection.master = master;
    }
    Ok((connection, located))
}

/// The mount that `path` is in, or that is there.
pub(super) fn mount_of(path: &Path) -> Option<Mount> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    covering(&mount_table::all(), &normal(&here.join(path))).cloned()
}

/// The mount that shows `absolute`.
fn covering<'a>(mounts: &'a [Mount], absolute: &Path) -> Option<&'a Mount> {
    let covering = mounts.iter().filter(|mount| absolute.starts_with(&mount.at));
    // The longest is the innermost; of several at one place the last is on top.
    covering.max_by_key(|mount| mount.at.as_os_str().len())
}

/// The master and the path in its store, when `path` leads into a mount of Cairn.
fn within_mount(mounts: &[Mount], here: &Path, path: &OsStr) -> Option<(String, StorePath)> {
    let absolute = normal(&here.join(path));
    let mount = covering(mounts, &absolute)?;
    if !mount.is_cairn() {
        return None;
    }
    let below = absolute.strip_prefix(&mount.at).ok()?;
    let master = mount.source.strip_prefix("cairn:").unwrap_or(&mount.source);
    Some((master.to_owned(), StorePath::new(mount.root.join(below).as_os_str())))
}

/// Without `.` and `..`, by the text alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => normal.push(part),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(at: &str, root: &str, kind: &str) -> Mount {
        Mount {
            device: "0:51".to_owned(),
            root: root.into(),
            at: at.into(),
            kind: kind.to_owned(),
            source: "cairn:127.0.0.1:9000".to_owned(),
            owner: None,
        }
    }

    #[test]
    fn local_paths_lead_into_the_innermost_mount() {
        let mounts = [
            mount("/", "/", "ext4"),
            mount("/mnt", "/", "fuse.cairn"),
            mount("/mnt/other", "/", "ext4"),
            mount("/bound", "/dir", "fuse.cairn"),
        ];
        let found = |here: &str, path: &str| {
            within_mount(&mounts, Path::new(here), OsStr::new(path)).map(|(_, p)| p.to_string())
        };
        assert_eq!(found("/home", "../mnt/./a").as_deref(), Some("/a"));
        assert_eq!(found("/mnt/dir", "a").as_deref(), Some("/dir/a"));
        assert_eq!(found("/", "bound/x").as_deref(), Some("/dir/x"));
        assert_eq!(found("/", "mnt").as_deref(), Some("/"));
        assert_eq!(found("/home", "/mnt/other/a"), None);
        assert_eq!(found("/home", "/dir/a"), None);
        assert_eq!(found("/home", "/mnttle"), None);
    }
}
