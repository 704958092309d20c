//! The command line of `cairn-storage`: parses, delegates, prints. The only place that writes to stdout.

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use cairn_daemon::{
    documents, log, memory, metrics::page, notify, program::Program, size::Size, span::Span,
};
use cairn_proto::limits::CHUNK_SIZE_DEFAULT;
use clap::{Args, CommandFactory, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::{
    config::{Config, SCRUB_BANDWIDTH, SCRUB_PERIOD},
    format::{self, NewNode},
    scrub::ScrubSettings,
    server,
};

/// Cairn's storage node: keeps chunks on local disks.
#[derive(Debug, Parser)]
#[command(name = "cairn-storage", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make data directories for a new node; prints the node's UUID.
    Format(FormatArgs),
    /// Serve chunks.
    Serve(ServeArgs),
    /// Write man pages and completions into a directory.
    #[command(hide = true)]
    Documents {
        /// Where to.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct FormatArgs {
    /// Directory to make; one for each disk.
    #[arg(long = "data", value_name = "DIR", required = true)]
    data: Vec<PathBuf>,
    /// File system that the node will belong to: what `cairn-master format` printed.
    #[arg(long, value_name = "UUID", env = "CAIRN_FS")]
    fs: Uuid,
    /// Existing node that these directories are added to; a new node without it.
    #[arg(long, value_name = "UUID")]
    node: Option<Uuid>,
    /// What people call the node.
    #[arg(long, default_value = "node1", env = "CAIRN_NODE_NAME")]
    name: String,
    /// Chunk size in bytes: that of the file system.
    #[arg(long, value_name = "BYTES", default_value_t = Size(CHUNK_SIZE_DEFAULT.into()), env = "CAIRN_CHUNK_SIZE")]
    chunk_size: Size,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Formatted data directory; one for each disk.
    #[arg(long = "data", value_name = "DIR", required = true, env = "CAIRN_NODE_DATA")]
    data: Vec<PathBuf>,
    /// Address to serve on; port 0 picks one.
    #[arg(
        long,
        value_name = "IP:PORT",
        default_value = "127.0.0.1:9001",
        env = "CAIRN_NODE_LISTEN"
    )]
    listen: SocketAddr,
    /// Address under which others reach the node, when it is not --listen.
    #[arg(long, value_name = "HOST:PORT", env = "CAIRN_NODE_ADVERTISE")]
    advertise: Option<String>,
    /// Address of the master.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9000", env = "CAIRN_MASTER")]
    master: String,
    /// What people call the node, when it is not the name given to `format`.
    #[arg(long, env = "CAIRN_NODE_NAME")]
    name: Option<String>,
    /// Failure domain: copies of a chunk go to distinct zones first.
    #[arg(long, default_value = "", env = "CAIRN_ZONE")]
    zone: String,
    /// Free bytes to keep on each disk [default: 1 GiB or 5 % of the disk, the smaller].
    #[arg(long, value_name = "BYTES", env = "CAIRN_RESERVE")]
    reserve: Option<Size>,
    /// Read every chunk again within this time, to find damage while another node has a good copy: for
    /// example 14d or 12h; 0: only with `cairn scrub --now`.
    #[arg(long, value_name = "TIME", default_value_t = SCRUB_PERIOD, env = "CAIRN_SCRUB_PERIOD")]
    scrub_period: Span,
    /// Most bytes a second of each disk that are read for that.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = SCRUB_BANDWIDTH,
        env = "CAIRN_SCRUB_BANDWIDTH"
    )]
    scrub_bandwidth: Size,
    /// Address on which to serve metrics for Prometheus at /metrics; none without it.
    #[arg(long, value_name = "HOST:PORT", value_parser = page::address, env = "CAIRN_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// File with the secret that all parts of the file system share.
    #[arg(long, value_name = "FILE", env = "CAIRN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// The command line, with a daemon among its verbs.
pub fn program() -> Program {
    Program::new(Cli::command(), "serve")
}

/// Runs the command line; prints errors to stderr.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let cli = match program().read_as::<Cli>(&arguments) {
        Ok(cli) => cli,
        Err(stop) => return stop.report("cairn-storage"),
    };
    match cli.command {
        Command::Format(args) => report(format(args)),
        Command::Serve(args) => report(serve(args)),
        Command::Documents { dir } => {
            report(documents::write(program().command(), &dir).map_err(Into::into))
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Nothing can be done about a stderr that is closed.
            let _ = writeln!(io::stderr(), "cairn-storage: {e}");
            ExitCode::FAILURE
        }
    }
}

fn format(args: FormatArgs) -> Outcome {
    let new = NewNode {
        data: args.data,
        fs: args.fs,
        node: args.node,
        name: args.name,
        // What no chunk can have is refused below.
        chunk_size: u32::try_from(args.chunk_size.0).unwrap_or(u32::MAX),
    };
    let node = format::format(&new)?;
    let line = if args.json {
        let (node, fs) = (node.to_string(), new.fs.to_string());
        serde_json::json!({ "node_uuid": node, "fs_uuid": fs, "chunk_size": new.chunk_size })
            .to_string()
    } else {
        node.to_string()
    };
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

fn serve(args: ServeArgs) -> Outcome {
    log::to_stderr();
    raise_open_files();
    let config = Config {
        listen: args.listen,
        advertise: args.advertise,
        name: args.name,
        zone: args.zone,
        reserve: args.reserve.map(|size| size.0),
        scrub: ScrubSettings { period: args.scrub_period.0, bandwidth: args.scrub_bandwidth.0 },
        metrics_listen: args.metrics_listen,
        token_file: args.token_file,
        ..Config::new(args.data, args.master)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .max_blocking_threads(64)
        .enable_all()
        .build()?;
    runtime.spawn(memory::give_back());
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let node = server::start(config).await?;
        writeln!(io::stdout(), "listening on {}", node.address)?;
        io::stdout().flush()?;
        notify::ready(&format!("serving on {}", node.address));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify::stopping("syncing");
        node.stop().await;
        Ok(())
    })
}

/// Threads for the network. Hashing and disks have threads of their own; half of the processors keeps
/// the number of wake-ups for small requests low (measured on two: a third fewer).
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get() / 2).clamp(1, 8)
}

/// Segments and connections take descriptors: use what the system allows.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(e) =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::debug!("cannot raise the number of open files: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        program().command().clone().debug_assert();
    }
}
