//! Throughput and operations over time.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Color,
    text::Line,
    widgets::{Paragraph, RenderDirection, Sparkline},
};

use super::{Settings, framed};
use crate::cli::{
    monitor::{
        lines,
        model::{Model, Point},
    },
    units,
};

/// From this width on, everything stands in one row.
const WIDE: u16 = 120;
/// Below this height, too.
const FLAT: u16 = 9;
/// Columns of the list of operations.
const KINDS: u16 = 30;

/// Draws the graphs into `area`.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, settings: Settings) {
    let third = Constraint::Fill(1);
    if area.width >= WIDE {
        let columns = Layout::horizontal([third, third, third, Constraint::Length(KINDS)]);
        let [left, middle, right, kinds] = columns.areas(area);
        draw_in(frame, left, model, settings);
        draw_out(frame, middle, model, settings);
        draw_operations(frame, right, model, settings);
        draw_kinds(frame, kinds, model, settings);
    } else if area.height < FLAT {
        let [left, middle, right] = Layout::horizontal([third; 3]).areas(area);
        draw_in(frame, left, model, settings);
        draw_out(frame, middle, model, settings);
        draw_operations(frame, right, model, settings);
    } else {
        let [upper, lower] = Layout::vertical([third, third]).areas(area);
        let [left, right] = Layout::horizontal([third, third]).areas(upper);
        draw_in(frame, left, model, settings);
        draw_out(frame, right, model, settings);
        let [left, right] = Layout::horizontal([third, third]).areas(lower);
        draw_operations(frame, left, model, settings);
        draw_kinds(frame, right, model, settings);
    }
}

fn draw_in(frame: &mut Frame<'_>, area: Rect, model: &Model, settings: Settings) {
    let text = |n: Option<f64>| format!("{}/s", lines::rate(n));
    graph(frame, area, model, settings, ("In", Color::Green, |p| p.bytes_in), text);
}

fn draw_out(frame: &mut Frame<'_>, area: Rect, model: &Model, settings: Settings) {
    let text = |n: Option<f64>| format!("{}/s", lines::rate(n));
    graph(frame, area, model, settings, ("Out", Color::Cyan, |p| p.bytes_out), text);
}

fn draw_operations(frame: &mut Frame<'_>, area: Rect, model: &Model, settings: Settings) {
    let text = |n: Option<f64>| n.map_or_else(|| "-".to_owned(), lines::operations) + "/s";
    let what = ("Operations", Color::Yellow, |p: &Point| p.operations);
    graph(frame, area, model, settings, what, text);
}

/// A title, a colour, and what of a point is shown.
type What<F> = (&'static str, Color, F);

fn graph(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    settings: Settings,
    (title, color, of): What<impl Fn(&Point) -> Option<f64>>,
    text: impl Fn(Option<f64>) -> String,
) {
    let width = usize::from(area.width.saturating_sub(2));
    let points: Vec<Option<f64>> = model.history.iter().rev().take(width).map(of).collect();
    let peak = points.iter().flatten().copied().fold(0.0, f64::max);
    let now = points.first().copied().flatten();
    let mut block = settings.block(title, &text(now), color);
    if area.height > 3 {
        let span = settings.interval * u32::try_from(width).unwrap_or(u32::MAX);
        block = block
            .title_bottom(Line::styled(format!(" {} ago ", ago(span)), settings.dim()))
            .title_bottom(
                Line::styled(format!(" peak {} ", text(Some(peak))), settings.dim())
                    .right_aligned(),
            );
    }
    let inner = framed(frame, area, block);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
    let height = |value: f64| if peak > 0.0 { (value / peak * 10_000.0) as u64 } else { 0 };
    let bars: Vec<Option<u64>> = points.iter().map(|p| p.map(height)).collect();
    let graph = Sparkline::default()
        .data(&bars)
        .max(10_000)
        .direction(RenderDirection::RightToLeft)
        .absent_value_symbol(" ")
        .style(settings.color(color));
    frame.render_widget(graph, inner);
}

/// `38 s`, `2 min 18 s`
fn ago(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 60, seconds % 60) {
        (1..60, rest) if rest != 0 => format!("{} min {rest} s", seconds / 60),
        _ => units::seconds(seconds),
    }
}

/// The kinds of operations that happen most.
fn draw_kinds(frame: &mut Frame<'_>, area: Rect, model: &Model, settings: Settings) {
    let inner = framed(frame, area, settings.plain_block("Most frequent"));
    let Some((_, cluster)) = &model.known else { return };
    let mut kinds: Vec<_> = cluster.operations.iter().collect();
    kinds.sort_by(|a, b| b.1.total_cmp(a.1));
    let width = usize::from(inner.width).saturating_sub(1);
    let mut rows = Vec::new();
    for (kind, rate) in kinds.into_iter().take(usize::from(inner.height)) {
        let rate = format!("{}/s", lines::operations(*rate));
        let room = width.saturating_sub(rate.len() + 1);
        let kind: String = kind.replace('_', " ").chars().take(room).collect();
        rows.push(Line::raw(format!(" {kind:<room$} {rate}")));
    }
    if rows.is_empty() {
        rows.push(Line::styled(" none", settings.dim()));
    }
    frame.render_widget(Paragraph::new(rows), inner);
}
