//! Holes: files far larger than any disk, making and finding holes, copies by reference, and zeros
//! that take no space.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use cairn_tests::{Cluster, Rng, rng::scale, sh, within};
use rustix::{
    fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek},
    io::Errno,
};

const TIB: u64 = 1 << 40;
const CHUNK: u64 = 64 << 10;
/// The largest offset that the kernel has.
const LAST: u64 = i64::MAX as u64;

fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn data(file: &File, from: u64) -> Result<u64, Errno> {
    seek(file, SeekFrom::Data(from))
}

fn hole(file: &File, from: u64) -> Result<u64, Errno> {
    seek(file, SeekFrom::Hole(from))
}

fn read(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![7; len];
    let n = file.read_at(&mut bytes, offset).unwrap();
    bytes.truncate(n);
    bytes
}

#[test]
fn files_of_many_tib_are_as_quick_as_what_is_in_them() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let file = open(&mount.join("sparse"));
        file.set_len(4 * TIB).unwrap();
        assert_eq!(read(&file, 0, 100), [0; 100]);
        assert_eq!(read(&file, 3 * TIB - 5, 100), [0; 100]);
        assert_eq!((data(&file, 0), hole(&file, 5)), (Err(Errno::NXIO), Ok(5)));
        let places: Vec<u64> = (1..=200).map(|n| n * (TIB / 50) / CHUNK * CHUNK).collect();
        for place in &places {
            file.write_all_at(b"here", *place).unwrap();
        }
        file.write_all_at(b"end", LAST - 3).unwrap();
        file.sync_all().unwrap();
        assert_eq!(file.metadata().unwrap().len(), LAST);
        assert!(file.metadata().unwrap().blocks() < 1000);
        let mut at = 0;
        for place in &places {
            assert_eq!(data(&file, at), Ok(*place));
            assert_eq!(hole(&file, *place), Ok(place + CHUNK));
            assert_eq!(read(&file, place - 2, 8), b"\0\0here\0\0");
            at = place + CHUNK;
        }
        assert_eq!(data(&file, at), Ok(LAST / CHUNK * CHUNK));
        assert_eq!(hole(&file, LAST - 1), Ok(LAST));
        let grown = fallocate(&file, FallocateFlags::empty(), LAST - 10, 20);
        assert_eq!(grown, Err(Errno::FBIG));
        let everything = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, everything, TIB, LAST - TIB).unwrap();
        assert_eq!(data(&file, TIB), Err(Errno::NXIO));
        assert_eq!(read(&file, places[0], 4), b"here");
        assert_eq!(read(&file, LAST - 3, 3), [0; 3]);
        file.set_len(places[0] + 2).unwrap();
        file.set_len(2 * TIB).unwrap();
        assert_eq!(read(&file, places[0], 4), b"he\0\0");
        file.set_len(0).unwrap();
        assert_eq!(file.metadata().unwrap().blocks(), 0);
        drop(file);
        drop(mount);
        cluster.assert_fsck_clean();
    });
}

#[test]
fn zeros_take_no_space() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let zeros = vec![0; 1_000_000];
        let path = mount.join("zeros");
        fs::write(&path, &zeros).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.len(), meta.blocks()), (1_000_000, 0));
        let mut mixed = Rng::new(3).bytes(1_000_000);
        fs::write(&path, &mixed).unwrap();
        let full = fs::metadata(&path).unwrap().blocks();
        assert!((1_000_000 / 512..1_100_000 / 512).contains(&full), "{full} blocks");
        // Zeros over data, appended, and in pieces that only together fill a chunk.
        let file = open(&path);
        for piece in mixed[CHUNK as usize..5 * CHUNK as usize].chunks_mut(3000) {
            piece.fill(0);
        }
        for at in (CHUNK..5 * CHUNK).step_by(3000) {
            let len = 3000.min(5 * CHUNK - at) as usize;
            file.write_all_at(&zeros[..len], at).unwrap();
        }
        file.sync_all().unwrap();
        assert_eq!((data(&file, CHUNK), hole(&file, 0)), (Ok(5 * CHUNK), Ok(CHUNK)));
        assert_eq!(fs::metadata(&path).unwrap().blocks(), full - 4 * CHUNK / 512);
        sh(mount.path(), 30, "head -c 300000 /dev/zero >>zeros");
        assert_eq!(fs::metadata(&path).unwrap().len(), 1_300_000);
        mixed.resize(1_300_000, 0);
        drop(file);
        drop(mount);
        let mount = cluster.mount();
        assert!(fs::read(mount.join("zeros")).unwrap() == mixed);
    });
}

#[test]
fn what_was_written_a_moment_ago_is_data_to_programs_that_look_for_holes() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let file = open(&mount.join("new"));
        file.set_len(10 * CHUNK).unwrap();
        file.write_all_at(b"x", 3 * CHUNK).unwrap();
        assert!(file.metadata().unwrap().blocks() > 0, "a file with data in memory has blocks");
        assert_eq!((data(&file, 0), hole(&file, 3 * CHUNK)), (Ok(3 * CHUNK), Ok(4 * CHUNK)));
    });
}

