//! Faults that a test asks the disk for: errors at the n-th write or sync, short writes, a full disk.

/// An operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writing bytes.
    Write,
    /// fsync or fdatasync of a file or a directory.
    Sync,
    /// Reading bytes.
    Read,
}

/// One error to come.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What fails.
    pub step: Step,
    /// How many such operations still succeed before it.
    pub after: u64,
    /// How many fail then.
    pub times: u64,
    /// The errno, for example `libc::EIO`.
    pub errno: i32,
}

/// What is planned for one disk.
#[derive(Debug)]
pub(crate) struct Faults {
    planned: Vec<Fault>,
    /// Writes longer than this are cut short to it, as a program must expect.
    pub(crate) longest_write: usize,
    /// Bytes that fit on the disk.
    pub(crate) capacity: u64,
    pub(crate) hits: u64,
}

impl Faults {
    pub(crate) const fn none() -> Self {
        Self { planned: Vec::new(), longest_write: usize::MAX, capacity: 64 << 30, hits: 0 }
    }

    pub(crate) fn plan(&mut self, fault: Fault) {
        self.planned.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self { hits: self.hits, ..Self::none() };
    }

    /// Counts one operation; the errno when it has to fail.
    pub(crate) fn at(&mut self, step: Step) -> Result<(), i32> {
        let mut hit = None;
        for fault in self.planned.iter_mut().filter(|f| f.step == step) {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 && hit.is_none() {
                fault.times -= 1;
                hit = Some(fault.errno);
            }
        }
        self.planned.retain(|f| f.times > 0);
        match hit {
            Some(errno) => {
                self.hits += 1;
                Err(errno)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_write_fails_and_no_other() {
        let mut faults = Faults::none();
        faults.plan(Fault { step: Step::Write, after: 2, times: 1, errno: libc::EIO });
        let seen: Vec<bool> = (0..5).map(|_| faults.at(Step::Write).is_ok()).collect();
        assert_eq!(seen, [true, true, false, true, true]);
        assert!(faults.at(Step::Sync).is_ok());
        assert_eq!(faults.hits, 1);
    }
}
