//! Lists as users read them: a table, JSON, or a template with `{{.Field}}`.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is known of one line: its fields, by the names that templates use.
pub(super) type Row = BTreeMap<String, String>;

/// Renders rows: `table`, `json`, `table TEMPLATE` or a template. `columns` are titles and fields.
pub(super) fn render(format: &str, columns: &[(&str, &str)], rows: &[Row]) -> Result<String, String> {
    let mut out = String::new();
    match format {
        "json" | "{{json .}}" => {
            for row in rows {
                out.push_str(&serde_json::to_string(row).map_err(|error| error.to_string())?);
                out.push('\n');
            }
        }
        "table" | "" => {
            let mut cells: Vec<Vec<&str>> = vec![columns.iter().map(|(title, _)| *title).collect()];
            cells.extend(rows.iter().map(|row| columns.iter().map(|(_, field)| row.get(*field).map_or("", String::as_str)).collect()));
            out = align(&cells);
        }
        _ => {
            let template = Template::parse(format.strip_prefix("table ").unwrap_or(format))?;
            for row in rows {
                template.fill(row, &mut out)?;
                out.push('\n');
            }
        }
    }
    Ok(out)
}

fn align(lines: &[Vec<&str>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("{cell:width$}   "));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// A template, in pieces.
struct Template(Vec<Piece>);

enum Piece {
    Text(String),
    Field(String),
}

impl Template {
    fn parse(text: &str) -> Result<Template, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            pieces.push(Piece::Text(unescape(before)));
            let (inside, after) = after.split_once("}}").ok_or_else(|| format!("the template `{text}` lacks `}}}}`"))?;
            let field = inside.trim().strip_prefix('.').filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            let field = field.ok_or_else(|| format!("`{{{{{inside}}}}}` is not supported in templates: expected {{{{.Field}}}}"))?;
            pieces.push(Piece::Field(field.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(unescape(rest)));
        Ok(Template(pieces))
    }

    fn fill(&self, row: &Row, out: &mut String) -> Result<(), String> {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(name) => match row.get(name) {
                    Some(value) => out.push_str(value),
                    None => {
                        let known: Vec<&str> = row.keys().map(String::as_str).collect();
                        return Err(format!("there is no field `{name}`: expected one of {}", known.join(", ")));
                    }
                },
            }
        }
        Ok(())
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// A time as people say it: `3 seconds`, `About a minute`, `2 weeks`.
pub(super) fn human(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match (seconds, minutes) {
        (0, _) => "Less than a second".to_owned(),
        (1, _) => "1 second".to_owned(),
        (2..60, _) => format!("{seconds} seconds"),
        (_, 1) => "About a minute".to_owned(),
        (_, 2..60) => format!("{minutes} minutes"),
        _ => match hours {
            0 | 1 => "About an hour".to_owned(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", hours / 24 / 365),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        [("a", "one"), ("bbbb", "two")]
            .map(|(id, name)| [("ID".to_owned(), id.to_owned()), ("Names".to_owned(), name.to_owned())].into())
            .into()
    }

    const COLUMNS: [(&str, &str); 2] = [("ID", "ID"), ("NAMES", "Names")];

    #[test]
    fn tables_are_aligned_and_end_without_blanks() {
        assert_eq!(render("table", &COLUMNS, &rows()).unwrap(), "ID     NAMES\na      one\nbbbb   two\n");
    }

    #[test]
    fn templates_take_fields_by_name_and_refuse_what_they_do_not_know() {
        assert_eq!(render("{{.Names}}\\t{{ .ID }}", &COLUMNS, &rows()).unwrap(), "one\ta\ntwo\tbbbb\n");
        assert!(render("{{.Nmaes}}", &COLUMNS, &rows()).unwrap_err().contains("Names"));
        assert!(render("{{.ID", &COLUMNS, &rows()).is_err());
        assert!(render("{{range .}}", &COLUMNS, &rows()).is_err());
    }

    #[test]
    fn json_is_one_object_a_line() {
        assert_eq!(render("json", &COLUMNS, &rows()[..1]).unwrap(), "{\"ID\":\"a\",\"Names\":\"one\"}\n");
    }

    #[test]
    fn times_are_told_as_docker_tells_them() {
        let told = [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (4000, "About an hour"),
            (7200, "2 hours"),
        ];
        for (seconds, text) in told {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
        assert_eq!(human(Duration::from_secs(86400 * 3)), "3 days");
    }
}
