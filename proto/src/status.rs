//! The only map between our errors and gRPC: status codes, with an [`pb::ErrorDetail`] in the details;
//! and what people are shown of a status.

use std::error::Error;

use prost::Message;
use tonic::{Code, Status};

use crate::{ChunkError, FsError, Malformed, pb};

impl From<FsError> for pb::ErrorDetail {
    fn from(error: FsError) -> Self {
        Self { fs_error: error.number(), chunk_error: 0, message: error.to_string() }
    }
}

impl From<ChunkError> for pb::ErrorDetail {
    fn from(error: ChunkError) -> Self {
        Self { fs_error: 0, chunk_error: error.number(), message: error.to_string() }
    }
}

/// The file system error in `detail`. A number that this version does not know is EIO: some error
/// it was, and a newer peer's word for it cannot be shown better.
pub fn fs_error(detail: &pb::ErrorDetail) -> FsError {
    FsError::from_number(detail.fs_error)
        .or_else(|| ChunkError::from_number(detail.chunk_error).map(FsError::from))
        .unwrap_or(FsError::Io)
}

/// The chunk error in `detail`; an unknown number counts as an unreachable node, so that another is tried.
pub fn chunk_error(detail: &pb::ErrorDetail) -> ChunkError {
    ChunkError::from_number(detail.chunk_error).unwrap_or(ChunkError::Unreachable)
}

const fn fs_code(error: FsError) -> Code {
    match error {
        FsError::NotFound | FsError::NoAttribute | FsError::NoSuchDevice => Code::NotFound,
        FsError::Exists => Code::AlreadyExists,
        FsError::AccessDenied | FsError::NotPermitted | FsError::ReadOnly => Code::PermissionDenied,
        FsError::InvalidArgument
        | FsError::NameTooLong
        | FsError::ArgumentTooBig
        | FsError::BadHandle
        | FsError::Protocol => Code::InvalidArgument,
        FsError::TooBig | FsError::OutOfRange | FsError::Overflow => Code::OutOfRange,
        FsError::NoSpace | FsError::QuotaExceeded | FsError::NoLocks | FsError::NoMemory => {
            Code::ResourceExhausted
        }
        FsError::NotDirectory
        | FsError::IsDirectory
        | FsError::NotEmpty
        | FsError::TooManyLinks
        | FsError::Loop
        | FsError::CrossDevice
        | FsError::Busy
        | FsError::TextBusy
        | FsError::Stale => Code::FailedPrecondition,
        FsError::NotSupported | FsError::NotImplemented => Code::Unimplemented,
        FsError::Interrupted => Code::Cancelled,
        FsError::TimedOut => Code::DeadlineExceeded,
        FsError::TryAgain => Code::Unavailable,
        FsError::Deadlock => Code::Aborted,
        FsError::Io => Code::Internal,
    }
}

const fn chunk_code(error: ChunkError) -> Code {
    match error {
        ChunkError::NotFound => Code::NotFound,
        ChunkError::Damaged => Code::DataLoss,
        ChunkError::Mismatch | ChunkError::BadLength | ChunkError::Malformed => {
            Code::InvalidArgument
        }
        ChunkError::NoSpace => Code::ResourceExhausted,
        ChunkError::DiskFailed | ChunkError::TooFewNodes => Code::FailedPrecondition,
        ChunkError::Unreachable | ChunkError::Overloaded => Code::Unavailable,
    }
}

/// A status for `error`; `message` is a sentence for people.
pub fn from_fs(error: FsError, message: impl Into<String>) -> Status {
    let detail = pb::ErrorDetail::from(error).encode_to_vec();
    Status::with_details(fs_code(error), message, detail.into())
}

/// A status for `error`; `message` is a sentence for people.
pub fn from_chunk(error: ChunkError, message: impl Into<String>) -> Status {
    let detail = pb::ErrorDetail::from(error).encode_to_vec();
    Status::with_details(chunk_code(error), message, detail.into())
}

impl From<FsError> for Status {
    fn from(error: FsError) -> Self {
        from_fs(error, error.to_string())
    }
}

impl From<ChunkError> for Status {
    fn from(error: ChunkError) -> Self {
        from_chunk(error, error.to_string())
    }
}

impl From<Malformed> for Status {
    fn from(malformed: Malformed) -> Self {
        from_fs(FsError::InvalidArgument, malformed.to_string())
    }
}

fn detail(status: &Status) -> Option<pb::ErrorDetail> {
    let details = status.details();
    if details.is_empty() { None } else { pb::ErrorDetail::decode(details).ok() }
}

/// The file system error that `status` stands for: its typed detail, otherwise by its code.
pub fn to_fs(status: &Status) -> FsError {
    if let Some(detail) = detail(status) {
        return fs_error(&detail);
    }
    match status.code() {
        Code::NotFound => FsError::NotFound,
        Code::AlreadyExists => FsError::Exists,
        Code::PermissionDenied | Code::Unauthenticated => FsError::AccessDenied,
        Code::InvalidArgument => FsError::InvalidArgument,
        Code::OutOfRange => FsError::OutOfRange,
        Code::ResourceExhausted => FsError::NoSpace,
        Code::FailedPrecondition => FsError::Stale,
        Code::Unimplemented => FsError::NotImplemented,
        Code::Cancelled => FsError::Interrupted,
        Code::DeadlineExceeded => FsError::TimedOut,
        Code::Unavailable | Code::Aborted => FsError::TryAgain,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => FsError::Io,
    }
}

/// The chunk error that `status` stands for: its typed detail, otherwise by its code.
pub fn to_chunk(status: &Status) -> ChunkError {
    if let Some(detail) = detail(status) {
        return chunk_error(&detail);
    }
    match status.code() {
        Code::NotFound => ChunkError::NotFound,
        Code::DataLoss => ChunkError::Damaged,
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented | Code::AlreadyExists => {
            ChunkError::Malformed
        }
        Code::ResourceExhausted => ChunkError::NoSpace,
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
            ChunkError::DiskFailed
        }
        Code::Ok
        | Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unavailable
        | Code::Aborted => ChunkError::Unreachable,
    }
}

/// What a person should read of `status`: what the system said when the connection failed (then the
/// message is the transport's own), otherwise the peer's message.
pub fn sentence(status: &Status) -> String {
    match (status.source().map(innermost), status.message()) {
        (Some(cause), _) => cause,
        (None, "") => status.code().description().to_owned(),
        (None, message) => message.to_owned(),
    }
}

/// The last error of the chain: "Connection refused" rather than "transport error".
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    // The system's number says nothing that its words do not.
    text.find(" (os error ").map_or(text.clone(), |end| text[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_trip_through_a_status() {
        for &e in FsError::ALL {
            assert_eq!(to_fs(&Status::from(e)), e);
        }
        for &e in ChunkError::ALL {
            assert_eq!(to_chunk(&Status::from(e)), e);
        }
    }
}
