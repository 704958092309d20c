//! The command line of `cairn-master`: the only place that writes to standard output.

mod restore;

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write},
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use cairn_daemon::{
    documents, io_error::explain, log, memory, metrics::page, notify, program::Program, size::Size,
};
use cairn_proto::{Compression, handshake::Token, limits::CHUNK_SIZE_DEFAULT};
use clap::{Args, CommandFactory, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::{
    config::{
        BACKUP_GENERATIONS_DEFAULT, BACKUP_INTERVAL_DEFAULT, Config, DOWN_AFTER_DEFAULT,
        EngineKind, GC_INTERVAL_DEFAULT, LISTEN_DEFAULT, OUT_AFTER_DEFAULT,
        REPAIR_BANDWIDTH_DEFAULT, REPAIR_CONCURRENCY_DEFAULT, SAFE_MODE_GRACE_DEFAULT,
        SESSION_EXPIRY_DEFAULT, SUSPECT_AFTER_DEFAULT, SYNC_INTERVAL_DEFAULT,
    },
    format::{Format, PG_BITS_DEFAULT},
    rebuild::{from_dump, moment},
    server,
};

/// The master of a Cairn file system: keeps names, attributes and chunk lists, knows the storage nodes.
#[derive(Debug, Parser)]
#[command(name = "cairn-master", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a directory the data directory of a new, empty file system and print its UUID
    Format(FormatArgs),
    /// Serve the file system in a formatted directory until SIGTERM or Ctrl+C
    Serve(ServeArgs),
    /// Print what a directory was formatted with, without serving it
    Info(InfoArgs),
    /// Make a directory the data directory of the file system in a dump of `cairn meta dump`
    Load(LoadArgs),
    /// Make a directory the data directory of a lost master, from the backup that lies in its storage nodes
    RestoreFromNodes(restore::RestoreArgs),
    /// Write man pages and completions into a directory
    #[command(hide = true)]
    Documents {
        /// Where to
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct FormatArgs {
    /// Directory to make; must not exist or be empty
    #[arg(long, value_name = "DIR", env = "CAIRN_MASTER_DATA")]
    data: PathBuf,
    /// Copies kept of every chunk, on different storage nodes
    #[arg(long, default_value_t = 2, env = "CAIRN_REPLICAS")]
    replicas: u32,
    /// Copies without which a write fails; the missing ones are made up for later
    #[arg(long, default_value_t = 1, env = "CAIRN_MIN_REPLICAS")]
    min_replicas: u32,
    /// Bytes in a chunk: a power of two from 4KiB to 16MiB; fixed for ever
    #[arg(long, value_name = "BYTES", default_value_t = Size(CHUNK_SIZE_DEFAULT.into()), env = "CAIRN_CHUNK_SIZE")]
    chunk_size: Size,
    /// How clients make chunks smaller before they store them: off, lz4, zstd or zstd:LEVEL (1 to 19). Chunks
    /// that do not shrink are stored as they are. `cairn cluster set --compression` changes it later
    #[arg(long, value_name = "HOW", default_value_t = Compression::Off, env = "CAIRN_COMPRESSION")]
    compression: Compression,
    /// UUID of the file system; a new one by default
    #[arg(long, value_name = "UUID")]
    fs: Option<Uuid>,
    /// Print everything as JSON instead of the UUID alone
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct InfoArgs {
    /// Directory that `format` made
    #[arg(long, value_name = "DIR", env = "CAIRN_MASTER_DATA")]
    data: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// Directory to make; must not exist or be empty
    #[arg(long, value_name = "DIR", env = "CAIRN_MASTER_DATA")]
    #[arg(required_unless_present = "check")]
    data: Option<PathBuf>,
    /// Only read the dump and say whether it is whole
    #[arg(long)]
    check: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The dump
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Directory that `format` made
    #[arg(long, value_name = "DIR", env = "CAIRN_MASTER_DATA")]
    data: PathBuf,
    /// Address and port to listen on; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = LISTEN_DEFAULT, env = "CAIRN_MASTER_LISTEN")]
    listen: String,
    /// Address on which to serve metrics for Prometheus at /metrics; none without it
    #[arg(long, value_name = "HOST:PORT", value_parser = page::address, env = "CAIRN_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// File with the shared secret that every caller must present
    #[arg(long, value_name = "FILE", env = "CAIRN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Where the metadata is kept; memory forgets everything at the end
    #[arg(long, value_enum, default_value_t = EngineKind::Fjall, env = "CAIRN_ENGINE")]
    engine: EngineKind,
    /// A client that is silent for this long loses its session
    #[arg(long, value_name = "SECONDS", default_value_t = SESSION_EXPIRY_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=86_400), env = "CAIRN_SESSION_EXPIRY")]
    session_expiry: u64,
    /// A storage node that is silent for this long gets no new data
    #[arg(long, value_name = "MS", default_value_t = SUSPECT_AFTER_DEFAULT,
          value_parser = clap::value_parser!(u64).range(100..=600_000), env = "CAIRN_SUSPECT_AFTER")]
    suspect_after: u64,
    /// A storage node that is silent for this long counts as down
    #[arg(long, value_name = "SECONDS", default_value_t = DOWN_AFTER_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=86_400), env = "CAIRN_DOWN_AFTER")]
    down_after: u64,
    /// When a storage node has been down for this long, its copies are made on other nodes
    #[arg(long, value_name = "SECONDS", default_value_t = OUT_AFTER_DEFAULT,
          value_parser = clap::value_parser!(u64).range(0..=31_536_000), env = "CAIRN_OUT_AFTER")]
    out_after: u64,
    /// After its start the master repairs and deletes nothing until all storage nodes have reported, or
    /// this time is over and at least one copy of everything is there
    #[arg(long, value_name = "SECONDS", default_value_t = SAFE_MODE_GRACE_DEFAULT,
          value_parser = clap::value_parser!(u64).range(0..=86_400), env = "CAIRN_SAFE_MODE_GRACE")]
    safe_mode_grace: u64,
    /// Bytes a second that repair and rebalancing write to each storage node; 0: as fast as it goes
    #[arg(long, value_name = "BYTES", default_value_t = Size(REPAIR_BANDWIDTH_DEFAULT), env = "CAIRN_REPAIR_BANDWIDTH")]
    repair_bandwidth: Size,
    /// Copyings between storage nodes that repair and rebalancing do at the same time; 0: none, nothing is repaired
    #[arg(long, value_name = "N", default_value_t = REPAIR_CONCURRENCY_DEFAULT as u64,
          value_parser = clap::value_parser!(u64).range(0..=64), env = "CAIRN_REPAIR_CONCURRENCY")]
    repair_concurrency: u64,
    /// Longest time until an acknowledged change survives a power cut without fsync
    #[arg(long, value_name = "MS", default_value_t = SYNC_INTERVAL_DEFAULT,
          value_parser = clap::value_parser!(u64).range(0..=60_000), env = "CAIRN_SYNC_INTERVAL")]
    sync_interval: u64,
    /// Every so often the metadata is backed up into the storage nodes, if it changed; 0 turns that off
    #[arg(long, value_name = "SECONDS", default_value_t = BACKUP_INTERVAL_DEFAULT,
          value_parser = clap::value_parser!(u64).range(0..=86_400), env = "CAIRN_BACKUP_INTERVAL")]
    backup_interval: u64,
    /// How many of these backups are kept
    #[arg(long, value_name = "N", default_value_t = BACKUP_GENERATIONS_DEFAULT as u64,
          value_parser = clap::value_parser!(u64).range(1..=32), env = "CAIRN_BACKUP_GENERATIONS")]
    backup_generations: u64,

    /// Seconds between two cycles of garbage collection; the room of deleted files is back after three or
    /// four of them. 0: only `cairn gc` collects
    #[arg(long, value_name = "SECONDS", default_value_t = GC_INTERVAL_DEFAULT,
          value_parser = seconds, env = "CAIRN_GC_INTERVAL")]
    gc_interval: f64,
}

