//! [`Failure`]: how a verb ends when it cannot do what it was asked.

use std::fmt;

use cairn_proto::FsError;

use crate::rpc::{CallError, ConnectError};

/// A sentence for the person at the terminal. The process exits with status 1.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// `sentence` says what happened, to which thing, and what to do.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// `error` happened while doing something with `path`.
    pub fn at(path: impl fmt::Display, error: FsError) -> Self {
        Self(format!("{path}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self(error.to_string())
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self(error.to_string())
    }
}
