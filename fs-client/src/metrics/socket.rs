//! Where a mount shows its metrics and its profile: a Unix socket named after the mount's device, in a
//! directory that only the mount's owner and root can enter.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The socket of the mount of `device` (`MAJOR:MINOR`) that belongs to `owner`, or why there is none.
///
/// # Errors
/// A sentence: an ordinary user's session has no directory for such things.
pub fn path(device: &str, owner: u32) -> Result<PathBuf, String> {
    let directory = directory(owner).ok_or_else(|| {
        format!(
            "user {owner} has no directory for sockets: neither XDG_RUNTIME_DIR nor \
             /run/user/{owner} is there; log in as that user, or set XDG_RUNTIME_DIR for mount and \
             profile alike"
        )
    })?;
    Ok(directory.join("cairn").join(format!("mount-{device}.sock")))
}

fn directory(owner: u32) -> Option<PathBuf> {
    if owner == 0 {
        return Some("/run".into());
    }
    let own = rustix::process::geteuid().as_raw() == owner;
    let told = env::var_os("XDG_RUNTIME_DIR").filter(|_| own).map(PathBuf::from);
    let usual = || Some(PathBuf::from(format!("/run/user/{owner}"))).filter(|dir| dir.is_dir());
    told.filter(|dir| Path::is_absolute(dir)).or_else(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_mounts_are_under_run() {
        assert_eq!(path("0:51", 0).unwrap(), Path::new("/run/cairn/mount-0:51.sock"));
        assert!(path("0:51", 4_000_000_000).unwrap_err().contains("XDG_RUNTIME_DIR"));
    }
}
