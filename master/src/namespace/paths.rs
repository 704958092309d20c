//! Whole paths, for the calls that know no inodes: resolve, list all files, announce a file.

use bytes::Bytes;
use cairn_proto::{
    Attr, ChunkRef, FileKind, FsError, Ino,
    limits::{CHUNK_SIZE_MAX, FILE_SIZE_MAX, PATH_MAX},
};

use super::{
    Namespace,
    create::Blueprint,
    inodes::{FIRST_COOKIE, Inode, check_name},
};
use crate::tables::{
    keys::Table,
    rows::CookieRow,
    source::{self, Source},
};

/// Files in a page when the caller does not say, and at most.
const PAGE_FILES: u32 = 1000;
const PAGE_FILES_MAX: u32 = 10_000;
/// Entries looked at for a page: bounds the work where there are many directories and few files.
const PAGE_ENTRIES: u32 = 100_000;
/// Entries read at once.
const READ: usize = 256;

/// What came of announcing a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The file is there.
    Made,
    /// Nothing was done: the nodes have to be asked about the chunks again, which may have been
    /// collected since.
    VerifyAgain,
}

fn components(path: &str) -> Result<Vec<Bytes>, FsError> {
    if path.len() >= PATH_MAX {
        return Err(FsError::NameTooLong);
    }
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(|part| check_name(&Bytes::copy_from_slice(part.as_bytes()))).collect()
}

/// A directory on the way down and where its listing goes on.
struct Level {
    directory: u64,
    /// Length of the path of this directory, with its `/`.
    path_len: usize,
    last_cookie: u64,
    page: std::vec::IntoIter<(u64, CookieRow)>,
}

impl Namespace {
    /// The inode at `path` (with or without leading `/`; empty is the root). Symbolic links are not
    /// followed.
    pub fn resolve(&mut self, path: &str) -> Result<Attr, FsError> {
        let mut inode = self.inode(Ino::ROOT.get())?;
        for name in components(path)? {
            let directory = self.directory(inode.ino)?.ino;
            let entry = self.dentry(directory, &name)?.ok_or(FsError::NotFound)?;
            inode = self.inode(entry.ino)?;
        }
        Ok(Attr::try_from(inode.attr())?)
    }

    /// Makes the file `filename` (path without leading `/`; missing directories are made) of chunks
    /// that the nodes hold, in one piece; an existing file of that name is replaced. Every chunk but
    /// the last must be of the chunk size. `degraded` are the groups that have fewer copies than wanted,
    /// `gc_epoch` the least epoch that the nodes stamped the chunks with.
    pub fn announce(
        &mut self,
        filename: &str,
        refs: &[ChunkRef],
        degraded: &[u32],
        gc_epoch: u64,
    ) -> Result<Announced, FsError> {
        let mut names = components(filename)?;
        let name = names.pop().ok_or(FsError::InvalidArgument)?;
        if filename.ends_with('/') {
            return Err(FsError::IsDirectory);
        }
        if !self.group.engine().has_room() {
            return Err(FsError::NoSpace);
        }
        if !refs.is_empty() && !self.accepts_stamp(gc_epoch) {
            return Ok(Announced::VerifyAgain);
        }
        self.undoable(|namespace| {
            let directory = namespace.make_directories(&names)?;
            namespace.place_file(directory, &name, refs)?;
            namespace.note_degraded(degraded)?;
            Ok(Announced::Made)
        })
    }

    fn make_directories(&mut self, names: &[Bytes]) -> Result<u64, FsError> {
        let mut at = Ino::ROOT.get();
        for name in names {
            let mut parent = self.directory(at)?;
            at = match self.dentry(at, name)? {
                Some(entry) => self.directory(entry.ino)?.ino,
                None => {
                    let ino = self.ids.ino(self.group.engine().as_ref())?;
                    let blueprint = plain(FileKind::Directory, 0o755);
                    let inode = self.add_inode(ino, &mut parent, name, blueprint)?;
                    self.put_inode(&inode);
                    self.put_inode(&parent);
                    ino
                }
            };
        }
        Ok(at)
    }

    fn place_file(
        &mut self,
        directory: u64,
        name: &Bytes,
        refs: &[ChunkRef],
    ) -> Result<(), FsError> {
        let mut parent = self.directory(directory)?;
        if let Some(entry) = self.dentry(directory, name)? {
            let old = self.inode(entry.ino)?;
            if old.row.is_directory() {
                return Err(FsError::IsDirectory);
            }
            self.remove_entry(&mut parent, name, &entry);
            let now = self.now();
            self.drop_name(old, now)?;
        }
        let ino = self.ids.ino(self.group.engine().as_ref())?;
        let mut inode = self.add_inode(ino, &mut parent, name, plain(FileKind::Regular, 0o644))?;
        self.put_inode(&parent);
        self.fill(&mut inode, refs)?;
        self.put_inode(&inode);
        Ok(())
    }

