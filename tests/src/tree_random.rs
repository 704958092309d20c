//! Trees as people have them, and worse: odd names, links, empty files, holes, deep directories,
//! strange modes and times, attributes, contents that repeat.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStringExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

use crate::Rng;

/// Lengths around the borders of pages, chunks and manifest segments.
const LENGTHS: [u64; 16] = [
    0, 1, 100, 4095, 4096, 4097, 65_535, 65_536, 65_537, 131_072, 200_001, 8_388_607, 8_388_608,
    8_388_609, 10, 3000,
];

/// How large a tree is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Regular files.
    pub files: usize,
    /// Directories besides the root.
    pub directories: usize,
    /// Most bytes of a file with random length.
    pub largest: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { files: 400, directories: 40, largest: 300_000 }
    }
}

/// Makes a tree at `root`, which must not exist. Every kind of oddity is in it at least once.
///
/// # Panics
/// When the file system below does not take it.
pub fn make(root: &Path, shape: Shape, rng: &mut Rng) {
    fs::create_dir(root).expect("the tree's root is new");
    let mut directories = vec![root.to_owned()];
    for n in 0..shape.directories {
        let parent = directories[rng.index(directories.len())].clone();
        let path = parent.join(name(n, rng));
        if fs::create_dir(&path).is_ok() {
            directories.push(path);
        }
    }
    directories.push(deep(root));
    let mut files: Vec<PathBuf> = Vec::new();
    for n in 0..shape.files {
        let path = directories[rng.index(directories.len())].join(name(n, rng));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match rng.below(20) {
            0 if !files.is_empty() => {
                let existing = &files[rng.index(files.len())];
                fs::hard_link(existing, &path).expect("a second name for a file");
            }
            1 => make_symlink(&path, rng),
            2 if !files.is_empty() => {
                let existing = &files[rng.index(files.len())];
                fs::copy(existing, &path).expect("a second file with the same content");
                files.push(path);
            }
            _ => {
                make_file(&path, n, shape.largest, rng);
                files.push(path);
            }
        }
    }
    oddities(root, rng);
    dress(&files, &directories, rng);
}

fn deep(root: &Path) -> PathBuf {
    let mut path = root.to_owned();
    for level in 0..40 {
        path.push(format!("level-{level}"));
        fs::create_dir(&path).expect("a directory in a directory");
    }
    path
}

fn name(n: usize, rng: &mut Rng) -> OsString {
    const PARTS: [&str; 14] = [
        "plain",
        "with space",
        " leading",
        "trailing ",
        "-dash",
        "new\nline",
        "tab\t",
        "quote'\"",
        "back\\slash",
        "ünïcödé",
        "日本語",
        "🪨",
        "dot.",
        "*?[glob]$HOME",
    ];
    let part = PARTS[rng.index(PARTS.len())];
    match rng.below(25) {
        0 => {
            let mut long = format!("{n}-").into_bytes();
            long.resize(255, b'x');
            OsString::from_vec(long)
        }
        1 => OsString::from_vec([format!("{n}-").as_bytes(), &[0xff, 0xfe, 0x80]].concat()),
        _ => format!("{part}-{n}").into(),
    }
}

fn make_symlink(path: &Path, rng: &mut Rng) {
    let long = "x/".repeat(1900);
    let targets = ["../plain-1", "/nowhere/at/all", ".", "dangling \u{fc}", &long];
    symlink(targets[rng.index(targets.len())], path).expect("a symbolic link");
}

fn make_file(path: &Path, n: usize, largest: u64, rng: &mut Rng) {
    let len =
        if n < LENGTHS.len() { LENGTHS[n] } else { rng.below(1 + rng.clone().below(largest)) };
    let mut file = File::create_new(path).expect("a new file");
    if rng.one_in(12) {
        let hole = rng.below(400_000);
        file.seek(SeekFrom::Start(hole)).expect("a file can be sought in");
    }
    #[expect(clippy::cast_possible_truncation, reason = "some megabytes")]
    let len = len as usize;
    let content =
        if rng.one_in(5) { b"the same again\n".repeat(len / 15 + 1) } else { rng.bytes(len) };
    file.write_all(&content[..len]).expect("the disk takes the content");
}

fn oddities(root: &Path, rng: &mut Rng) {
    let odd = root.join("odd");
    fs::create_dir_all(odd.join("empty directory")).expect("a directory");
    File::create(odd.join("empty")).expect("an empty file");
    File::create(odd.join("ends in a hole")).expect("a file").set_len(1_000_000).expect("a hole");
    make_symlink(&odd.join("link"), rng);
    fs::write(odd.join("one"), b"two names").expect("a file");
    fs::hard_link(odd.join("one"), root.join("other")).expect("a second name");
    mknodat(CWD, odd.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).expect("a fifo");
    for (file, mode) in [("m000", 0), ("m4755", 0o4755), ("m444", 0o444), ("m1777", 0o1777)] {
        let path = odd.join(file);
        fs::write(&path, file).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
}

/// Modes, times and attributes, after the contents, because those change them.
fn dress(files: &[PathBuf], directories: &[PathBuf], rng: &mut Rng) {
    const MODES: [u32; 6] = [0o644, 0o600, 0o755, 0o640, 0o444, 0o2755];
    for path in files {
        if rng.one_in(10) {
            let value = rng.bytes(40);
            setxattr(path, "user.cairn.test", &value, XattrFlags::empty()).expect("an attribute");
        }
        let mode = fs::Permissions::from_mode(MODES[rng.index(MODES.len())]);
        let file = File::options().read(true).open(path).expect("the file is there");
        file.set_modified(moment(rng)).expect("a time");
        file.set_permissions(mode).expect("a mode");
    }
    for path in directories.iter().rev() {
        File::open(path).expect("a directory").set_modified(moment(rng)).expect("a time");
    }
}

fn moment(rng: &mut Rng) -> SystemTime {
    let nanos = rng.below(1_000_000_000);
    match rng.below(20) {
        0 => SystemTime::UNIX_EPOCH - Duration::from_secs(86_400 * 365),
        1 => SystemTime::UNIX_EPOCH + Duration::from_secs(5_000_000_000),
        #[expect(clippy::cast_possible_truncation, reason = "below a billion")]
        _ => SystemTime::UNIX_EPOCH + Duration::new(rng.below(1_700_000_000), nanos as u32),
    }
}
