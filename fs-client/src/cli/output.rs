//! Printing to standard output: lines, JSON reports, colours. In all verbs `println!` is this one: a
//! reader that went away (`cairn status | head -1`) ends the process quietly, as other programs end by
//! SIGPIPE. That signal itself stays ignored: connections to servers would raise it too.
//!
//! Colours mark headings and states, nothing else. They appear on terminals only, unless `NO_COLOR` is
//! set or `--color` says otherwise; nobody else may write escape sequences.

use std::{
    fmt,
    io::{self, BufWriter, Write},
    process,
};

use anstream::{AutoStream, ColorChoice};
use clap::{
    ValueEnum,
    builder::styling::{AnsiColor, Style},
};
use serde::Serialize;

use super::failure::Failure;

/// `version` of every JSON report. Fields are only ever added; it grows when one changes its meaning.
pub(super) const JSON_VERSION: u32 = 1;

/// What a shell reports for a program that SIGPIPE ended.
const BROKEN_PIPE: i32 = 128 + libc::SIGPIPE;

macro_rules! println {
    () => {
        $crate::cli::output::line(format_args!(""))
    };
    ($($what:tt)*) => {
        $crate::cli::output::line(format_args!($($what)*))
    };
}

/// Prints a line.
pub(super) fn line(what: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{what}") {
        eprintln!("cairn: {}", unwritable(error));
        process::exit(1);
    }
}

/// Prints a report for programs, indented. Reports that read a file while they are printed can fail by
/// that file too.
///
/// # Errors
/// When standard output takes nothing.
pub(super) fn json(report: &impl Serialize) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, report).map_err(|e| unwritable(e.into()))?;
    writeln!(out).and_then(|()| out.flush()).map_err(unwritable)
}

/// Ends the process when `error` says that whoever read the output went away.
pub(super) fn end_without_reader(error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        process::exit(BROKEN_PIPE);
    }
}

/// Standard output takes nothing: a failure, unless the reader went away, which ends the process.
#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
pub(super) fn unwritable(error: io::Error) -> Failure {
    end_without_reader(&error);
    Failure::new(format!("standard output: {error}"))
}

/// When to use colours.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Color {
    /// On terminals, unless `NO_COLOR` is set
    Auto,
    /// Also into pipes and files
    Always,
    /// Not at all
    Never,
}

/// Decides for the whole process.
pub(super) fn choose_color(color: Color) {
    let choice = match color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::AlwaysAnsi,
        Color::Never => ColorChoice::Never,
    };
    choice.write_global();
}

/// Whether standard output gets colours.
pub(super) fn colored() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// How something is, for the colour it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should be: green.
    Good,
    /// Works, but somebody should look: yellow.
    Doubtful,
    /// Not as it should be: red.
    Bad,
    /// The name of a section: bold.
    Heading,
}

impl Mood {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Doubtful => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Heading => Style::new().bold(),
        }
    }
}

/// `text`, in the colour of `mood` when colours are wanted.
pub(super) fn painted(text: &str, mood: Mood) -> String {
    if !colored() {
        return text.to_owned();
    }
    let style = mood.style();
    format!("{style}{text}{style:#}")
}
