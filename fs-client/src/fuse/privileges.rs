//! What the kernel does not say about a caller: whether he may keep a set-group-id bit.
//!
//! It decides so itself for chmod and chown. For an access list it would only tell with a longer request
//! than fuser understands, so the same is found out here.

use std::{fs, time::Duration};

use cairn_proto::{FsError, Ino, xattr::ACCESS_ACL};
use tokio::time::timeout;

use crate::vfs::{Caller, Vfs};

/// The capability to keep the bits.
const CAP_FSETID: u32 = 4;
/// How long the kernel may take to show a process.
const LIMIT: Duration = Duration::from_secs(1);

/// Whether `caller`, who sets attribute `name` of `ino`, takes its set-group-id bit away by that: he
/// sets an access list, is not in the file's group and not privileged.
///
/// # Errors
/// As [`Vfs::getattr`].
pub(super) async fn kills_sgid(
    vfs: &Vfs,
    caller: Caller,
    ino: Ino,
    name: &[u8],
) -> Result<bool, FsError> {
    if name != ACCESS_ACL || caller.uid == 0 {
        return Ok(false);
    }
    let attr = vfs.getattr(caller, ino).await?;
    if attr.mode & libc::S_ISGID == 0 || attr.gid == caller.gid {
        return Ok(false);
    }
    let pid = caller.pid;
    // Of the files in /proc/PID, this one takes no lock that a caller holds while he waits for us.
    let status =
        tokio::task::spawn_blocking(move || fs::read_to_string(format!("/proc/{pid}/status")));
    match timeout(LIMIT, status).await {
        Ok(Ok(Ok(status))) => Ok(!may_keep(&status, attr.gid)),
        // Nothing is known: take it, as a bit that is missing harms nobody.
        Ok(Ok(Err(_)) | Err(_)) | Err(_) => Ok(true),
    }
}

/// Whether a process with this `/proc/PID/status` is in `group` or may keep the bits of others.
fn may_keep(status: &str, group: u32) -> bool {
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let privileged = value("CapEff:")
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_FSETID) != 0);
    let mut groups = value("Groups:").unwrap_or_default().split_whitespace();
    privileged || groups.any(|number| number.parse() == Ok(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_the_privileged_keep_the_bit() {
        let status = "Name:\tx\nGroups:\t4 24 1000 \nCapEff:\t0000000000000000\n";
        assert!(may_keep(status, 24) && !may_keep(status, 2) && !may_keep(status, 100));
        assert!(may_keep("CapEff:\t0000000000000010\n", 5));
        assert!(!may_keep("Groups:\t\nCapEff:\t000000000000000f\n", 5));
        assert!(!may_keep("", 5));
    }
}