/// The command line, with a daemon among its verbs.
pub fn program() -> Program {
    Program::new(Cli::command(), "serve")
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let cli = match program().read_as::<Cli>(&arguments) {
        Ok(cli) => cli,
        Err(stop) => return stop.report("cairn-master"),
    };
    let done = match cli.verb {
        Verb::Format(args) => format(&args),
        Verb::Serve(args) => serve(args),
        Verb::Info(args) => info(&args),
        Verb::Load(args) => load(&args),
        Verb::RestoreFromNodes(args) => {
            log::to_stderr();
            args.run()
        }
        Verb::Documents { dir } => documents::write(program().command(), &dir)
            .map_err(|e| format!("cannot write documents into {}: {e}", dir.display())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cairn-master: {why}");
            ExitCode::FAILURE
        }
    }
}

fn print(line: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| format!("cannot print: {e}"))
}

fn format(args: &FormatArgs) -> Result<(), String> {
    let format = Format {
        fs_uuid: args.fs.unwrap_or_else(Uuid::new_v4),
        // What no chunk can have is refused below.
        chunk_size: u32::try_from(args.chunk_size.0).unwrap_or(u32::MAX),
        replicas: args.replicas,
        min_replicas: args.min_replicas,
        pg_bits: PG_BITS_DEFAULT,
        compression: args.compression,
    };
    server::format(&args.data, &format).map_err(|e| e.to_string())?;
    print(&if args.json { format.to_json() } else { format.fs_uuid.to_string() })
}

