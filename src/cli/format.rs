//! `--format`: JSON, a Go template over the same values, or a table of such lines.

use serde_json::{Map, Value};

use crate::engine::Error;

use super::report;
use super::template::{Failure, Template};

/// How results are written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Format {
    /// One JSON value a line.
    Json,
    /// Text with fields in it.
    Template(Template),
    /// Such lines in columns, which tabs part, under a line of titles.
    Table(Template),
    /// What the command shows without a format (`table` alone).
    Usual,
}

/// How wide a column is at least, and how far from the next, as in Docker's tables.
pub(super) const NARROWEST: usize = 10;
pub(super) const GAP: usize = 3;

/// Reads `--format`, for clap.
pub(super) fn format(text: &str) -> Result<Format, String> {
    if text == "json" {
        return Ok(Format::Json);
    }
    // As with Docker, none is given where a script's variable is empty.
    if matches!(text, "table" | "") {
        return Ok(Format::Usual);
    }
    let own = text.strip_prefix("table").filter(|rest| rest.starts_with([' ', '\t']));
    let template = Template::parse(own.map_or(text, str::trim_start))?;
    if template.is_text() {
        return Err("expected `json`, or a template such as `{{.ID}}`".to_owned());
    }
    Ok(if own.is_some() { Format::Table(template) } else { Format::Template(template) })
}

/// The format that was given, unless that is what a command shows without one.
pub(super) fn given(format: &Option<Format>) -> Option<&Format> {
    format.as_ref().filter(|format| **format != Format::Usual)
}

impl Format {
    /// Whether a template of the user's has that field.
    pub(super) fn mentions(&self, field: &str) -> bool {
        match self {
            Format::Json | Format::Usual => false,
            Format::Template(template) | Format::Table(template) => template.mentions(field),
        }
    }

    /// Writes one value.
    ///
    /// # Errors
    /// A field that the value does not have.
    pub(super) fn render(&self, value: &Value) -> Result<String, Error> {
        match self {
            Format::Json | Format::Usual => Ok(value.to_string()),
            Format::Template(template) | Format::Table(template) => template.render(value).map_err(usage),
        }
    }

    /// Writes a list to standard output; `titles` are those columns of a table whose titles are not the words of their names.
    pub(super) fn show(&self, rows: &[Value], titles: &[(&str, &str)]) -> Result<(), Error> {
        let lines = self.lines(rows, titles)?;
        if !rows.is_empty() || matches!(self, Format::Table(_)) {
            report::result(&lines);
        }
        Ok(())
    }

    fn lines(&self, rows: &[Value], titles: &[(&str, &str)]) -> Result<String, Error> {
        let mut lines = rows.iter().map(|row| self.render(row)).collect::<Result<Vec<_>, _>>()?;
        if let Format::Table(template) = self {
            let titles: Map<String, Value> = titles.iter().map(|(name, title)| ((*name).to_owned(), (*title).into())).collect();
            lines.insert(0, template.header(&Value::Object(titles)).map_err(usage)?);
            lines = columns(&lines);
        }
        Ok(lines.join("\n"))
    }
}

/// Sets text between tabs in columns. What follows the last tab of a line is in none.
fn columns(lines: &[String]) -> Vec<String> {
    let cells: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let widths: Vec<usize> = (0..cells.iter().map(Vec::len).max().unwrap_or(0))
        .map(|column| {
            let inner = cells.iter().filter(|row| row.len() > column + 1).map(|row| row[column].chars().count() + GAP);
            inner.max().unwrap_or(0).max(NARROWEST)
        })
        .collect();
    let line = |row: &Vec<&str>| {
        let (last, inner) = row.split_last().map_or(("", &[][..]), |(last, inner)| (*last, inner));
        let mut line: String = inner.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line.push_str(last);
        line
    };
    cells.iter().map(line).collect()
}

fn usage(failure: Failure) -> Error {
    Error::Usage { message: failure.message, hint: failure.hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_of_ones_own_has_titles_and_columns() {
        let table = format("table {{.ID}}\\t{{upper .Names}}\\t{{.CreatedAt}}").unwrap();
        let rows = [json!({ "ID": "1234", "Names": "a", "CreatedAt": "now" }), json!({ "ID": "5", "Names": "long", "CreatedAt": "x" })];
        let expected = "CONTAINER ID   NAMES     CREATED AT\n1234           A         now\n5              LONG      x";
        assert_eq!(table.lines(&rows, &[("ID", "CONTAINER ID")]).unwrap(), expected);
        assert_eq!(table.lines(&[], &[("ID", "CONTAINER ID")]).unwrap(), "CONTAINER ID   NAMES     CREATED AT");
    }

    #[test]
    fn rows_are_lines_of_json_or_of_the_template() {
        let rows = [json!({ "ID": "1" }), json!({ "ID": "2" })];
        assert_eq!(format("json").unwrap().lines(&rows, &[]).unwrap(), "{\"ID\":\"1\"}\n{\"ID\":\"2\"}");
        assert_eq!(format("<{{.ID}}>").unwrap().lines(&rows, &[]).unwrap(), "<1>\n<2>");
    }

    #[test]
    fn an_unknown_field_is_an_error_that_lists_the_fields() {
        let error = format("{{.Nmae}}").unwrap().render(&json!({ "Name": 1, "Tag": 2 })).unwrap_err();
        assert_eq!(error.hint().unwrap(), "the fields are Name, Tag");
    }
}
