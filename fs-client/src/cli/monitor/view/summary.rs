//! Space, deduplication, groups, clients.

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    style::{Color, Style},
    text::{Line, Span},
    widgets::{Paragraph, Row, Table},
};

use super::{Settings, bar, framed};
use crate::cli::{
    monitor::{lines, model::ClusterMoment},
    units,
};

/// Columns of the bar.
const BAR: usize = 18;

/// Draws three lines into `area`.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, cluster: &ClusterMoment, settings: Settings) {
    let inner = framed(frame, area, settings.plain_block("Store"));
    let lines = vec![space(cluster, settings), data(cluster), health(cluster, settings)];
    frame.render_widget(Paragraph::new(lines), inner);
}

fn space(cluster: &ClusterMoment, settings: Settings) -> Line<'static> {
    let used = cluster.capacity_bytes.saturating_sub(cluster.free_bytes);
    let share = units::ratio(used, cluster.capacity_bytes);
    let usable = cluster.free_bytes / u64::from(cluster.replicas.max(1));
    Line::from(vec![
        Span::raw(" Space   "),
        Span::styled(bar(share, BAR), settings.color(Color::Blue)),
        Span::raw(format!(
            " {} free of {}, room for {}",
            units::bytes(cluster.free_bytes),
            units::bytes(cluster.capacity_bytes),
            units::bytes(usable)
        )),
    ])
}

fn data(cluster: &ClusterMoment) -> Line<'static> {
    Line::raw(format!(
        " Data    {} in {}, stored {}, dedup {:.2}",
        units::bytes(cluster.logical_bytes),
        units::plural(cluster.files, "file"),
        units::bytes(cluster.stored_bytes),
        cluster.dedup_ratio
    ))
}

fn health(cluster: &ClusterMoment, settings: Settings) -> Line<'static> {
    let degraded = format!("{} degraded", units::count(cluster.degraded_groups));
    let style =
        if cluster.degraded_groups > 0 { settings.color(Color::Yellow) } else { Style::new() };
    let groups = Span::raw(format!(" Groups  {}, ", units::count(cluster.groups.into())));
    if cluster.groups_not_whole > 0 {
        let left = match cluster.repair_eta_seconds {
            0 => String::new(),
            seconds => format!(", about {} left", units::seconds(seconds)),
        };
        let repair = format!(
            ", {} lack {} of copies, {}/s{left}",
            units::count(cluster.groups_not_whole.into()),
            units::bytes(cluster.bytes_to_move),
            units::bytes(cluster.repair_bytes_per_second)
        );
        let repair = Span::styled(repair, settings.color(Color::Yellow));
        return Line::from(vec![groups, Span::styled(degraded, style), repair]);
    }
    Line::from(vec![
        groups,
        Span::styled(degraded, style),
        Span::raw(format!(
            ", {:.2} of {} copies   {}, {}",
            cluster.replication_ratio,
            cluster.replicas,
            units::plural(cluster.sessions, "session"),
            units::plural(cluster.open_files, "open file")
        )),
    ])
}

/// Draws the list of clients into `area`.
pub(super) fn draw_clients(
    frame: &mut Frame<'_>,
    area: Rect,
    cluster: &ClusterMoment,
    settings: Settings,
) {
    let block = settings.plain_block("Clients");
    if cluster.clients.is_empty() {
        let inner = framed(frame, area, block);
        frame.render_widget(Line::styled(" none", settings.dim()), inner);
        return;
    }
    let rows = cluster.clients.iter().map(|client| {
        let state = if client.connected { "connected" } else { "away" };
        let open = units::plural(client.open_files, "open file");
        Row::new([format!(" {}", client.name), state.to_owned(), open])
    });
    let longest = cluster.clients.iter().map(|client| Line::raw(&client.name).width()).max();
    let name = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX).saturating_add(2);
    let name = name.clamp(20, area.width.saturating_sub(32).max(20));
    let widths = [name, 10, 18].map(Constraint::Length);
    frame.render_widget(Table::new(rows, widths).block(block), area);
}

/// The same in a few short lines.
pub(super) fn words(cluster: &ClusterMoment, settings: Settings) -> Vec<Line<'static>> {
    let up = cluster.nodes.iter().filter(|n| n.state == "up").count();
    let operations = cluster.operations_per_second;
    vec![
        Line::styled(
            format!("In   {}/s", lines::rate(cluster.bytes_in_per_second)),
            settings.color(Color::Green),
        ),
        Line::styled(
            format!("Out  {}/s", lines::rate(cluster.bytes_out_per_second)),
            settings.color(Color::Cyan),
        ),
        Line::styled(
            format!("Ops  {}/s", operations.map_or_else(|| "-".to_owned(), lines::operations)),
            settings.color(Color::Yellow),
        ),
        Line::raw(format!("Nodes {up} of {} up", cluster.nodes.len())),
        Line::raw(units::plural(cluster.sessions, "session")),
        Line::raw(format!("{} free", units::bytes(cluster.free_bytes))),
        Line::raw("q quits"),
    ]
}
