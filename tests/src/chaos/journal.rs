//! What a client has done, written down outside of the mount: `began N ACTION`, then `ended N MICROS ok`
//! or `ended N MICROS ERROR`. An action that only began is one in doubt.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use super::action::Action;

/// The writing side.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Goes on with the journal at `path`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::options().create(true).append(true).open(path)?))
    }

    /// Before action number `n`.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn began(&mut self, n: u64, action: &Action) -> io::Result<()> {
        self.0.write_all(format!("began {n} {action}\n").as_bytes())
    }

    /// After it.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn ended(&mut self, n: u64, took: Duration, result: &io::Result<()>) -> io::Result<()> {
        let word = match result {
            Ok(()) => "ok".to_owned(),
            Err(e) => e.to_string().replace('\n', " "),
        };
        self.0.write_all(format!("ended {n} {} {word}\n", took.as_micros()).as_bytes())
    }
}

/// An action and what became of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number.
    pub n: u64,
    /// What.
    pub action: Action,
    /// How long it took, when it ended.
    pub took: Option<Duration>,
    /// Why it failed; absent when it was acknowledged.
    pub failure: Option<String>,
}

/// Reads a whole journal.
///
/// # Errors
/// When the file cannot be read, or has a line that no client writes.
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let bad = |line: &str| io::Error::new(io::ErrorKind::InvalidData, line.to_owned());
    let mut entries: Vec<Entry> = Vec::new();
    for line in fs::read_to_string(path)?.lines() {
        let mut words = line.splitn(3, ' ');
        let (what, n, rest) = (words.next(), words.next(), words.next().unwrap_or_default());
        let n: u64 = n.and_then(|n| n.parse().ok()).ok_or_else(|| bad(line))?;
        match what {
            Some("began") => {
                let action = Action::parse(rest).ok_or_else(|| bad(line))?;
                let failure = Some("it never ended".to_owned());
                entries.push(Entry { n, action, took: None, failure });
            }
            Some("ended") => {
                let entry = entries.last_mut().filter(|e| e.n == n).ok_or_else(|| bad(line))?;
                let (micros, word) = rest.split_once(' ').ok_or_else(|| bad(line))?;
                entry.took = micros.parse().ok().map(Duration::from_micros);
                entry.failure = (word != "ok").then(|| word.to_owned());
            }
            Some(_) | None => return Err(bad(line)),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::{
        super::action::{Content, Safe},
        *,
    };

    #[test]
    fn what_was_written_down_is_read_back() {
        let place = crate::scratch("journal");
        let path = place.path().join("journal");
        let content = Content { seed: 7, len: 9 };
        let actions = [
            Action::Create("a".into(), content, Safe::Synced),
            Action::Replace("a".into(), content),
            Action::Append("a".into(), content, Safe::Closed),
            Action::Overwrite("a".into(), 3, content, Safe::Synced),
            Action::Truncate("a".into(), 5),
            Action::Rename("a".into(), "b".into()),
            Action::Link("b".into(), "c".into()),
            Action::Remove("c".into()),
            Action::MakeDir("d".into()),
            Action::RemoveDir("d".into()),
            Action::Read("b".into()),
        ];
        let mut journal = Journal::open(&path).unwrap();
        for (n, action) in (0..).zip(&actions) {
            journal.began(n, action).unwrap();
            let result = if n == 1 { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) };
            if n != 10 {
                journal.ended(n, Duration::from_micros(3), &result).unwrap();
            }
        }
        let entries = read(&path).unwrap();
        let read: Vec<_> = entries.iter().map(|e| e.action.clone()).collect();
        assert_eq!(read, actions);
        let failed: Vec<_> = entries.iter().filter(|e| e.failure.is_some()).map(|e| e.n).collect();
        assert_eq!(failed, [1, 10]);
        assert_eq!(entries[0].took, Some(Duration::from_micros(3)));
    }
}
