//! The command line: one file per verb. The only place that prints.
//!
//! A verb parses its arguments, calls the library and says what happened. Exit codes: 0 done, 1 could
//! not be done or something is wrong (`verify`, `fsck`), 2 the command line makes no sense, 130 Ctrl+C.

#[macro_use]
mod output;

pub mod analyze;
pub mod cat;
pub mod cluster;
pub mod completions;
pub mod connection;
mod copies;
mod device;
pub mod df;
pub mod download;
pub mod du;
pub mod failure;
pub mod fsck;
pub mod gc;
pub mod info;
mod interrupt;
pub mod list;
mod local_path;
mod local_xattrs;
pub mod meta;
pub mod mkdir;
pub mod monitor;
pub mod mount;
pub mod mount_helper;
pub mod mount_options;
pub mod node;
pub mod profile;
pub mod progress;
pub mod quota;
pub mod rebalance;
mod reference_sort;
pub mod rm;
pub mod schema;
pub mod scrub;
mod spool;
pub mod status;
pub mod store;
mod table;
mod temporary;
pub mod umount;
pub mod units;
pub mod upload;
pub mod verify;
mod walk;

use std::{env, ffi::OsString, process::ExitCode};

use cairn_daemon::program::Program;
use clap::{CommandFactory, Parser, Subcommand};

use self::{connection::Connection, failure::Failure, mount_helper::Called};

/// Exit code of a command line that makes no sense.
const WRONG_USAGE: u8 = 2;

/// Cairn: a distributed file store that is mounted as a directory
#[derive(Parser, Debug)]
#[command(name = "cairn", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done; 1 not done, or verify, fsck or scrub found something; 2 wrong usage; \
                  130 interrupted by Ctrl+C; 141 the reader of the output went away."
)]
pub struct Cli {
    #[command(flatten)]
    connection: Connection,

    /// Colour states and headings
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = output::Color::Auto)]
    color: output::Color,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Mount(mount::Mount),
    Umount(umount::Umount),
    Upload(upload::Upload),
    Download(download::Download),
    List(list::List),
    Cat(cat::Cat),
    Mkdir(mkdir::Mkdir),
    Rm(rm::Rm),
    Status(status::Status),
    Analyze(analyze::Analyze),
    Monitor(monitor::Monitor),
    Info(info::Info),
    Profile(profile::Profile),
    Df(df::Df),
    Du(du::Du),
    Verify(verify::Verify),
    Fsck(fsck::Fsck),
    Scrub(scrub::Scrub),
    Node(node::Node),
    Rebalance(rebalance::Rebalance),
    Cluster(cluster::Cluster),
    Gc(gc::Gc),
    Meta(meta::Meta),
    Quota(quota::Quota),
    Schema(schema::Schema),
    Completions(completions::Completions),
    #[command(hide = true)]
    Documents(completions::Documents),
}

/// The command line, with a daemon among its verbs.
pub fn program() -> Program {
    Program::new(Cli::command(), "mount")
}

/// Does what the command line of this process says.
pub fn run() -> ExitCode {
    let arguments = match mount_helper::called(env::args_os().collect()) {
        Called::AsProgram(arguments) | Called::AsHelper(arguments) => arguments,
        Called::ForShow => return ExitCode::SUCCESS,
        Called::Wrongly(error) => error.exit(),
    };
    let program = program();
    let expanded = match mount_options::expand(&program, &arguments) {
        Ok(expanded) => expanded,
        Err(failure) => {
            eprintln!("cairn: {failure}");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    match program.read_as::<Cli>(&expanded) {
        Ok(cli) => cli.run(&arguments),
        Err(stop) => stop.report("cairn"),
    }
}

impl Cli {
    fn run(self, arguments: &[OsString]) -> ExitCode {
        output::choose_color(self.color);
        let connection = self.connection;
        let outcome = match self.verb {
            Verb::Mount(verb) => verb.run(&connection, arguments),
            Verb::Umount(verb) => verb.run(),
            Verb::Completions(verb) => verb.run(),
            Verb::Documents(verb) => verb.run(),
            Verb::Upload(verb) => cleaning(verb.run(&connection)),
            Verb::Download(verb) => cleaning(verb.run(&connection)),
            Verb::List(verb) => finish(verb.run(&connection)),
            Verb::Cat(verb) => finish(verb.run(&connection)),
            Verb::Mkdir(verb) => finish(verb.run(&connection)),
            Verb::Rm(verb) => finish(verb.run(&connection)),
            Verb::Status(verb) => finish(verb.run(&connection)),
            Verb::Analyze(verb) => finish(verb.run(&connection)),
            Verb::Monitor(verb) => cleaning(verb.run(&connection)),
            Verb::Info(verb) => finish(verb.run(&connection)),
            Verb::Profile(verb) => verb.run(),
            Verb::Df(verb) => finish(verb.run(&connection)),
            Verb::Du(verb) => finish(verb.run(&connection)),
            Verb::Verify(verb) => block_on(verb.run(&connection)),
            Verb::Fsck(verb) => block_on(verb.run(&connection)),
            Verb::Scrub(verb) => block_on(verb.run(&connection)),
            Verb::Node(verb) => finish(verb.run(&connection)),
            Verb::Rebalance(verb) => finish(verb.run(&connection)),
            Verb::Cluster(verb) => finish(verb.run(&connection)),
            Verb::Gc(verb) => block_on(verb.run(&connection)),
            Verb::Meta(verb) => finish(verb.run(&connection)),
            Verb::Quota(verb) => finish(verb.run(&connection)),
            Verb::Schema(verb) => verb.run().map(|()| true),
        };
        match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(failure) => {
                eprintln!("cairn: {failure}");
                failure.exit_code()
            }
        }
    }
}

fn finish(verb: impl Future<Output = Result<(), Failure>>) -> Result<bool, Failure> {
    block_on(async { verb.await.map(|()| true) })
}

/// Runs a verb to its end; Ctrl+C ends it at once, whatever it waits for.
fn block_on(verb: impl Future<Output = Result<bool, Failure>>) -> Result<bool, Failure> {
    run_to_end(async {
        tokio::select! {
            result = verb => result,
            failure = interrupt::requested() => Err(failure),
        }
    })
}

/// Runs a verb that ends by itself after Ctrl+C, when it has cleaned up.
fn cleaning(verb: impl Future<Output = Result<(), Failure>>) -> Result<bool, Failure> {
    run_to_end(async { verb.await.map(|()| true) })
}

fn run_to_end(verb: impl Future<Output = Result<bool, Failure>>) -> Result<bool, Failure> {
    let cannot_start = |e| Failure::new(format!("cannot start: {e}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(cannot_start)?;
    let result = runtime.block_on(async {
        interrupt::listen().map_err(cannot_start)?;
        verb.await
    });
    runtime.shutdown_background();
    result
}
