//! Tables: columns as wide as their content, two spaces apart, nothing behind the last.

use std::fmt::Write as _;

/// Rows under a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<&'static str>,
    /// Cells by row; empty cells are shown as `-`.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The table as text, each line with its end. With `colour`, states stand out.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let mut lines = Lines::new(&self.header);
        for row in &self.rows {
            lines.widen(row);
        }
        let mut out = lines.header();
        for row in &self.rows {
            out.push_str(&lines.row(row, colour));
        }
        out
    }
}

/// A table whose rows are not all known yet: columns only grow.
#[derive(Debug)]
pub struct Lines {
    header: Vec<&'static str>,
    widths: Vec<usize>,
}

impl Lines {
    /// Columns as wide as their names.
    #[must_use]
    pub fn new(header: &[&'static str]) -> Self {
        let widths = header.iter().map(|name| name.chars().count()).collect();
        Self { header: header.to_vec(), widths }
    }

    /// Makes room for a row.
    pub fn widen(&mut self, row: &[String]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// The line of the column names.
    #[must_use]
    pub fn header(&self) -> String {
        self.line(self.header.iter().copied(), false)
    }

    /// The line of a row. With `colour`, states stand out.
    #[must_use]
    pub fn row(&self, row: &[String], colour: bool) -> String {
        self.line(row.iter().map(|cell| if cell.is_empty() { "-" } else { cell.as_str() }), colour)
    }

    fn line<'a>(&self, cells: impl Iterator<Item = &'a str>, colour: bool) -> String {
        let mut line = String::new();
        for (cell, &width) in cells.zip(&self.widths) {
            let paint = if colour { state_colour(cell) } else { None };
            // Cells come from the network too: no control character may reach the terminal.
            let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let (on, off) = if let Some(on) = paint { (on, "\x1b[0m") } else { ("", "") };
            write!(line, "{on}{cell:width$}{off}  ").unwrap_or_default();
        }
        format!("{}\n", line.trim_end())
    }
}

/// The colour of a phase: green as wanted, red for somebody to act, yellow on the way; of all else none.
fn state_colour(cell: &str) -> Option<&'static str> {
    match cell {
        "Ready" | "Running" => Some("\x1b[32m"),
        "Failed" | "Refused" | "Quarantined" | "Unreachable" | "Unknown" => Some("\x1b[31m"),
        "Booting" | "Joining" | "Pending" | "Granting" | "Releasing" => Some("\x1b[33m"),
        _ => None,
    }
}
