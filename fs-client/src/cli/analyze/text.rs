//! The report for people.

use super::report::{AnalyzeReport, Chunks, Process};
use crate::cli::{
    failure::Failure,
    output::{Mood, painted},
    spool,
    table::{Table, cell, mood_cell, state_mood},
    units,
};

/// Hex digits of a chunk's id that are shown.
const ID_SHOWN: usize = 16;

impl AnalyzeReport {
    /// # Errors
    /// When a temporary file cannot be read.
    pub(super) fn print(&self) -> Result<(), Failure> {
        println!(
            "{}",
            painted(&format!("Cairn analysis of file system {}", self.fs), Mood::Heading)
        );
        self.print_system();
        self.print_storage();
        self.print_chunks()?;
        self.print_files()?;
        self.print_network();
        Ok(())
    }

    fn print_system(&self) {
        section("SYSTEM STATUS");
        let header = ["", "PROCESS", "ROLE", "STATE", "PID", "PORT", "CPU", "MEMORY", "UP"];
        let mut table = Table::new("  ", header);
        for p in &self.processes {
            let mood = if p.answers() { p.mood() } else { Mood::Bad };
            let mark = if mood == Mood::Good { "✓" } else { "✗" };
            let up = if p.answers() {
                units::seconds(p.uptime_seconds)
            } else {
                format!("silent {}", units::seconds(p.silent_ms / 1000))
            };
            table.row([
                mood_cell(mark, mood),
                cell(&p.name),
                cell(p.role),
                mood_cell(p.state, mood),
                cell(p.pid),
                cell(p.port.map(|port| port.to_string()).unwrap_or_default()),
                cell(units::cpu(p.cpu_ms)),
                cell(units::bytes(p.resident_bytes)),
                cell(up),
            ]);
        }
        table.numbers(4, 8).print();
        for p in &self.processes {
            if let Some(why) = &p.error {
                println!("  {} does not answer: {}", p.name, painted(why, Mood::Bad));
            }
        }
        for client in &self.clients {
            let away = if client.connected { "" } else { ", away" };
            let open = units::plural(client.open_inodes, "open file");
            println!("  client {}: {open}{away}", client.client);
        }
    }

    fn print_storage(&self) {
        section("STORAGE ANALYSIS");
        for node in &self.storage {
            let as_of = if self.chunks.not_counted.contains_key(&node.node) {
                " (as it last reported)"
            } else {
                ""
            };
            println!("  {}{as_of}", node.node);
            println!("    Chunks     {}", units::count(node.chunks));
            println!("    Size       {}", units::bytes(node.chunk_bytes));
            println!(
                "    Free       {} of {}",
                units::bytes(node.free_bytes),
                units::bytes(node.capacity_bytes)
            );
            for disk in &node.disks {
                let failed =
                    if disk.failed { painted(" FAILED", Mood::Bad) } else { String::new() };
                println!("    Location   {}{failed}", disk.path);
            }
        }
        if self.storage.is_empty() {
            println!("  no storage node has registered yet");
        }
    }

