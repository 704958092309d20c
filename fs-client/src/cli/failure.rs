//! [`Failure`]: how a verb ends when it cannot do what it was asked.

use std::{fmt, process::ExitCode};

use cairn_proto::FsError;

use crate::{
    rpc::{CallError, ConnectError},
    vfs::StartError,
};

/// A sentence for the person at the terminal, and the exit code.
#[derive(Debug)]
pub struct Failure {
    sentence: String,
    code: u8,
}

impl Failure {
    /// `sentence` says what happened, to which thing, and what to do. Exit code 1.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), code: 1 }
    }

    /// The command line makes no sense in a way that clap cannot know. Exit code 2.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), code: 2 }
    }

    /// `error` happened while doing something with `path`.
    pub fn at(path: impl fmt::Display, error: FsError) -> Self {
        let remedy = remedy(error);
        Self::new(format!("{path}: {error}{remedy}"))
    }

    /// `signal` ended the verb: the exit code is what a shell shows for that.
    pub fn interrupted(signal: i32) -> Self {
        let code = u8::try_from(128 + signal).unwrap_or(u8::MAX);
        Self { sentence: "interrupted".to_owned(), code }
    }

    /// Whether a signal ended the verb.
    pub fn is_interruption(&self) -> bool {
        self.code > 128
    }

    /// With `more` at the end of the sentence.
    #[must_use]
    pub fn and(self, more: &str) -> Self {
        Self { sentence: self.sentence + more, code: self.code }
    }

    /// How the process ends.
    pub fn exit_code(&self) -> ExitCode {
        self.code.into()
    }
}

/// What to do about an error that does not say it by itself.
const fn remedy(error: FsError) -> &'static str {
    match error {
        FsError::NoSpace => {
            ": cairn status shows which node or master is full; make room there or add a node"
        }
        FsError::TimedOut | FsError::TryAgain => {
            ": cairn status shows who does not answer; --deadline waits longer"
        }
        FsError::Io => ": cairn status shows who is down, cairn verify what is damaged",
        FsError::NotDirectory => ": a part of the path is a file",
        FsError::Stale => ": the same command again will do",
        FsError::InvalidArgument => ": .. and zero bytes cannot be in a name",
        FsError::Protocol => ": use the same release on all machines",
        FsError::NotFound
        | FsError::Exists
        | FsError::IsDirectory
        | FsError::NotEmpty
        | FsError::AccessDenied
        | FsError::NotPermitted
        | FsError::NameTooLong
        | FsError::TooBig
        | FsError::QuotaExceeded
        | FsError::ReadOnly
        | FsError::TooManyLinks
        | FsError::Loop
        | FsError::CrossDevice
        | FsError::Busy
        | FsError::TextBusy
        | FsError::NoAttribute
        | FsError::OutOfRange
        | FsError::ArgumentTooBig
        | FsError::NotSupported
        | FsError::NotImplemented
        | FsError::BadHandle
        | FsError::Interrupted
        | FsError::Deadlock
        | FsError::NoLocks
        | FsError::Overflow
        | FsError::NoSuchDevice
        | FsError::NoMemory => "",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::new(error.to_string())
    }
}
