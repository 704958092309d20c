//! [`Clock`]: the time of day as one daemon sees it, without touching the machine's.
//!
//! A small library, compiled when a run begins, stands between the daemon and the C library and adds
//! what a file says. The daemons themselves know nothing of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::command::run;

const SOURCE: &str = include_str!("clock.c");

/// Compiles the library into `place`; nothing where there is no C compiler.
pub fn library(place: &Path) -> Option<PathBuf> {
    let (source, library) = (place.join("clock.c"), place.join("clock.so"));
    fs::write(&source, SOURCE).expect("a directory of ours takes a file");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
    let found = run(
        {
            let mut c = Command::new("sh");
            c.args(["-c", "command -v cc"]);
            c
        },
        Duration::from_secs(10),
    );
    (found.ok() && run(cc, Duration::from_secs(60)).ok()).then_some(library)
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Clock {
    library: String,
    file: String,
}

impl Clock {
    /// A clock that is right. `name` tells it from others in `place`.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn new(library: &Path, place: &Path, name: &str) -> Self {
        let text = |path: &Path| path.to_str().expect("test paths are UTF-8").to_owned();
        let clock =
            Self { library: text(library), file: text(&place.join(format!("{name}.clock"))) };
        clock.jump(0);
        clock
    }

    /// It is wrong by so many seconds from now on.
    ///
    /// # Panics
    /// When its file cannot be written.
    pub fn jump(&self, seconds: i64) {
        use std::os::unix::fs::FileExt as _;
        let file = fs::File::options().create(true).write(true).truncate(false).open(&self.file);
        let file = file.expect("a directory of ours takes a file");
        file.write_all_at(&seconds.to_le_bytes(), 0).expect("eight bytes fit");
    }

    /// What a daemon has to be started with.
    pub fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", self.library.as_str()), ("CAIRN_TEST_CLOCK", self.file.as_str())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_the_time_that_it_is_given() {
        let place = crate::scratch("clock");
        let Some(library) = library(place.path()) else { return };
        let clock = Clock::new(&library, place.path(), "one");
        let year = || {
            let mut date = Command::new("date");
            date.args(["-u", "+%Y"]).envs(clock.environment());
            run(date, Duration::from_secs(10)).stdout.trim().parse::<u32>().unwrap()
        };
        let now = year();
        clock.jump(10 * 366 * 86_400);
        assert_eq!(year(), now + 10);
        clock.jump(0);
        assert_eq!(year(), now);
    }
}
