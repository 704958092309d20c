//! The report for people.

use std::io;

use cairn_proto::Codec;

use super::report::{ChunkInfo, Content, CopyState, FileInfo, InfoReport};
use crate::cli::{
    failure::Failure,
    output::{Mood, painted},
    spool, units,
};

/// Hex digits of a chunk's id that are shown.
const ID_SHOWN: usize = 16;

impl InfoReport {
    /// # Errors
    /// When a temporary file cannot be read.
    pub(super) fn print(&self) -> Result<(), Failure> {
        for (position, file) in self.files.iter().enumerate() {
            if position > 0 {
                println!();
            }
            file.print()?;
        }
        Ok(())
    }
}

impl FileInfo {
    fn print(&self) -> Result<(), Failure> {
        let path = self.path.replace(char::is_control, "?");
        println!("{}", painted(&path, Mood::Heading));
        println!(
            "  Type       {}, {}, owner {}:{}, {}, inode {}",
            self.kind,
            self.mode,
            self.uid,
            self.gid,
            units::plural(self.links.into(), "link"),
            self.inode
        );
        if let Some(target) = &self.target {
            println!("  Leads to   {}", target.replace(char::is_control, "?"));
        }
        if let Some(entries) = self.entries {
            println!("  Entries    {}", units::count(entries));
        }
        println!("  Modified   {} UTC", self.modified);
        println!("  Created    {} UTC", self.created);
        let Some(content) = &self.content else { return Ok(()) };
        println!("  Size       {} ({} bytes)", units::bytes(self.size), units::count(self.size));
        content.print()
    }
}

impl Content {
    fn print(&self) -> Result<(), Failure> {
        println!(
            "  Chunks     {} of up to {}, {} distinct ({}), {}",
            units::count(self.chunks),
            units::bytes(self.chunk_size.into()),
            units::count(self.distinct),
            units::bytes(self.distinct_bytes),
            units::plural(self.holes, "hole")
        );
        println!("  Copies     {}", self.copies_text());
        for (node, why) in &self.away {
            println!("  {}", painted(&format!("{node} does not answer: {why}"), Mood::Bad));
        }
        if self.list.len() == 0 {
            return Ok(());
        }
        println!();
        println!("{}", painted("     INDEX  CHUNK                   SIZE  COPIES", Mood::Heading));
        let mut next = 0;
        let printed = self.list.each(|chunk| {
            let holes = chunk.index.saturating_sub(next);
            if holes > 0 {
                println!("  {next:>8}  {}", units::plural(holes, "hole"));
            }
            next = chunk.index + 1;
            chunk.print();
            io::Result::Ok(())
        });
        printed.map_err(spool::full)?;
        let rest = self.chunks.saturating_sub(self.list.len());
        if rest > 0 {
            println!("  and {} more: --all lists them", units::count(rest));
        }
        Ok(())
    }

    fn copies_text(&self) -> String {
        let mut parts = vec![format!(
            "{} of {} references with all {} copies",
            units::count(self.complete),
            units::count(self.chunks),
            self.copies_wanted
        )];
        for (number, what, mood) in [
            (self.fewer, "with fewer", Mood::Doubtful),
            (self.unknown, "not known", Mood::Doubtful),
            (self.lost, "LOST", Mood::Bad),
        ] {
            if number > 0 {
                parts.push(painted(&format!("{} {what}", units::count(number)), mood));
            }
        }
        parts.join(", ")
    }
}

impl ChunkInfo {
    fn print(&self) {
        let copy = |copy: &super::report::CopyInfo| {
            let mood = match copy.state {
                CopyState::Present => Mood::Good,
                CopyState::NodeAway => Mood::Doubtful,
                CopyState::Missing | CopyState::WrongLength => Mood::Bad,
            };
            format!("{} {}", copy.node, painted(copy.state.words(), mood))
        };
        let copies: Vec<_> = self.copies.iter().map(copy).collect();
        let packed = if self.codec == Codec::Plain.word() {
            String::new()
        } else {
            format!(" ({} of {})", self.codec, units::bytes(self.content_bytes.into()))
        };
        println!(
            "  {:>8}  {}…  {:>9}  {}{packed}",
            self.index,
            &self.id[..ID_SHOWN.min(self.id.len())],
            units::bytes(self.bytes.into()),
            copies.join(", ")
        );
    }
}
