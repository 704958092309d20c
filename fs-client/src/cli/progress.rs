//! [`Progress`]: how far a long operation has come, in one line on standard error.
//!
//! Shown on a terminal only, so that logs and pipes stay clean, and without colours. The line goes away
//! when the last clone is dropped. What was found out is printed by the verb, never here.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The line is drawn anew at least this often, so that people see that the process lives.
const TICK: Duration = Duration::from_millis(250);

const BYTES: &str = "{bar:16} {bytes:>10}/{total_bytes} {bytes_per_sec}, {eta} left {wide_msg}";
const BYTES_WITHOUT_END: &str = "{spinner} {bytes:>10} {bytes_per_sec}, {elapsed} {wide_msg}";
const COUNT: &str = "{bar:16} {human_pos}/{human_len}, {eta} left {wide_msg}";
const COUNT_WITHOUT_END: &str = "{spinner} {human_pos}, {elapsed} {wide_msg}";

/// See the head of this file. Clones share the line.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: ProgressBar,
    with_end: &'static str,
    without_end: &'static str,
}

impl Progress {
    /// Counts bytes: rate, time left. Not shown unless `wanted` (`--json`, `--quiet`).
    pub fn bytes(wanted: bool) -> Self {
        Self::new(wanted, BYTES, BYTES_WITHOUT_END)
    }

    /// Counts things: files, chunks. Not shown unless `wanted`.
    pub fn counts(wanted: bool) -> Self {
        Self::new(wanted, COUNT, COUNT_WITHOUT_END)
    }

    fn new(wanted: bool, with_end: &'static str, without_end: &'static str) -> Self {
        // On what is no terminal this target draws nothing.
        let target =
            if wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style(without_end));
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, with_end, without_end }
    }

    /// A new stage begins: `what` is done to `total` bytes or things, if it is known how many.
    pub fn begin(&self, what: &str, total: Option<u64>) {
        self.bar.reset();
        match total {
            Some(total) => {
                self.bar.set_style(style(self.with_end));
                self.bar.set_length(total);
            }
            None => {
                self.bar.unset_length();
                self.bar.set_style(style(self.without_end));
            }
        }
        self.name(what);
    }

    /// What is being worked on: a stage, a file.
    pub fn name(&self, what: &str) {
        // A name of a file must not move the cursor.
        self.bar.set_message(what.replace(char::is_control, "?"));
    }

    /// `n` more are done.
    pub fn add(&self, n: u64) {
        self.bar.inc(n);
    }

    /// `n` that were counted as done are to be done again.
    pub fn take_back(&self, n: u64) {
        self.bar.dec(n);
    }

    /// `n` are done now.
    pub fn reach(&self, n: u64) {
        self.bar.set_position(n);
    }

    /// There are `n` more to do than was known.
    pub fn add_total(&self, n: u64) {
        self.bar.inc_length(n);
    }

    /// Whether anybody sees it: what is only counted for the line need not be counted otherwise.
    pub fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Takes the line away for good, whoever still has a clone.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// How many are done.
    pub fn done(&self) -> u64 {
        self.bar.position()
    }

    /// Runs `print`, which writes to the terminal, with the line out of its way.
    pub fn around<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates are well-formed");
    style.progress_chars("=> ").tick_chars("|/-\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_templates_can_be_read_and_counting_works_unseen() {
        for progress in [Progress::bytes(false), Progress::counts(false)] {
            progress.begin("first", Some(10));
            progress.add_total(5);
            progress.add(4);
            progress.take_back(1);
            assert_eq!(progress.done(), 3);
            progress.begin("second\n", None);
            assert_eq!((progress.done(), progress.bar.message()), (0, "second?".to_owned()));
        }
    }
}
