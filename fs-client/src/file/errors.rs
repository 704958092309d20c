//! [`WriteBackErrors`]: write-back errors, and which handle has told which of them to whom. Pure.
//!
//! As Linux does with `errseq_t`: the file counts its errors, a handle remembers the count that it
//! has told. A handle opened after an error does not tell it.
//!
//! Not every way of telling reaches the program. The kernel cuts a large write(2) into requests; when a
//! later one fails, the program hears of a short write and never of the error. A close(2) may be that of
//! a child process which does not look at its result. So a weaker way of telling never spares a stronger
//! one: after an error fsync(2) fails once, whatever writes and closes have said before.

use cairn_proto::FsError;

/// The errors of one file.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteBackErrors {
    count: u64,
    last: Option<FsError>,
    handles: usize,
    /// Handles that have nothing left to tell to a sync.
    told: usize,
}

/// By what a program can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToldBy {
    /// A further write, or copy: the weakest.
    Write,
    /// A close.
    Close,
    /// A sync: nobody need be told again.
    Sync,
}

/// What one handle has told. To be given back with [`WriteBackErrors::end`].
#[derive(Debug, PartialEq, Eq)]
pub struct SeenErrors {
    write: u64,
    close: u64,
    sync: u64,
}

impl WriteBackErrors {
    /// Dirty bytes could not be written and are lost.
    pub fn record(&mut self, error: FsError) {
        self.count += 1;
        self.last = Some(error);
        self.told = 0;
    }

    /// Number of errors so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last error when there were any since the count was `count`.
    pub fn since(&self, count: u64) -> Option<FsError> {
        if self.count == count { None } else { self.last }
    }

    /// The cursor of a handle that is opened now.
    pub fn cursor(&mut self) -> SeenErrors {
        self.handles += 1;
        self.told += 1;
        SeenErrors { write: self.count, close: self.count, sync: self.count }
    }

    /// The handle with this cursor is gone.
    pub fn end(&mut self, seen: &SeenErrors) {
        self.handles -= 1;
        self.told -= usize::from(seen.sync == self.count);
    }

    /// Whether no handle has anything left to tell.
    pub fn all_told(&self) -> bool {
        self.told == self.handles
    }

    /// Tells what `seen` has not told in this way or a stronger one, once.
    ///
    /// # Errors
    /// The last error, if there were any since.
    pub fn check(&mut self, seen: &mut SeenErrors, by: ToldBy) -> Result<(), FsError> {
        let before = match by {
            ToldBy::Write => seen.write,
            ToldBy::Close => seen.close,
            ToldBy::Sync => seen.sync,
        };
        if before == self.count {
            return Ok(());
        }
        seen.write = self.count;
        if by != ToldBy::Write {
            seen.close = self.count;
        }
        if by == ToldBy::Sync {
            seen.sync = self.count;
            self.told += 1;
        }
        self.last.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handle_tells_an_error_exactly_once() {
        let mut errors = WriteBackErrors::default();
        let (mut a, mut b) = (errors.cursor(), errors.cursor());
        assert_eq!(errors.check(&mut a, ToldBy::Sync), Ok(()));
        errors.record(FsError::Io);
        errors.record(FsError::NoSpace);
        let mut late = errors.cursor();
        for by in [ToldBy::Write, ToldBy::Close, ToldBy::Sync] {
            assert_eq!(errors.check(&mut late, by), Ok(()));
        }
        assert_eq!(errors.check(&mut a, ToldBy::Sync), Err(FsError::NoSpace));
        for by in [ToldBy::Write, ToldBy::Close, ToldBy::Sync] {
            assert_eq!(errors.check(&mut a, by), Ok(()));
        }
        assert_eq!(errors.check(&mut b, ToldBy::Sync), Err(FsError::NoSpace));
        errors.record(FsError::Io);
        assert_eq!(errors.check(&mut a, ToldBy::Sync), Err(FsError::Io));
    }

    #[test]
    fn what_a_write_or_a_close_has_told_a_sync_tells_again() {
        let mut errors = WriteBackErrors::default();
        let mut seen = errors.cursor();
        errors.record(FsError::QuotaExceeded);
        for by in [ToldBy::Write, ToldBy::Close, ToldBy::Sync] {
            assert_eq!(errors.check(&mut seen, by), Err(FsError::QuotaExceeded));
            assert_eq!(errors.check(&mut seen, by), Ok(()));
        }
        errors.record(FsError::QuotaExceeded);
        assert_eq!(errors.check(&mut seen, ToldBy::Close), Err(FsError::QuotaExceeded));
        assert_eq!(errors.check(&mut seen, ToldBy::Write), Ok(()));
        assert_eq!(errors.check(&mut seen, ToldBy::Sync), Err(FsError::QuotaExceeded));
    }

    #[test]
    fn an_error_waits_for_every_handle_that_was_open() {
        let mut errors = WriteBackErrors::default();
        assert!(errors.all_told());
        let (mut a, b) = (errors.cursor(), errors.cursor());
        errors.record(FsError::Io);
        let late = errors.cursor();
        assert!(!errors.all_told());
        errors.check(&mut a, ToldBy::Write).unwrap_err();
        errors.check(&mut a, ToldBy::Sync).unwrap_err();
        errors.end(&late);
        assert!(!errors.all_told());
        errors.end(&b);
        assert!(errors.all_told());
        errors.end(&a);
        assert!(errors.all_told());
    }
}
