//! The floor under Cairn's data path: the same physical work without a file system.
//!
//! `write`: each chunk of 64 KiB is read and hashed once and sent over TCP to two sinks, processes of their
//! own; each hashes it again, compares, appends it to a segment, and syncs that before it says that it is
//! done. `read`: two sources send one half each of what was written; it is hashed and compared on arrival. `patch`: one chunk
//! after the other is read and hashed, has 4 KiB of it changed, and goes to two sinks, each of which syncs it; then a
//! third process syncs what would be said of it. All of them write where blocks have been written before.
//! Batches of 1 MiB, four chunks hashed in one go as Cairn does it, one thread in each process that writes or serves, two that read, no gRPC, no FUSE, no
//! index. `scripts/bench.sh --vs floor` runs it beside the others.

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use cairn_proto::ChunkId;

const USAGE: &str =
    "usage: cairn-bench-floor write SOURCE DIR DIR   a copy of the file SOURCE in either DIR
       cairn-bench-floor read DIR DIR           reads half of it from each
       cairn-bench-floor patch SOURCE COUNT DIR DIR DIR
                                                COUNT changes of 4 KiB anywhere in SOURCE, each synced
Prints the seconds that it took, and those of processors in all its processes.";

const CHUNK: usize = 64 * 1024;
/// Chunks sent at once.
const BATCH: usize = 16;
/// Chunks hashed in one go.
const HASHED: usize = 4;
const ID: usize = 32;
/// Bytes of a small write, and of what the third process is told of it.
const PATCH: usize = 4096;
const RECORD: usize = 256;
/// What a keeper or a journal writes over and over.
const RING: usize = 64 << 20;
/// What precedes the data of a batch: how many chunks it has, and their ids.
const HEAD: usize = 4 + BATCH * ID;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match *words {
        ["write", source, one, other] => measured(|| write(Path::new(source), [one, other])),
        ["read", one, other] => measured(|| read([one, other])),
        ["patch", source, count, one, other, third] => {
            measured(|| patch(Path::new(source), count.parse()?, [one, other], third))
        }
        ["keeper", directory] => keeper(Path::new(directory)),
        ["journal", directory] => journal(Path::new(directory)),
        ["sink", directory] => sink(Path::new(directory)),
        ["source", directory] => source(Path::new(directory)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn-bench-floor {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

/// Prints what `work` says that it took, and the processor time of this process and its children.
fn measured(work: impl FnOnce() -> Outcome<f64>) -> Outcome {
    let seconds = work()?;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').ok_or("a stat without a name")?.1;
    // Fields 14 to 17: user and system time of the process and of its children that have ended.
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(4).flat_map(str::parse::<u64>).sum();
    let used = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    writeln!(io::stdout(), "{seconds:.4} {:.2}", used.as_secs_f64())?;
    Ok(())
}

/// One batch as it travels: its head, then its data.
struct Batch(Vec<u8>);

impl Batch {
    fn new() -> Self {
        Self(vec![0; HEAD + BATCH * CHUNK])
    }

    /// Says that it has `count` chunks; the last batch has none.
    fn set_count(&mut self, count: usize) {
        self.0[..4].copy_from_slice(&(count as u32).to_le_bytes());
    }

    fn data(&self, count: usize) -> &[u8] {
        &self.0[HEAD..HEAD + count * CHUNK]
    }

    fn ids(&self, count: usize) -> &[u8] {
        &self.0[4..4 + count * ID]
    }

    fn send(&self, count: usize, to: &mut TcpStream) -> io::Result<()> {
        to.write_all(&self.0[..HEAD + count * CHUNK])
    }

    /// How many chunks have arrived and are what their ids say; none at the end.
    fn receive(&mut self, from: &mut TcpStream) -> Outcome<usize> {
        from.read_exact(&mut self.0[..HEAD])?;
        let count = u32::from_le_bytes(self.0[..4].try_into()?) as usize;
        let (head, data) = self.0.split_at_mut(HEAD);
        let named = head[4..4 + count * ID].chunks(HASHED * ID);
        for (data, named) in data[..count * CHUNK].chunks_mut(HASHED * CHUNK).zip(named) {
            from.read_exact(data)?;
            if ids_of(data).as_flattened() != named {
                return Err("a chunk is not what its id says".into());
            }
        }
        Ok(count)
    }
}

/// The ids of the chunks that `data` is a row of.
fn ids_of(data: &[u8]) -> Vec<[u8; ID]> {
    let chunks: Vec<_> = data.chunks(CHUNK).collect();
    ChunkId::of_each(&chunks).into_iter().map(|id| *id.as_bytes()).collect()
}

/// Sends all of `source` to a sink for each directory.
fn write(source: &Path, directories: [&str; 2]) -> Outcome<f64> {
    let file = File::open(source)?;
    let chunks = whole_chunks(&file)?;
    let [one, other] = directories;
    let mut sinks = [Peer::start("sink", one)?, Peer::start("sink", other)?];
    let mut batch = Batch::new();
    let began = Instant::now();
    for first in (0..chunks).step_by(BATCH) {
        let count = BATCH.min(chunks - first);
        for n in (0..count).step_by(HASHED) {
            let few = HASHED.min(count - n);
            let data = &mut batch.0[HEAD + n * CHUNK..][..few * CHUNK];
            file.read_exact_at(data, ((first + n) * CHUNK) as u64)?;
            // While they are in the processor's cache.
            let ids = ids_of(data);
            batch.0[4 + n * ID..][..few * ID].copy_from_slice(ids.as_flattened());
        }
        batch.set_count(count);
        for sink in &mut sinks {
            batch.send(count, &mut sink.stream)?;
        }
    }
    batch.set_count(0);
    for sink in &mut sinks {
        batch.send(0, &mut sink.stream)?;
    }
    for sink in &mut sinks {
        sink.stream.read_exact(&mut [0])?;
    }
    let seconds = began.elapsed().as_secs_f64();
    sinks.into_iter().try_for_each(Peer::end)?;
    Ok(seconds)
}

/// Reads one half from each of two sources.
fn read(directories: [&str; 2]) -> Outcome<f64> {
    let mut sources = Vec::new();
    for directory in directories {
        sources.push(Peer::start("source", directory)?);
    }
    let began = Instant::now();
    thread::scope(|scope| {
        let mut readers = Vec::new();
        for (n, source) in sources.iter_mut().enumerate() {
            readers.push(scope.spawn(move || -> Outcome {
                source.stream.write_all(&[n as u8])?;
                let mut batch = Batch::new();
                while batch.receive(&mut source.stream)? > 0 {}
                Ok(())
            }));
        }
        readers.into_iter().try_for_each(|r| r.join().map_err(|_| "a reader has died")?)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    sources.into_iter().try_for_each(Peer::end)?;
    Ok(seconds)
}

/// `count` synced changes, spread over `source`, whose own bytes stay.
fn patch(source: &Path, count: usize, keepers: [&str; 2], third: &str) -> Outcome<f64> {
    let file = File::open(source)?;
    let chunks = whole_chunks(&file)?;
    let [one, other] = keepers;
    let mut keepers = [Peer::start("keeper", one)?, Peer::start("keeper", other)?];
    let mut journal = Peer::start("journal", third)?;
    let mut batch = Batch::new();
    batch.set_count(1);
    let began = Instant::now();
    for n in 0..count {
        let data = &mut batch.0[HEAD..HEAD + CHUNK];
        // A stride without a common divisor with most lengths: all over the file.
        file.read_exact_at(data, ((n * 7_919 % chunks) * CHUNK) as u64)?;
        let before = ids_of(data);
        data[..PATCH].fill(n as u8);
        data[..ID].copy_from_slice(before.as_flattened());
        let after = ids_of(data);
        batch.0[4..4 + ID].copy_from_slice(after.as_flattened());
        for keeper in &mut keepers {
            batch.send(1, &mut keeper.stream)?;
        }
        for keeper in &mut keepers {
            keeper.stream.read_exact(&mut [0])?;
        }
        journal.stream.write_all(&[n as u8; RECORD])?;
        journal.stream.read_exact(&mut [0])?;
    }
    let seconds = began.elapsed().as_secs_f64();
    [journal].into_iter().chain(keepers).try_for_each(Peer::end)?;
    Ok(seconds)
}

/// A file of [`RING`] bytes all of which have been written.
fn ring(directory: &Path) -> Outcome<File> {
    let file = File::create(segment(directory))?;
    file.write_all_at(&vec![0; RING], 0)?;
    file.sync_all()?;
    Ok(file)
}

/// Syncs each batch.
fn keeper(directory: &Path) -> Outcome {
    let (file, mut batch, mut at) = (ring(directory)?, Batch::new(), 0);
    let mut stream = accepted()?;
    while !ended(&stream)? {
        let count = batch.receive(&mut stream)?;
        file.write_all_at(batch.data(count), (at % RING) as u64)?;
        file.sync_data()?;
        at += count * CHUNK;
        stream.write_all(&[1])?;
    }
    Ok(())
}

/// Syncs each record.
fn journal(directory: &Path) -> Outcome {
    let (file, mut record, mut at) = (ring(directory)?, [0; RECORD], 0);
    let mut stream = accepted()?;
    while !ended(&stream)? {
        stream.read_exact(&mut record)?;
        file.write_all_at(&record, (at % RING) as u64)?;
        file.sync_data()?;
        at += RECORD;
        stream.write_all(&[1])?;
    }
    Ok(())
}

/// Whether the other end has closed it. Waits for that or for something to read.
fn ended(stream: &TcpStream) -> io::Result<bool> {
    Ok(stream.peek(&mut [0])? == 0)
}

fn whole_chunks(file: &File) -> Outcome<usize> {
    let len = usize::try_from(file.metadata()?.len())?;
    if len % CHUNK == 0 {
        Ok(len / CHUNK)
    } else {
        Err("its length is no multiple of 64 KiB".into())
    }
}

/// A process of the other kind, and the connection to it.
struct Peer {
    process: Child,
    stream: TcpStream,
}

impl Peer {
    fn start(role: &str, directory: &str) -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut process = command.args([role, directory]).stdout(Stdio::piped()).spawn()?;
        let mut port = String::new();
        let out = process.stdout.take().ok_or("no output to read from")?;
        BufReader::new(out).read_line(&mut port)?;
        let stream = TcpStream::connect(("127.0.0.1", port.trim().parse()?))?;
        stream.set_nodelay(true)?;
        Ok(Self { process, stream })
    }

    fn end(mut self) -> Outcome {
        drop(self.stream);
        if self.process.wait()?.success() { Ok(()) } else { Err("a peer has failed".into()) }
    }
}

/// The first connection to a port that is printed.
fn accepted() -> Outcome<TcpStream> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn segment(directory: &Path) -> PathBuf {
    directory.join("segment")
}

fn ids(directory: &Path) -> PathBuf {
    directory.join("ids")
}

fn sink(directory: &Path) -> Outcome {
    let file = File::create(segment(directory))?;
    let mut stream = accepted()?;
    let (mut batch, mut at, mut known) = (Batch::new(), 0, Vec::new());
    loop {
        let count = batch.receive(&mut stream)?;
        if count == 0 {
            break;
        }
        file.write_all_at(batch.data(count), at)?;
        at += (count * CHUNK) as u64;
        known.extend_from_slice(batch.ids(count));
    }
    file.sync_data()?;
    stream.write_all(&[1])?;
    fs::write(ids(directory), known)?;
    Ok(())
}

fn source(directory: &Path) -> Outcome {
    let (file, known) = (File::open(segment(directory))?, fs::read(ids(directory))?);
    let chunks = whole_chunks(&file)?;
    let mut stream = accepted()?;
    let mut half = [0];
    stream.read_exact(&mut half)?;
    let middle = chunks / 2;
    let mine = if half == [0] { 0..middle } else { middle..chunks };
    let mut batch = Batch::new();
    for first in mine.clone().step_by(BATCH) {
        let count = BATCH.min(mine.end - first);
        file.read_exact_at(&mut batch.0[HEAD..HEAD + count * CHUNK], (first * CHUNK) as u64)?;
        batch.set_count(count);
        batch.0[4..4 + count * ID].copy_from_slice(&known[first * ID..][..count * ID]);
        batch.send(count, &mut stream)?;
    }
    batch.set_count(0);
    batch.send(0, &mut stream)?;
    Ok(())
}
