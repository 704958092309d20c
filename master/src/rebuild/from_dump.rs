//! `cairn-master load`: a dump becomes the data directory of a master.

use std::{fs::File, io::BufReader, path::Path, sync::Arc};

use thiserror::Error;

use crate::{
    dump::{
        frames::{DumpError, Frames, altered},
        load::{Least, LoadError, Loader},
        rows::{Counts, Parser},
    },
    engine::{
        Engine,
        fjall::{FjallEngine, Options},
    },
    format::{self, Format, FormatError},
    namespace::Namespace,
    server,
};

/// Why a dump was not loaded: a sentence.
#[derive(Debug, Error)]
pub enum FromDumpError {
    /// The file.
    #[error("cannot load the dump {file}: {why}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The directory.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What the directory is formatted with.
    pub format: Format,
    /// When the dump was taken.
    pub taken_unix_ms: u64,
    /// Rows.
    pub rows: u64,
    /// Inodes among them.
    pub inodes: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Loaded {
    /// For programs.
    pub fn to_json(&self) -> String {
        let report = serde_json::json!({
            "version": 1,
            "fs_uuid": self.format.fs_uuid.to_string(),
            "taken_unix_ms": self.taken_unix_ms,
            "rows": self.rows,
            "inodes": self.inodes,
            "bytes": self.bytes,
        });
        serde_json::to_string_pretty(&report).expect("strings and numbers are always JSON")
    }
}

/// Makes `dir` the data directory of the file system in the dump `file`.
///
/// # Errors
/// When the dump is not whole, or the directory holds anything. Then nothing is left that serves.
pub fn load(dir: &Path, file: &Path) -> Result<Loaded, FromDumpError> {
    let mut frames = open(file)?;
    let format = frames.head.format().map_err(|why| wrong(file, why))?;
    let mut counts = Counts::default();
    format::format(dir, &format, |meta| {
        let engine =
            Arc::new(FjallEngine::open(meta, Options::default()).map_err(LoadError::from)?);
        counts = fill(&mut frames, engine, &format)
            .map_err(|error| FromDumpError::File { file: name(file), why: error.to_string() })?;
        Ok::<_, FillError>(())
    })?;
    Ok(loaded(&frames, format, &counts))
}

/// Reads the dump `file` as loading it would, and keeps nothing of it.
///
/// # Errors
/// When the dump is not whole.
pub fn check(file: &Path) -> Result<Loaded, FromDumpError> {
    let mut frames = open(file)?;
    let format = frames.head.format().map_err(|why| wrong(file, why))?;
    let mut loader = Loader::checking(format.chunk_size);
    read(&mut frames, &mut loader).map_err(|why| wrong(file, why))?;
    let counts = loader.counts().clone();
    frames.check(&counts).map_err(|why| wrong(file, why))?;
    Ok(loaded(&frames, format, &counts))
}

/// Why the engine could not be filled.
#[derive(Debug, Error)]
enum FillError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    File(#[from] FromDumpError),
}

fn name(file: &Path) -> String {
    file.display().to_string()
}

fn wrong(file: &Path, why: impl ToString) -> FromDumpError {
    FromDumpError::File { file: name(file), why: why.to_string() }
}

fn open(file: &Path) -> Result<Frames<BufReader<File>>, FromDumpError> {
    let opened = File::open(file).map_err(|e| wrong(file, DumpError::Io(e)))?;
    Frames::open(BufReader::with_capacity(1 << 20, opened)).map_err(|e| wrong(file, e))
}

fn loaded(frames: &Frames<BufReader<File>>, format: Format, counts: &Counts) -> Loaded {
    Loaded {
        format,
        taken_unix_ms: frames.head.taken_unix_ms,
        rows: counts.total(),
        inodes: counts.of(b'i'),
        bytes: frames.position(),
    }
}

fn read(frames: &mut Frames<BufReader<File>>, loader: &mut Loader<'_>) -> Result<(), LoadError> {
    let mut parser = Parser::default();
    loop {
        let at = frames.position();
        let Some(bytes) = frames.rows()? else { break };
        parser.push(&bytes);
        while let Some(row) = parser.row().map_err(|why| altered(at, why))? {
            loader.row(row)?;
        }
    }
    match parser.is_empty() {
        true => Ok(()),
        false => Err(altered(frames.position(), "the last row is not whole").into()),
    }
}

fn fill(
    frames: &mut Frames<BufReader<File>>,
    engine: Arc<FjallEngine>,
    format: &Format,
) -> Result<Counts, LoadError> {
    let mut loader = Loader::new(engine.as_ref(), format.chunk_size);
    read(frames, &mut loader)?;
    frames.check(loader.counts())?;
    let counts = loader.finish(Least::default())?;
    settle(engine, format)?;
    Ok(counts)
}

/// Opens the namespace once, as a start would: what cannot be opened is not called loaded.
pub(super) fn settle(engine: Arc<dyn Engine>, format: &Format) -> Result<(), LoadError> {
    let mut namespace = Namespace::open(engine, server::params(format))?;
    namespace.commit()?;
    namespace.syncer().sync()?;
    Ok(())
}
