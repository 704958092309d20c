//! [`Spool`]: rows of a report that may be longer than memory.
//!
//! The first rows stay in memory, the others go to a temporary file without a name, which the system
//! removes with the process. A spool is written first and read as often as wanted afterwards.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Seek, Write},
};

use serde::{Serialize, Serializer, de::DeserializeOwned, ser::SerializeSeq};

use super::failure::Failure;

/// Why rows could not be put aside or read back.
#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
pub(super) fn full(error: io::Error) -> Failure {
    let directory = std::env::temp_dir();
    Failure::new(format!(
        "a temporary file in {}: {error}; make room there or set TMPDIR",
        directory.display()
    ))
}

/// Rows kept in memory.
const IN_MEMORY: usize = 1024;

/// See the head of this file.
pub struct Spool<T> {
    first: Vec<T>,
    rest: Option<BufWriter<File>>,
    len: u64,
}

impl<T> Default for Spool<T> {
    fn default() -> Self {
        Self { first: Vec::new(), rest: None, len: 0 }
    }
}

impl<T: Serialize + DeserializeOwned> Spool<T> {
    /// Adds a row.
    ///
    /// # Errors
    /// When the temporary directory is full.
    pub(super) fn push(&mut self, row: T) -> io::Result<()> {
        self.len += 1;
        if self.first.len() < IN_MEMORY {
            self.first.push(row);
            return Ok(());
        }
        let file = match self.rest.take() {
            Some(file) => file,
            None => BufWriter::new(tempfile::tempfile()?),
        };
        let file = self.rest.insert(file);
        serde_json::to_writer(&mut *file, &row)?;
        file.write_all(b"\n")
    }

    /// Rows.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Says that there will be no further row: what is buffered goes to the file.
    ///
    /// # Errors
    /// When the temporary directory is full.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.rest.as_mut().map_or(Ok(()), BufWriter::flush)
    }

    /// Gives every row to `each`, until that fails.
    ///
    /// # Errors
    /// When the file cannot be read; what `each` says.
    pub(super) fn each<E: From<io::Error>>(
        &self,
        mut each: impl FnMut(&T) -> Result<(), E>,
    ) -> Result<(), E> {
        self.first.iter().try_for_each(&mut each)?;
        let Some(rest) = &self.rest else { return Ok(()) };
        let mut file = rest.get_ref();
        file.rewind()?;
        for line in BufReader::new(file).lines() {
            each(&serde_json::from_str(&line?).map_err(io::Error::from)?)?;
        }
        Ok(())
    }
}

impl<T: Serialize + DeserializeOwned> Serialize for Spool<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(None)?;
        self.each(|row| rows.serialize_element(row).map_err(Broken)).map_err(|Broken(e)| e)?;
        rows.end()
    }
}

/// An error of a serializer that an error of the file can be turned into.
struct Broken<E>(E);

impl<E: serde::ser::Error> From<io::Error> for Broken<E> {
    fn from(error: io::Error) -> Self {
        Self(E::custom(format!("the temporary file: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_beyond_memory_come_back_in_order_and_more_than_once() {
        let mut spool = Spool::default();
        let rows = 3 * IN_MEMORY as u64;
        (0..rows).try_for_each(|n| spool.push((n, format!("row\n{n}")))).unwrap();
        spool.finish().unwrap();
        assert_eq!(spool.len(), rows);
        for _ in 0..2 {
            let mut next = 0;
            spool
                .each(|(n, text)| {
                    assert_eq!((*n, text.as_str()), (next, format!("row\n{next}").as_str()));
                    next += 1;
                    Ok::<_, io::Error>(())
                })
                .unwrap();
            assert_eq!(next, rows);
        }
        let json: Vec<(u64, String)> =
            serde_json::from_str(&serde_json::to_string(&spool).unwrap()).unwrap();
        assert_eq!(json.len() as u64, rows);
    }

    #[test]
    fn an_empty_spool_is_an_empty_list() {
        assert_eq!(serde_json::to_string(&Spool::<u32>::default()).unwrap(), "[]");
    }
}
