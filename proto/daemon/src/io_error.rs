//! What the system's errors mean for the person who reads them.

use std::io::{self, ErrorKind};

/// What `error` says, without its number, and what to do about it when that is known.
pub fn explain(error: &io::Error) -> String {
    format!("{}{}", plain(error), remedy(error.kind()))
}

/// What `error` says, without its number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.find(" (os error ").map_or(text.clone(), |end| text[..end].to_owned())
}

fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied => {
            ": run this as the user to whom it belongs, or choose another place"
        }
        ErrorKind::StorageFull => ": make room on that disk",
        ErrorKind::QuotaExceeded => ": make room within the quota, or have it raised",
        ErrorKind::ReadOnlyFilesystem => ": choose a place that can be written to",
        ErrorKind::NotFound => ": check the path",
        ErrorKind::NotADirectory => ": check the path, a part of it is a file",
        ErrorKind::IsADirectory => ": name a file in it",
        ErrorKind::AddrInUse => {
            ": stop the other program (`ss -ltnp` shows it), or choose another port"
        }
        ErrorKind::AddrNotAvailable => {
            ": give an address of this machine (0.0.0.0 stands for all of them)"
        }
        // The list is open: what is not known needs no remedy to be understood.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_and_remedies_come() {
        let full = explain(&io::Error::from_raw_os_error(28));
        assert_eq!(full, "No space left on device: make room on that disk");
        assert_eq!(explain(&io::Error::from_raw_os_error(5)), "Input/output error");
        assert_eq!(explain(&io::Error::other("odd")), "odd");
    }
}
