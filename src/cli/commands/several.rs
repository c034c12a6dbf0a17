//! What the commands share that take several names: the failure of one does not keep the others from being done.

use serde_json::Value;

use crate::cli::format::Format;
use crate::cli::report;
use crate::engine::Error;

/// The failures so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    last: Option<Error>,
}

impl Failures {
    /// Takes one in: the one before it is told now, the last one is the command's.
    pub(super) fn add(&mut self, error: Error) {
        if let Some(earlier) = self.last.replace(error) {
            report::error(&earlier);
        }
    }

    /// How the command ends.
    pub(super) fn end(self) -> Result<(), Error> {
        self.last.map_or(Ok(()), Err)
    }
}

/// Shows what an `inspect` found: an array, or each value by its format.
pub(super) fn show(found: Vec<Value>, format: Option<&Format>) -> Result<(), Error> {
    match format {
        None | Some(Format::Usual) => report::result(&serde_json::to_string_pretty(&found).unwrap_or_default()),
        Some(Format::Json) => report::result(&Value::Array(found).to_string()),
        Some(format) => {
            for value in &found {
                report::result(&format.render(value)?);
            }
        }
    }
    Ok(())
}
