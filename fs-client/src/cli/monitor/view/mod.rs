//! Draws a [`Model`] on a terminal of any size.
//!
//! From top to bottom: a line about the master, graphs, processes, clients where there is room, space. What
//! does not fit is left out from the least important on; nothing is drawn half.

mod graphs;
mod processes;
mod summary;

use std::time::{Duration, Instant};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, BorderType, Paragraph, Wrap},
};

use super::model::{ClusterMoment, Model};
use crate::cli::units;

/// How it is drawn.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// Time between two points of a graph.
    pub(super) interval: Duration,
    /// Whether colours are wanted.
    pub(super) colored: bool,
}

impl Settings {
    fn color(self, color: Color) -> Style {
        if self.colored { Style::new().fg(color) } else { Style::new() }
    }

    fn dim(self) -> Style {
        if self.colored { Style::new().add_modifier(Modifier::DIM) } else { Style::new() }
    }

    fn state(self, state: &str) -> Style {
        match state {
            "up" | "running" => self.color(Color::Green),
            "down" | "out" => self.color(Color::Red),
            _ => self.color(Color::Yellow),
        }
    }

    /// A frame with a title, and behind it a value in `color`.
    fn block(self, title: &'static str, value: &str, color: Color) -> Block<'static> {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut line = vec![Span::styled(format!(" {title} "), bold)];
        if !value.is_empty() {
            line.push(Span::styled(format!("{value} "), self.color(color)));
        }
        Block::bordered()
            .border_type(BorderType::Rounded)
            .border_style(self.color(Color::DarkGray))
            .title(Line::from(line))
    }

    /// A frame with a title.
    fn plain_block(self, title: &'static str) -> Block<'static> {
        self.block(title, "", Color::Reset)
    }
}

/// Smaller than this, there are only words.
const SMALLEST: (u16, u16) = (60, 16);

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, settings: Settings) {
    let area = frame.area();
    let banner = banner(model, settings);
    let banner_height = if banner.is_some() { 2 } else { 0 };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return draw_words(frame, model, settings, banner);
    }
    let known = model.known.as_ref().map(|(_, cluster)| cluster);
    let nodes = known.map_or(0, |c| c.nodes.len());
    let rows = u16::try_from(nodes).unwrap_or(u16::MAX).saturating_add(4);
    let processes = rows.min((area.height - 12) / 2 + 1);
    let clients = known.map_or(0, |c| u16::try_from(c.clients.len()).unwrap_or(u16::MAX));
    let clients = if area.height >= 34 { clients.saturating_add(3).clamp(4, 10) } else { 0 };
    let heights = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(banner_height),
        Constraint::Fill(1),
        Constraint::Length(processes),
        Constraint::Length(clients),
        Constraint::Length(5),
        Constraint::Length(1),
    ]);
    let [head, notice, top, middle, below, space, foot] = heights.areas(area);
    frame.render_widget(header(model, settings, head.width), head);
    if let Some(banner) = banner {
        frame.render_widget(banner, notice);
    }
    graphs::draw(frame, top, model, settings);
    if let Some(cluster) = known {
        processes::draw(frame, middle, cluster, settings);
        if clients > 0 {
            summary::draw_clients(frame, below, cluster, settings);
        }
        summary::draw(frame, space, cluster, settings);
    }
    let keys =
        format!("q, Esc or Ctrl+C quits   a look every {} s", settings.interval.as_secs_f64());
    frame.render_widget(Line::styled(keys, settings.dim()), foot);
}

/// Health, and since when the master runs.
fn header(model: &Model, settings: Settings, width: u16) -> Paragraph<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut left = vec![Span::styled("Cairn", bold)];
    if let Some(now) = &model.now {
        left.push(Span::raw(format!("  {}  ", now.master)));
        left.push(match &now.cluster {
            Some(cluster) if cluster.healthy => {
                Span::styled("● healthy", settings.color(Color::Green))
            }
            Some(cluster) => {
                Span::styled(format!("● {}", trouble(cluster)), settings.color(Color::Yellow))
            }
            None => Span::styled("● master away", settings.color(Color::Red)),
        });
    } else {
        left.push(Span::raw("  asking the master ..."));
    }
    let right = match model.now.as_ref().and_then(|now| now.cluster.as_ref()) {
        Some(cluster) => format!("up {}", units::seconds(cluster.master_process.uptime_seconds)),
        None => String::new(),
    };
    let used: usize = left.iter().map(Span::width).sum();
    let gap = usize::from(width).saturating_sub(used + right.len());
    if gap > 0 {
        left.push(Span::raw(" ".repeat(gap)));
        left.push(Span::styled(right, settings.dim()));
    }
    Paragraph::new(Line::from(left))
}

/// What is not as it should be, in few words.
fn trouble(cluster: &ClusterMoment) -> String {
    let mut words = Vec::new();
    let away = cluster.nodes.iter().filter(|n| n.state != "up").count();
    let failed: u64 = cluster.nodes.iter().map(|n| n.failed_disks).sum();
    if cluster.nodes.is_empty() {
        words.push("no storage nodes".to_owned());
    }
    if away > 0 {
        words.push(format!("{away} of {} nodes away", cluster.nodes.len()));
    }
    if failed > 0 {
        words.push(units::plural(failed, "failed disk"));
    }
    if cluster.degraded_groups > 0 {
        words.push(units::plural(cluster.degraded_groups, "degraded group"));
    }
    if cluster.groups_not_whole > 0 {
        words.push(format!(
            "{} lack copies",
            units::plural(cluster.groups_not_whole.into(), "group")
        ));
    }
    if !cluster.safe_mode.is_empty() {
        words.push("safe mode".to_owned());
    }
    words.join(", ")
}

/// Why there is nothing new, while there is nothing new.
fn banner(model: &Model, settings: Settings) -> Option<Paragraph<'static>> {
    let why = model.now.as_ref()?.error.clone()?;
    let since = model.known.as_ref().map_or_else(String::new, |(at, _)| {
        let age = Instant::now().saturating_duration_since(*at).as_secs();
        format!("What is below is {} old; still asking. ", units::seconds(age))
    });
    let text = format!("{since}{why}");
    Some(Paragraph::new(text).style(settings.color(Color::Red)).wrap(Wrap { trim: true }))
}

/// For a terminal that is too small for pictures.
fn draw_words(
    frame: &mut Frame<'_>,
    model: &Model,
    settings: Settings,
    banner: Option<Paragraph<'static>>,
) {
    let area = frame.area();
    if let Some(banner) = banner {
        frame.render_widget(banner, area);
        return;
    }
    let mut lines = vec![Line::raw("Cairn: asking the master ...")];
    if let Some((_, cluster)) = &model.known {
        lines = summary::words(cluster, settings);
        lines.insert(
            0,
            if cluster.healthy {
                Line::styled("● healthy", settings.color(Color::Green))
            } else {
                Line::styled(format!("● {}", trouble(cluster)), settings.color(Color::Yellow))
            },
        );
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), area);
}

/// `▇▇▇▇▁▁▁▁`: how much of `width` cells `share` (0 to 1) fills.
fn bar(share: f64, width: usize) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to width")]
    #[expect(clippy::cast_precision_loss, reason = "a number of cells")]
    let full = ((share.clamp(0.0, 1.0) * width as f64).round() as usize).min(width);
    format!("{}{}", "█".repeat(full), "░".repeat(width - full))
}

/// The inner part of a frame.
fn framed(frame: &mut Frame<'_>, area: Rect, block: Block<'_>) -> Rect {
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

#[cfg(test)]
mod tests;
