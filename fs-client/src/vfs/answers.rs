//! The master's replies as domain types. An answer of the wrong kind, or one with nonsense in it, is
//! `Protocol`: a master that cannot be trusted with this answer, not a user's mistake.

use cairn_proto::{Attr, FsError, Malformed, pb, pb::reply::Kind};

/// The attributes within a message.
///
/// # Errors
/// `Protocol` when they are missing or malformed.
pub fn attr(attr: Option<pb::Attr>) -> Result<Attr, FsError> {
    attr.ok_or(FsError::Protocol)?.try_into().map_err(nonsense)
}

/// The answer to GetAttr and SetAttr.
///
/// # Errors
/// `Protocol` when it is something else.
pub fn attr_reply(kind: Kind) -> Result<Attr, FsError> {
    match kind {
        Kind::Attr(reply) => attr(reply.attr),
        Kind::Committed(reply) => attr(reply.attr),
        other => Err(unexpected(&other)),
    }
}

/// The answer to Lookup, Create and Link.
///
/// # Errors
/// `Protocol` when it is something else.
pub fn entry(kind: Kind) -> Result<pb::Entry, FsError> {
    match kind {
        Kind::Entry(entry) => Ok(entry),
        other => Err(unexpected(&other)),
    }
}

/// The answer to operations that return nothing.
///
/// # Errors
/// `Protocol` when it is something else.
pub fn done(kind: Kind) -> Result<(), FsError> {
    match kind {
        Kind::Done(_) => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// The answer to Commit and CloneRange.
///
/// # Errors
/// `Protocol` when it is something else.
pub fn committed(kind: Kind) -> Result<pb::Committed, FsError> {
    match kind {
        Kind::Committed(committed) => Ok(committed),
        other => Err(unexpected(&other)),
    }
}

/// For an answer that is none to the question.
pub fn unexpected(kind: &Kind) -> FsError {
    tracing::error!(answer = ?std::mem::discriminant(kind), "the master's answer is of the wrong kind");
    FsError::Protocol
}

/// For an answer with nonsense in it.
pub fn nonsense(malformed: Malformed) -> FsError {
    tracing::error!(%malformed, "the master's answer makes no sense");
    FsError::Protocol
}
