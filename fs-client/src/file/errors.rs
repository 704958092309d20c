//! [`WriteBackErrors`]: write-back errors that every handle hears of exactly once. Pure.
//!
//! As Linux does with `errseq_t`: the file counts its errors, a handle remembers the count that it
//! has reported. A handle opened after an error does not hear of it.

use cairn_proto::FsError;

/// The errors of one file.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteBackErrors {
    count: u64,
    last: Option<FsError>,
}

/// What one handle has reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenErrors(u64);

impl WriteBackErrors {
    /// Dirty bytes could not be written and are lost.
    pub fn record(&mut self, error: FsError) {
        self.count += 1;
        self.last = Some(error);
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
    pub fn cursor(&self) -> SeenErrors {
        SeenErrors(self.count)
    }

    /// Reports what `seen` has not heard of, once.
    ///
    /// # Errors
    /// The last error, if there were any since.
    pub fn check(&self, seen: &mut SeenErrors) -> Result<(), FsError> {
        if seen.0 == self.count {
            return Ok(());
        }
        seen.0 = self.count;
        self.last.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_handle_hears_of_an_error_exactly_once() {
        let mut errors = WriteBackErrors::default();
        let (mut a, mut b) = (errors.cursor(), errors.cursor());
        assert_eq!(errors.check(&mut a), Ok(()));
        errors.record(FsError::Io);
        errors.record(FsError::NoSpace);
        let mut late = errors.cursor();
        assert_eq!(errors.check(&mut a), Err(FsError::NoSpace));
        assert_eq!(errors.check(&mut a), Ok(()));
        assert_eq!(errors.check(&mut b), Err(FsError::NoSpace));
        assert_eq!(errors.check(&mut late), Ok(()));
        errors.record(FsError::Io);
        assert_eq!(errors.check(&mut a), Err(FsError::Io));
    }
}