    fn fill(&mut self, inode: &mut Inode, refs: &[ChunkRef]) -> Result<(), FsError> {
        let whole = |chunk: &ChunkRef| chunk.logical_len == self.chunk_size;
        let fits = |chunk: &ChunkRef| {
            chunk.logical_len > 0
                && chunk.logical_len <= self.chunk_size
                && chunk.stored_len <= CHUNK_SIZE_MAX
        };
        if let Some((last, others)) = refs.split_last()
            && !(others.iter().all(whole) && fits(last))
        {
            return Err(FsError::InvalidArgument);
        }
        let size: u64 = refs.iter().map(|chunk| u64::from(chunk.logical_len)).sum();
        if size > FILE_SIZE_MAX {
            return Err(FsError::TooBig);
        }
        let slots: Vec<_> = refs.iter().copied().map(Some).collect();
        let before = (inode.row.size, inode.row.allocated);
        self.put_refs(inode, 0, &slots)?;
        inode.row.size = size;
        self.count_change(before, &inode.row);
        self.charge_change(before.1, inode)?;
        Ok(())
    }

    /// Full paths (no leading `/`) of up to `page` regular files after `token` (empty: from the
    /// start), and the token of the next page; empty when that was all. A page may be short, even
    /// empty, without being the last. Bytes of names that are no UTF-8 are replaced.
    pub fn list_files(&mut self, token: &str, page: u32) -> Result<(Vec<String>, String), FsError> {
        let wanted = if page == 0 { PAGE_FILES } else { page.min(PAGE_FILES_MAX) } as usize;
        let (mut levels, mut path) = self.descend(token)?;
        let mut files = Vec::new();
        let mut looked_at = 0;
        while let Some(level) = levels.last_mut() {
            path.truncate(level.path_len);
            let Some((cookie, row)) = level.page.next() else {
                if !self.refill(level)? {
                    levels.pop();
                }
                continue;
            };
            if files.len() == wanted || looked_at == PAGE_ENTRIES {
                let cookies: Vec<_> = levels.iter().map(|l| l.last_cookie.to_string()).collect();
                return Ok((files, cookies.join(".")));
            }
            looked_at += 1;
            level.last_cookie = cookie;
            let name = String::from_utf8_lossy(&row.name);
            match FileKind::from_mode(row.kind) {
                Some(FileKind::Regular) => files.push(format!("{path}{name}")),
                Some(FileKind::Directory) => {
                    path.push_str(&name);
                    path.push('/');
                    levels.push(Level {
                        directory: row.ino,
                        path_len: path.len(),
                        last_cookie: 0,
                        page: Vec::new().into_iter(),
                    });
                }
                _ => {}
            }
        }
        Ok((files, String::new()))
    }

    /// Reads on in a directory; false at its end.
    fn refill(&mut self, level: &mut Level) -> Result<bool, FsError> {
        let from = level.last_cookie.saturating_add(1).max(FIRST_COOKIE);
        let rows = self.group.page(&Table::Cookies.of_from(level.directory, from), READ)?;
        let decode = |(key, value): (Bytes, Bytes)| {
            Ok::<_, FsError>((source::second(&key)?, source::decode(&key, value)?))
        };
        let page: Vec<_> = rows.into_iter().map(decode).collect::<Result<_, _>>()?;
        let more = !page.is_empty();
        level.page = page.into_iter();
        Ok(more)
    }

    /// Finds the place that a token names. Where a directory on the way is gone, the listing goes on
    /// behind it.
    fn descend(&mut self, token: &str) -> Result<(Vec<Level>, String), FsError> {
        let level = |directory, path_len, last_cookie| Level {
            directory,
            path_len,
            last_cookie,
            page: Vec::new().into_iter(),
        };
        let mut path = String::new();
        let mut levels = Vec::new();
        let mut directory = Ino::ROOT.get();
        let cookies: Vec<u64> = token
            .split('.')
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().map_err(|_| FsError::InvalidArgument))
            .collect::<Result<_, _>>()?;
        let mut cookies = cookies.into_iter().peekable();
        loop {
            let cookie = cookies.next().unwrap_or(0);
            levels.push(level(directory, path.len(), cookie));
            if cookies.peek().is_none() {
                return Ok((levels, path));
            }
            let key = crate::tables::keys::cookie(directory, cookie);
            let row: Option<CookieRow> = source::row(&mut self.group, &key)?;
            match row.filter(|row| FileKind::from_mode(row.kind) == Some(FileKind::Directory)) {
                None => return Ok((levels, path)),
                Some(row) => {
                    path.push_str(&String::from_utf8_lossy(&row.name));
                    path.push('/');
                    directory = row.ino;
                }
            }
        }
    }
}

/// An inode that belongs to nobody in particular.
const fn plain(kind: FileKind, permissions: u32) -> Blueprint {
    Blueprint { kind, permissions, masked: 0, uid: 0, gid: 0, rdev: 0, target: Bytes::new() }
}