fn info(args: &InfoArgs) -> Result<(), String> {
    let format = Format::read(&args.data).map_err(|e| e.to_string())?;
    if args.json {
        return print(&format.to_json());
    }
    print(&format!(
        "file system   {}\nchunk size    {} bytes\nreplicas      {} (at least {})\ncompression   {}",
        format.fs_uuid, format.chunk_size, format.replicas, format.min_replicas, format.compression
    ))
}

fn load(args: &LoadArgs) -> Result<(), String> {
    log::to_stderr();
    let loaded = match &args.data {
        Some(data) if !args.check => from_dump::load(data, &args.file),
        _ => from_dump::check(&args.file),
    };
    let loaded = loaded.map_err(|e| e.to_string())?;
    if args.json {
        return print(&loaded.to_json());
    }
    let done = if args.check { "is whole" } else { "is loaded" };
    print(&format!(
        "{} {done}: file system {}, {} inodes in {} rows, {} bytes, taken {}",
        args.file.display(),
        loaded.format.fs_uuid,
        loaded.inodes,
        loaded.rows,
        loaded.bytes,
        moment::utc(loaded.taken_unix_ms),
    ))
}

fn serve(args: ServeArgs) -> Result<(), String> {
    log::to_stderr();
    let config = Config {
        listen: resolve(&args.listen)?,
        metrics_listen: args.metrics_listen,
        token: args.token_file.as_deref().map(read_token).transpose()?,
        engine: args.engine,
        session_expiry: Duration::from_secs(args.session_expiry),
        suspect_after: Duration::from_millis(args.suspect_after),
        down_after: Duration::from_secs(args.down_after),
        out_after: Duration::from_secs(args.out_after),
        safe_mode_grace: Duration::from_secs(args.safe_mode_grace),
        repair_bandwidth: args.repair_bandwidth.0,
        repair_concurrency: usize::try_from(args.repair_concurrency).unwrap_or(1),
        sync_interval: Duration::from_millis(args.sync_interval),
        backup_interval: Duration::from_secs(args.backup_interval),
        backup_generations: usize::try_from(args.backup_generations)
            .unwrap_or(BACKUP_GENERATIONS_DEFAULT),
        gc_interval: Duration::from_secs_f64(args.gc_interval),
        data: args.data,
    };
    // One thread for the network beside the op thread and the sync thread: a second worker would only
    // be woken to find that there is nothing left to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    runtime.spawn(memory::give_back());
    let outcome = runtime.block_on(serve_until_told(config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve_until_told(config: Config) -> Result<(), String> {
    let catch = |kind| signal(kind).map_err(|e| format!("cannot catch signals: {e}"));
    let (mut terminate, mut interrupt) =
        (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let running = server::start(config).await.map_err(|e| e.to_string())?;
    print(&format!("listening on {}", running.address))?;
    notify::ready(&format!("serving on {}", running.address));
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        why = running.failed() => Err(why),
    };
    notify::stopping("syncing");
    running.stop().await;
    outcome
}

fn resolve(listen: &str) -> Result<SocketAddr, String> {
    let wrong = |why: String| format!("--listen {listen}: {why}; give HOST:PORT or IP:PORT");
    let mut found = listen.to_socket_addrs().map_err(|e| wrong(e.to_string()))?;
    found.next().ok_or_else(|| wrong("has no address".into()))
}

/// Seconds, with a fraction; 0 to a year.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("\"{text}\" is no number of seconds"))?;
    if (0.0..=31_536_000.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("it is not from 0 to 31536000".to_owned())
    }
}

fn read_token(path: &Path) -> Result<Token, String> {
    let text = fs::read_to_string(path)
        .map_err(|e| format!("cannot read the token file {}: {}", path.display(), explain(&e)))?;
    Token::parse(&text).map_err(|e| {
        format!("cannot use the token file {}: {e}: make a longer one", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        program().command().clone().debug_assert();
    }

    #[test]
    fn addresses_and_tokens_are_checked_with_a_sentence() {
        assert_eq!(resolve("127.0.0.1:0").unwrap().port(), 0);
        assert!(resolve("9000").unwrap_err().contains("HOST:PORT"));
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("token");
        assert!(read_token(&file).unwrap_err().contains("token"));
        fs::write(&file, "short").unwrap();
        assert!(read_token(&file).unwrap_err().contains("16"));
        fs::write(&file, "0123456789abcdef\n").unwrap();
        read_token(&file).unwrap();
    }
}
