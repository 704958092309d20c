//! The table of processes: the master and the storage nodes.

use std::ops::RangeInclusive;

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Cell, Row, Table},
};

use super::{Settings, bar};
use crate::cli::{
    monitor::{
        lines,
        model::{ClusterMoment, NodeMoment, ProcessLoad},
    },
    units,
};

/// Columns of a name.
const NAME: RangeInclusive<u16> = 7..=24;
/// What the columns between name and disk need, with blanks and borders.
const TAKEN: u16 = 11 + 5 + 4 * 10 + 7 + 2;
/// Columns of a percentage; where a disk has at least as many as the second, a bar stands before it.
const PERCENT: u16 = 5;
const BAR_FROM: u16 = 12;
const BAR_MOST: u16 = 60;

/// Draws the table into `area`. Of many nodes, those that are not up come first when not all fit.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, cluster: &ClusterMoment, settings: Settings) {
    let header =
        ["PROCESS", "STATE", "CPU", "MEMORY", "IN/s", "OUT/s", "CHUNKS", "DISK"].into_iter();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let header = header.enumerate().map(|(column, text)| {
        if (2..7).contains(&column) { right(text.to_owned()) } else { Cell::new(text) }
    });
    let name = longest(cluster).clamp(*NAME.start(), *NAME.end());
    let disk = area.width.saturating_sub(TAKEN + name);
    let disk = if disk < BAR_FROM { PERCENT } else { disk.min(BAR_MOST) };
    let widths = [name, 11, 5, 10, 10, 10, 10, disk].map(Constraint::Length);
    let room = usize::from(area.height).saturating_sub(4);
    let mut nodes: Vec<&NodeMoment> = cluster.nodes.iter().collect();
    let hidden = nodes.len().saturating_sub(room);
    if hidden > 0 {
        nodes.sort_by_key(|node| node.state == "up");
        nodes.truncate(room);
    }
    let mut rows = vec![master(cluster, settings)];
    rows.extend(nodes.into_iter().map(|node| row(node, disk, settings)));
    let mut block = settings.plain_block("Processes");
    if hidden > 0 {
        let text = format!(" and {} ", units::plural(hidden as u64, "more node"));
        block = block.title_bottom(Line::styled(text, settings.dim()).right_aligned());
    }
    let table = Table::new(rows, widths).header(Row::new(header).style(bold)).block(block);
    frame.render_widget(table, area);
}

fn longest(cluster: &ClusterMoment) -> u16 {
    let names = cluster.nodes.iter().map(|node| Line::raw(node.name.as_str()).width());
    u16::try_from(names.max().unwrap_or(0)).unwrap_or(u16::MAX)
}

fn right(text: String) -> Cell<'static> {
    Cell::new(Line::raw(text).alignment(Alignment::Right))
}

fn load(process: &ProcessLoad) -> [Cell<'static>; 2] {
    let cpu = process.cpu_percent.map_or_else(|| "-".to_owned(), |p| format!("{p:.0}%"));
    [right(cpu), right(units::bytes(process.resident_bytes))]
}

fn master(cluster: &ClusterMoment, settings: Settings) -> Row<'static> {
    let [cpu, memory] = load(&cluster.master_process);
    let state = Cell::new("running").style(settings.state("running"));
    Row::new([Cell::new("master"), state, cpu, memory])
}

fn row(node: &NodeMoment, width: u16, settings: Settings) -> Row<'static> {
    let [cpu, memory] = load(&node.process);
    let taken = node.capacity_bytes.saturating_sub(node.free_bytes);
    let share = units::ratio(taken, node.capacity_bytes);
    let percent = format!("{:>4.0}%", share * 100.0);
    let cells = usize::from(width).saturating_sub(percent.len());
    let color = match share {
        s if s < 0.8 => Color::Green,
        s if s < 0.95 => Color::Yellow,
        _ => Color::Red,
    };
    let disk = if node.failed_disks > 0 {
        Cell::new(units::plural(node.failed_disks, "failed disk")).style(settings.state("down"))
    } else {
        Cell::new(format!("{}{percent}", bar(share, cells))).style(settings.color(color))
    };
    Row::new([
        Cell::new(node.name.clone()),
        Cell::new(node.state).style(settings.state(node.state)),
        cpu,
        memory,
        right(lines::rate(node.bytes_in_per_second)),
        right(lines::rate(node.bytes_out_per_second)),
        right(units::bytes(node.chunk_bytes)),
        disk,
    ])
}