#[test]
fn cp_tar_and_du_know_holes() {
    within(180, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let script = "
            truncate -s 2T big; printf middle | dd of=big bs=1 seek=1T conv=notrunc status=none
            [ $(du -k big | cut -f1) -le 64 ] && [ $(du -k --apparent-size big | cut -f1) = $((2 << 30)) ]
            cp --sparse=always big copy && cp -a big copy2 && cmp -i 1T -n 100 big copy2
            [ $(du -k copy | cut -f1) -le 64 ] && [ $(stat -c %s copy) = $((2 << 40)) ]
            [ \"$(dd if=copy bs=1 skip=1T count=6 status=none)\" = middle ]
            tar -Scf t.tar big && mkdir out && tar -xf t.tar -C out && [ $(du -k out/big | cut -f1) -le 64 ]
            [ \"$(dd if=out/big bs=1 skip=1T count=6 status=none)\" = middle ]
            (head -c 100000 /dev/urandom; head -c 3000000 /dev/zero; echo end) >dense
            cp --sparse=always dense thin && cmp dense thin && [ $(du -k thin | cut -f1) -lt 300 ]
            fallocate -l 1M made && [ $(stat -c %s made) = 1048576 ] && cmp -n 1048576 made /dev/zero
            rm big copy copy2";
        sh(mount.path(), 120, script);
    });
}

/// What fallocate(2) with these flags makes of a file.
fn apply(model: &mut Vec<u8>, flags: FallocateFlags, offset: usize, len: usize) {
    let end = offset + len;
    if !flags.contains(FallocateFlags::KEEP_SIZE) && model.len() < end {
        model.resize(end, 0);
    }
    if flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
        let (from, to) = (offset.min(model.len()), end.min(model.len()));
        model[from..to].fill(0);
    }
}

#[test]
fn any_mix_of_space_changes_and_copies_leaves_the_right_bytes() {
    const MODES: [FallocateFlags; 5] = [
        FallocateFlags::empty(),
        FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE),
    ];
    within(300, || {
        let cluster = Cluster::new();
        let mount = cluster.mount_with(&["--cache-size", "256KiB"]);
        let mut rng = Rng::of_run("space");
        let files = ["a", "b"].map(|name| open(&mount.join(name)));
        let mut models = [Vec::new(), Vec::new()];
        for step in 0..1000 * scale() {
            let which = rng.index(2);
            let (offset, mut len) = (rng.index(600_000), 1 + rng.index(300_000));
            let (mut offset, aligned) = (offset, rng.one_in(3));
            if aligned {
                let chunk = CHUNK as usize;
                (offset, len) = (offset / chunk * chunk, len.div_ceil(chunk) * chunk);
            }
            match rng.below(9) {
                0 => {
                    files[which].set_len(offset as u64).unwrap();
                    models[which].resize(offset, 0);
                }
                1..=3 => {
                    let bytes = rng.bytes(len);
                    files[which].write_all_at(&bytes, offset as u64).unwrap();
                    let end = models[which].len().max(offset + len);
                    models[which].resize(end, 0);
                    models[which][offset..offset + len].copy_from_slice(&bytes);
                }
                4..=6 => {
                    let mode = MODES[rng.index(MODES.len())];
                    fallocate(&files[which], mode, offset as u64, len as u64).unwrap();
                    apply(&mut models[which], mode, offset, len);
                }
                _ => {
                    let to = rng.index(8) * CHUNK as usize + if aligned { 0 } else { 777 };
                    let wanted = len.min(models[which].len().saturating_sub(offset));
                    copy(&files[which], offset, &files[1 - which], to, len, wanted);
                    if wanted > 0 {
                        let bytes = models[which][offset..offset + wanted].to_vec();
                        let end = models[1 - which].len().max(to + wanted);
                        models[1 - which].resize(end, 0);
                        models[1 - which][to..to + wanted].copy_from_slice(&bytes);
                    }
                }
            }
            for (file, model) in files.iter().zip(&models) {
                assert_eq!(file.metadata().unwrap().len(), model.len() as u64, "step {step}");
                let at = rng.index(model.len() + 1);
                let expected = &model[at..model.len().min(at + 70_000)];
                assert!(read(file, at as u64, 70_000) == expected, "step {step}: read at {at}");
            }
        }
        drop(files);
        drop(mount);
        let mount = cluster.mount();
        for (name, model) in ["a", "b"].iter().zip(&models) {
            assert!(fs::read(mount.join(name)).unwrap() == *model, "{name} in another mount");
        }
        drop(mount);
        cluster.assert_fsck_clean();
    });
}

/// Copies until nothing comes any more; `wanted` bytes are there to be copied.
fn copy(from: &File, offset: usize, to: &File, at: usize, len: usize, wanted: usize) {
    let (mut offset, mut at, mut copied) = (offset as u64, at as u64, 0);
    loop {
        let n = copy_file_range(from, Some(&mut offset), to, Some(&mut at), len - copied).unwrap();
        copied += n;
        if n == 0 || copied == len {
            break;
        }
    }
    assert_eq!(copied, wanted);
}

#[test]
fn impossible_space_changes_and_copies_are_refused_as_linux_does() {
    within(120, || {
        let cluster = Cluster::new();
        let mount = cluster.mount();
        let file = open(&mount.join("file"));
        file.write_all_at(&[1; 200_000], 0).unwrap();
        for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
            assert_eq!(fallocate(&file, mode, 65_536, 65_536), Err(Errno::OPNOTSUPP));
        }
        let again = open(&mount.join("file"));
        let copy = |from: u64, to: u64, len: usize| {
            copy_file_range(&file, Some(&mut from.clone()), &again, Some(&mut to.clone()), len)
        };
        assert_eq!(copy(0, 65_536, 131_072), Err(Errno::INVAL), "a range over itself");
        assert_eq!(copy(200_000, 0, 10), Ok(0), "nothing lies behind the end");
        assert_eq!(copy(0, 262_144, 65_536), Ok(65_536), "within one file");
        assert_eq!(read(&file, 200_000, 1 << 20)[62_144..], [1; 65_536]);
        let reader = File::open(mount.join("file")).unwrap();
        let refused = copy_file_range(&file, Some(&mut 0), &reader, Some(&mut 70_000), 10);
        assert_eq!(refused, Err(Errno::BADF));
    });
}
