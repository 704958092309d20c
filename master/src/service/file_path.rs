//! The `filename` of the plain calls: a path from the root, `/` between the names.

use bytes::Bytes;
use cairn_proto::{
    FileName, FsError,
    limits::{NAME_MAX, PATH_MAX},
    status,
};
use tonic::Status;

/// `filename` without a leading `/`, when every part of it is a name that a directory may hold.
pub(super) fn check(filename: &str) -> Result<&str, Status> {
    let wrong = |error: FsError, why: String| Err(status::from_fs(error, why));
    let path = filename.strip_prefix('/').unwrap_or(filename);
    if path.is_empty() {
        return wrong(FsError::InvalidArgument, "the file name is empty: give it one".into());
    }
    if filename.len() > PATH_MAX {
        let length = filename.len();
        return wrong(
            FsError::NameTooLong,
            format!("the file name has {length} bytes: at most {PATH_MAX} are allowed"),
        );
    }
    for part in path.split('/') {
        let Err(error) = FileName::try_from(Bytes::copy_from_slice(part.as_bytes())) else {
            continue;
        };
        let why = match part {
            "" => format!("the file name {filename:?} has an empty part: remove the extra '/'"),
            "." | ".." => format!("the file name {filename:?} has the part {part:?}: write it out"),
            long if long.len() > NAME_MAX => {
                format!("a part of the file name has {} bytes: at most {NAME_MAX}", long.len())
            }
            _ => format!("the file name {filename:?} has a NUL byte: remove it"),
        };
        let error = if part.is_empty() { FsError::InvalidArgument } else { error };
        return wrong(error, why);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn names_that_no_directory_holds_are_refused_with_a_sentence() {
        let long = "a".repeat(256);
        let longer = "a/".repeat(2048) + "b";
        for wrong in ["", "/", "a//b", "a/", "..", "a/../b", "./a", "a\0b", &long, &longer] {
            let status = check(wrong).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{wrong:?}");
            assert!(status.message().len() > 20, "{status}");
        }
        assert_eq!(check("/a/b").unwrap(), "a/b");
        assert_eq!(check("...").unwrap(), "...");
        assert_eq!(check(&"a".repeat(255)).unwrap().len(), 255);
    }
}
