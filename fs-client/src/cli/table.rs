//! [`Table`]: columns for people. No lines, numbers to the right, states in colour.

use std::fmt::Display;

use comfy_table::{Attribute, Cell, CellAlignment, Color, presets::NOTHING};

use super::output::{self, Mood};

/// See the head of this file.
pub(super) struct Table {
    table: comfy_table::Table,
    indent: &'static str,
}

impl Table {
    /// With these headings; `indent` stands before every line.
    pub(super) fn new<const N: usize>(indent: &'static str, header: [&str; N]) -> Self {
        let mut table = Self::without_header(indent);
        let cells = header.map(|text| Cell::new(text).add_attribute(Attribute::Bold));
        table.table.set_header(cells);
        table
    }

    /// Without headings.
    pub(super) fn without_header(indent: &'static str) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING);
        if output::colored() {
            table.enforce_styling().style_text_only();
        } else {
            table.force_no_tty();
        }
        Self { table, indent }
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.table.add_row(cells);
    }

    /// The columns from `first` up to `end` hold numbers.
    pub(super) fn numbers(mut self, first: usize, end: usize) -> Self {
        for column in first..end {
            if let Some(column) = self.table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self
    }

    /// Prints it.
    pub(super) fn print(mut self) {
        if let Some(first) = self.table.column_mut(0) {
            first.set_padding((0, 1));
        }
        for line in self.table.trim_fmt().lines() {
            println!("{}{}", self.indent, line.trim_end());
        }
    }
}

/// A cell with this text.
pub(super) fn cell(text: impl Display) -> Cell {
    Cell::new(text)
}

/// A cell in the colour of `mood`.
pub(super) fn mood_cell(text: impl Display, mood: Mood) -> Cell {
    let cell = Cell::new(text);
    match mood {
        Mood::Good => cell.fg(Color::DarkGreen),
        Mood::Doubtful => cell.fg(Color::DarkYellow),
        Mood::Bad => cell.fg(Color::DarkRed),
        Mood::Heading => cell.add_attribute(Attribute::Bold),
    }
}

/// The state of a node as a cell: up, away on purpose, or away.
pub(super) fn state_cell(state: &str) -> Cell {
    mood_cell(state, state_mood(state))
}

/// How good a node's state is.
pub(super) fn state_mood(state: &str) -> Mood {
    match state {
        "up" => Mood::Good,
        "down" | "out" => Mood::Bad,
        _ => Mood::Doubtful,
    }
}
