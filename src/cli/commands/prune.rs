//! `strake prune`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::cli::render::size;
use crate::cli::{Global, report};
use crate::engine::{PruneImages, PruneOptions};
use crate::task::blocking;

use super::{exit, with_engine};

/// Flags of `strake prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    /// Everything that is not in use: all images without a container, and the whole build cache
    #[arg(short, long)]
    all: bool,
    /// The build cache too, with the caches of RUN --mount=type=cache
    #[arg(long)]
    build_cache: bool,
    /// Say what would be freed, and free nothing
    #[arg(long)]
    dry_run: bool,
    /// Only what was not used for this long, such as `36h`, `7d` or `30m`
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// Keep the most recently used build cache up to this many bytes, such as `20GB`
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    keep_storage: Option<u64>,
    /// Accepted for compatibility: nothing is asked
    #[arg(short, long, hide = true)]
    force: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    let bad = || "expected a number with `s`, `m`, `h`, `d` or `w`, such as `36h`".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let unit = match &text[digits..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        _ => return Err(bad()),
    };
    let count: u64 = text[..digits].parse().map_err(|_| bad())?;
    count.checked_mul(unit).map(Duration::from_secs).ok_or_else(bad)
}

fn bytes(text: &str) -> Result<u64, String> {
    let bad = || "expected a number of bytes, perhaps with `kB`, `MB`, `GB` or `TB`".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        _ => return Err(bad()),
    };
    let count: u64 = text[..digits].parse().map_err(|_| bad())?;
    count.checked_mul(unit).ok_or_else(bad)
}

/// Runs `strake prune`.
pub(in crate::cli) fn run(global: &Global, args: PruneArgs) -> ExitCode {
    exit(with_engine(global, None, |engine| async move {
        let mut options = if args.all { PruneOptions::all() } else { PruneOptions::default() };
        if !args.all {
            options.images = PruneImages::Dangling;
        }
        options.build_cache |= args.build_cache || args.keep_storage.is_some();
        options.cache_mounts |= args.build_cache;
        options.dry_run = args.dry_run;
        options.keep_bytes = args.keep_storage;
        options.until = args.older_than.and_then(|age| SystemTime::now().checked_sub(age));
        let freed = blocking(move || engine.prune(&options)).await?;
        for name in &freed.names {
            report::result(&format!("Untagged: {}", name.familiar()));
        }
        for id in &freed.images {
            report::result(&format!("Deleted: {id}"));
        }
        let counts = [
            (freed.cache_records, "cache records"),
            (freed.snapshots, "layers"),
            (freed.blobs, "blobs"),
            (freed.cache_mounts, "cache mounts"),
            (freed.leftovers, "leftovers"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            report::result(&format!("{what}: {count}"));
        }
        let label = if args.dry_run { "Space to be reclaimed" } else { "Total reclaimed space" };
        report::result(&format!("{label}: {}", size(freed.freed)));
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_need_known_units() {
        assert_eq!(age("36h"), Ok(Duration::from_secs(36 * 3600)));
        assert_eq!(bytes("20GB"), Ok(20_000_000_000));
        assert_eq!(bytes("5"), Ok(5));
        for text in ["", "h", "3", "3y", "-1h", "99999999999999999999h", "18446744073709551615w"] {
            assert!(age(text).is_err(), "{text}");
        }
        for text in ["", "GB", "1.5GB", "1XB", "99999999999TB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
