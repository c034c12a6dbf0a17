//! Small static programs, for what no shell can try: compiled from C, so that they run in any container.

use std::path::PathBuf;

use super::{Run, World};

impl World {
    /// Compiles `source` to the static program `name` in this world, with more flags for the compiler.
    #[track_caller]
    pub(crate) fn program(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let (path, text) = (self.path(name), self.path(&format!("{name}.c")));
        std::fs::write(&text, source).unwrap();
        let (text, out) = (text.to_str().unwrap(), path.to_str().unwrap());
        Run::new("cc", ["-static", "-O1", "-o", out, text]).arg_all(flags).ok();
        path
    }
}
