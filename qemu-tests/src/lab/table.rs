//! Plain text tables.

/// Columns as wide as their widest cell, two spaces between them; cells that are numbers go right.
#[must_use]
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    let all = || std::iter::once(&header).chain(rows);
    let width = |column: usize| {
        all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let numeric = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit());
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column > 0
                && rows.iter().all(|r| r.get(column).is_none_or(|c| numeric(c) || c == "-"))
            {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let rows = [vec!["firmware".into(), "6.2".into()], vec!["joined".into(), "29.0".into()]];
        let table = render(&["phase", "s"], &rows);
        assert_eq!(table, "phase        s\nfirmware   6.2\njoined    29.0");
    }
}