    fn print_chunks(&self) -> Result<(), Failure> {
        section("CHUNK ANALYSIS - SHA-256");
        let chunks = &self.chunks;
        println!(
            "  Total chunks         {} ({})",
            units::count(chunks.total),
            units::bytes(chunks.total_bytes)
        );
        println!(
            "  Unique chunks        {} ({})",
            units::count(chunks.unique),
            units::bytes(chunks.unique_bytes)
        );
        println!(
            "  Replication factor   {:.2} (wanted: {})",
            chunks.replication_factor, chunks.replicas_wanted
        );
        println!("  Copies               {}", chunks.copies_text());
        println!(
            "  Deduplication ratio  {:.2} ({} in {})",
            chunks.dedup_ratio,
            units::bytes(chunks.referenced_bytes),
            units::plural(chunks.references, "reference")
        );
        println!(
            "  Compression ratio    {:.2} ({} of content; {})",
            chunks.compression_ratio,
            units::bytes(chunks.content_bytes),
            chunks.codecs_text()
        );
        println!(
            "  Not referred to      {} ({})",
            units::count(chunks.unreferenced),
            units::bytes(chunks.unreferenced_bytes)
        );
        for (node, why) in &chunks.not_counted {
            let what = format!("the copies on {node} are not counted: {why}");
            println!("  {}", painted(&what, Mood::Bad));
        }
        if self.distribution.len() == 0 {
            return Ok(());
        }
        println!();
        println!(
            "  Chunk distribution{}",
            of_all(self.distribution.len(), chunks.copies.values().sum())
        );
        let printed = self.distribution.each(|row| {
            let copies = if row.replicas.is_empty() {
                painted("LOST", Mood::Bad)
            } else {
                row.replicas.join(" ")
            };
            println!(
                "    {}…  {:>9}  [{copies}]  {}",
                &row.id[..ID_SHOWN.min(row.id.len())],
                units::bytes(row.bytes.into()),
                units::plural(row.references, "reference")
            );
            Ok(())
        });
        printed.map_err(spool::full)
    }

    fn print_files(&self) -> Result<(), Failure> {
        section("FILE MANIFEST");
        let files = &self.files;
        println!(
            "  {}, {}, {}; {} in all",
            units::plural(files.files, "file"),
            units::directories(files.directories),
            units::plural(files.others, "link or special file"),
            units::bytes(files.logical_bytes)
        );
        if self.manifest.len() == 0 {
            return Ok(());
        }
        println!();
        println!("  Files{}", of_all(self.manifest.len(), files.names));
        let printed = self.manifest.each(|row| {
            println!(
                "    {:>12}  {:>10}  {}",
                units::plural(row.chunks, "chunk"),
                units::bytes(row.bytes),
                row.path.replace(char::is_control, "?")
            );
            Ok(())
        });
        printed.map_err(spool::full)
    }

    fn print_network(&self) {
        section("NETWORK CONFIGURATION");
        let network = &self.network;
        println!("  Protocol     {}, version {}", network.protocol, network.protocol_version);
        println!("  Master       {}", network.master);
        for (node, address) in &network.nodes {
            println!("  {node:<12} {address}");
        }
        println!("  Chunk size   {}", units::bytes(network.chunk_size.into()));
        println!("  Hash         {}", network.hash);
    }
}

fn section(name: &str) {
    println!();
    println!("{}", painted(&format!("[{name}]"), Mood::Heading));
}

/// How much of everything is listed, when it is not everything.
fn of_all(listed: u64, all: u64) -> String {
    if listed >= all {
        return String::new();
    }
    format!(" (the first {} of {}; --all lists them)", units::count(listed), units::count(all))
}

impl Process {
    fn mood(&self) -> Mood {
        if self.role == "master" { Mood::Good } else { state_mood(self.state) }
    }
}

impl Chunks {
    fn codecs_text(&self) -> String {
        if self.codecs.is_empty() {
            return "no chunks".to_owned();
        }
        let part =
            |(codec, references): (&&str, &u64)| format!("{} {codec}", units::count(*references));
        self.codecs.iter().map(part).collect::<Vec<_>>().join(", ")
    }

    fn copies_text(&self) -> String {
        if self.copies.is_empty() {
            return "no chunks".to_owned();
        }
        let group = |(copies, chunks): (&u32, &u64)| {
            let text = match copies {
                0 => format!("{} lost", units::count(*chunks)),
                1 => format!("{} with 1", units::count(*chunks)),
                n => format!("{} with {n}", units::count(*chunks)),
            };
            match (*copies, *copies >= self.replicas_wanted) {
                (0, _) if self.complete => painted(&text, Mood::Bad),
                (_, true) => text,
                (_, false) => painted(&text, Mood::Doubtful),
            }
        };
        self.copies.iter().map(group).collect::<Vec<_>>().join(", ")
    }
}
