//! One interval as people read it.

use ratatui::crossterm::terminal;

use super::{
    super::{
        output::{Mood, painted},
        table::{Table, cell, mood_cell},
        units,
    },
    ProfileReport, TimedOperation,
};
use crate::activity::report::ENDED;

/// What took longer than this is worth a look.
const SLOW_US: u64 = 1_000_000;
/// Lines of headings and blanks.
const FRAME: usize = 6;

/// Prints it; with `live`, no more than the terminal's lines.
pub(super) fn print(report: &ProfileReport, live: bool) {
    let state = if report.connected {
        painted("connected to its master", Mood::Good)
    } else {
        painted("NOT connected to its master", Mood::Bad)
    };
    println!("{}: {state}, {:.1} s", report.mount, report.seconds);
    println!();
    let height = if live {
        terminal::size().map_or(usize::MAX, |(_, rows)| rows.into())
    } else {
        usize::MAX
    };
    let room = height.saturating_sub(FRAME);
    // At least a third for the processes, where there are so many.
    let processes = report.processes.len().min(room / 3);
    operations(report, room - processes);
    println!();
    self::processes(report, room.saturating_sub(report.operations.len().min(room - processes)));
    if !live {
        println!();
    }
}

fn operations(report: &ProfileReport, most: usize) {
    if report.operations.is_empty() {
        println!("No operation was done and none is under way.");
        return;
    }
    let header = [
        "operation",
        "per s",
        "mean",
        "p99",
        "slowest",
        "bytes/s",
        "failed",
        "in flight",
        "oldest",
    ];
    let mut table = Table::new("", header).numbers(1, 9);
    for operation in report.operations.iter().take(most) {
        let failed = units::count(operation.failed);
        table.row([
            cell(&operation.operation),
            cell(rate(operation.per_second)),
            cell(time(operation.mean_us)),
            cell(time(operation.p99_us)),
            slow(operation.slowest_us),
            cell(bytes(operation.bytes_per_second)),
            cell(failed),
            cell(units::count(operation.in_flight)),
            slow(operation.oldest_us),
        ]);
    }
    table.print();
}

fn processes(report: &ProfileReport, most: usize) {
    if report.processes.is_empty() {
        return;
    }
    let header =
        ["pid", "process", "per s", "bytes/s", "failed", "slowest", "in flight", "waits for"];
    let mut table = Table::new("", header).numbers(0, 1).numbers(2, 5).numbers(6, 7);
    let (ended, here): (Vec<_>, Vec<_>) = report.processes.iter().partition(|p| p.name == ENDED);
    for process in here.iter().take(most.saturating_sub(usize::from(!ended.is_empty()))) {
        table.row([
            cell(process.pid),
            cell(&process.name),
            cell(rate(process.per_second)),
            cell(bytes(process.bytes_per_second)),
            cell(units::count(process.failed)),
            named(process.slowest.as_ref()),
            cell(units::count(process.in_flight)),
            named(process.waiting.as_ref()),
        ]);
    }
    // Short-lived programs would fill the screen with lines that say nothing.
    if !ended.is_empty() {
        let slowest = ended.iter().filter_map(|p| p.slowest.as_ref()).max_by_key(|t| t.us);
        let waiting = ended.iter().filter_map(|p| p.waiting.as_ref()).max_by_key(|t| t.us);
        table.row([
            cell("-"),
            cell(format!("{} that ended", units::count(ended.len() as u64))),
            cell(rate(ended.iter().map(|p| p.per_second).sum())),
            cell(bytes(ended.iter().map(|p| p.bytes_per_second).sum())),
            cell(units::count(ended.iter().map(|p| p.failed).sum())),
            named(slowest),
            cell(units::count(ended.iter().map(|p| p.in_flight).sum())),
            named(waiting),
        ]);
    }
    table.print();
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}") } else { units::count(per_second as u64) }
}

fn bytes(per_second: f64) -> String {
    if per_second < 1.0 { "-".to_owned() } else { units::bytes(per_second as u64) }
}

fn named(timed: Option<&TimedOperation>) -> comfy_table::Cell {
    match timed {
        None => cell("-"),
        Some(timed) => {
            let text = format!("{} {}", timed.operation, time(Some(timed.us)));
            if timed.us >= SLOW_US { mood_cell(text, Mood::Doubtful) } else { cell(text) }
        }
    }
}

fn slow(us: Option<u64>) -> comfy_table::Cell {
    match us {
        Some(us) if us >= SLOW_US => mood_cell(time(Some(us)), Mood::Doubtful),
        us => cell(time(us)),
    }
}

/// `85 us`, `1.2 ms`, `3.4 s`
fn time(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us @ 0..1000) => format!("{us} us"),
        Some(us @ 1000..1_000_000) => format!("{:.1} ms", us as f64 / 1e3),
        Some(us @ 1_000_000..60_000_000) => format!("{:.1} s", us as f64 / 1e6),
        Some(us) => units::seconds(us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(time(None), "-");
        assert_eq!(time(Some(999)), "999 us");
        assert_eq!(time(Some(1500)), "1.5 ms");
        assert_eq!(time(Some(2_340_000)), "2.3 s");
        assert_eq!(time(Some(120_000_000)), "2 min");
        assert_eq!((rate(0.5), rate(12_345.6)), ("0.5".into(), "12,345".into()));
    }
}
