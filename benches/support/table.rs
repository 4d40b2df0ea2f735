//! A Markdown table whose lines are printed as they come, aligned for a terminal.

/// Columns of a table: the first is text, the others are numbers.
pub struct Table {
    heads: Vec<String>,
    widths: Vec<usize>,
}

impl Table {
    /// A table of columns with these heads, each at least so many characters wide.
    pub fn new(columns: impl IntoIterator<Item = (impl Into<String>, usize)>) -> Self {
        let heads = columns.into_iter().map(|(head, width)| (head.into(), width));
        let (heads, widths) = heads.map(|(head, width)| (head.clone(), width.max(chars(&head)))).unzip();
        Self { heads, widths }
    }

    /// The two lines a table begins with.
    pub fn heading(&self) -> String {
        let rules: Vec<String> = (0..)
            .zip(&self.widths)
            .map(|(column, width)| "-".repeat(width - 1) + if column == 0 { "-" } else { ":" })
            .collect();
        format!("{}\n{}", self.line(&self.heads), self.line(&rules))
    }

    /// A line; cells that are missing are empty.
    pub fn line(&self, cells: &[String]) -> String {
        let mut line = String::from("|");
        for (column, width) in self.widths.iter().enumerate() {
            let cell = cells.get(column).map_or("", String::as_str).replace('|', "\\|");
            let padding = " ".repeat(width.saturating_sub(chars(&cell)));
            line += &if column == 0 { format!(" {cell}{padding} |") } else { format!(" {padding}{cell} |") };
        }
        line
    }
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Bytes as MiB.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / f64::from(1 << 20))
}
