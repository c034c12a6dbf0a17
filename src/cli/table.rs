//! Tables: columns as wide as their widest cell and three blanks, and no narrower than Docker draws them. And times and ages in its words.

use std::time::SystemTime;

use super::format::{GAP, NARROWEST};

/// Rows under a header.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// How wide a column is at least, with the blanks behind it.
    narrowest: usize,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|&name| name.to_owned()).collect()], narrowest: NARROWEST }
    }

    /// The same table with columns of at least that width.
    pub(super) fn with_narrowest(self, narrowest: usize) -> Table {
        Table { narrowest, ..self }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table as lines.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(|column| (width(column) + GAP).max(self.narrowest)).collect();
        let mut lines = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }
}

/// How long ago `time` was, in Docker's words.
pub(super) fn ago(time: SystemTime) -> String {
    match SystemTime::now().duration_since(time) {
        Ok(age) => format!("{} ago", age_in_words(age.as_secs())),
        Err(_) => "in the future".to_owned(),
    }
}

/// Seconds as people say them: `3 seconds`, `About a minute`.
pub(super) fn age_in_words(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// A time as Docker writes it in lists, in UTC: `2024-01-31 12:00:00 +0000 UTC`.
pub(super) fn date(time: SystemTime) -> String {
    let timestamp = jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{} +0000 UTC", timestamp.strftime("%Y-%m-%d %H:%M:%S"))
}

/// A time as JSON has it: RFC 3339.
pub(super) fn stamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// At most `limit` characters of `text`, the last one an ellipsis where it is longer.
pub(super) fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// Text of an image, fit for a terminal: one line, no control characters.
pub(super) fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(vec!["a".into(), "1".into()]);
        table.row(vec!["größer".into(), "22".into()]);
        assert_eq!(table.render(), "NAME      N\na         1\ngrößer    22");
        assert_eq!(table.with_narrowest(0).render(), "NAME     N\na        1\ngrößer   22");
    }

    #[test]
    fn ages_are_in_dockers_words() {
        let hour = 3600;
        for (seconds, words) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (50 * 60, "50 minutes"),
            (hour, "About an hour"),
            (47 * hour, "47 hours"),
            (3 * 24 * hour, "3 days"),
            (30 * 24 * hour, "4 weeks"),
            (100 * 24 * hour, "3 months"),
            (3 * 365 * 24 * hour, "3 years"),
        ] {
            assert_eq!(age_in_words(seconds), words);
        }
    }
}
