//! `strake prune`, `strake system prune` with the rules of Docker's, and `strake builder prune`, which is for the build cache alone.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;

use crate::cli::commands::builder;
use crate::cli::confirm::confirmed;
use crate::cli::render::size;
use crate::cli::{Global, report};
use crate::engine::{Engine, Error, PruneImages, PruneOptions, PruneReport, PruneRule, RecordFilter, parse_bytes, parse_time};
use crate::task::blocking;

use super::{container, exit, image, network, volume, with_engine};

// Flags of `strake prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    /// Everything that is not in use: all images without a container, and the whole build cache
    #[arg(short, long)]
    all: bool,
    /// The build cache too, with the caches of RUN --mount=type=cache
    #[arg(long)]
    build_cache: bool,
    #[command(flatten)]
    rule: RuleArgs,
    /// Only what was not used for this long, such as `36h`, `7d` or `30m`
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
}

// Flags of `strake builder prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct BuilderPruneArgs {
    /// Also what images share: their steps will not be found in the cache any more
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    rule: RuleArgs,
}

// Flags of `strake system prune`.
#[derive(Debug, Args)]
pub(super) struct SystemPruneArgs {
    /// All images that no container uses, not only those without a name, and the whole build cache
    #[arg(short, long)]
    all: bool,
    /// Volumes without a name that no container uses, too
    #[arg(long)]
    volumes: bool,
    /// Only what fits: `until=AGE` (`24h`, or a time), `label=KEY[=VALUE]` or `label!=KEY[=VALUE]` (may be given several times; all must hold). Labels leave the
    /// build cache alone, which has none
    #[arg(long, value_name = "FILTER", value_parser = both_filters)]
    filter: Vec<((String, String), image::Filter)>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// One filter, as it is for containers and volumes, and as it is for images.
fn both_filters(text: &str) -> Result<((String, String), image::Filter), String> {
    Ok((container::filter(text)?, image::filter(text)?))
}

// What `prune` and `builder prune` take.
#[derive(Debug, Args)]
struct RuleArgs {
    /// Only records of the build cache that this holds of: `until=24h`, or `id`, `parents`, `description`, `type`, `inuse`, `mutable`, `immutable`, `shared` or
    /// `private` with `=VALUE`, `!=VALUE` or `~=REGEXP` (may be given several times; all must hold)
    #[arg(long, value_name = "FILTER", value_parser = condition)]
    filter: Vec<Condition>,
    /// Prune the build cache, but always keep this much of it, such as `20GB`
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE", value_parser = parse_bytes)]
    reserved_space: Option<u64>,
    /// Prune the build cache until it takes less than this
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    max_used_space: Option<u64>,
    /// Prune the build cache until the disk has this much left
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    min_free_space: Option<u64>,
    /// Say all that is known of each record of the build cache that goes
    #[arg(long)]
    verbose: bool,
    /// Say what would be freed, and free nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// One `--filter`.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// Not used for this long.
    Until(Duration),
    /// Any other.
    Record(RecordFilter),
}

/// Reads `--filter`, for clap.
pub(super) fn condition(text: &str) -> Result<Condition, String> {
    match text.split_once('=') {
        Some(("until" | "unused-for", value)) => until(value).map(Condition::Until),
        _ => text.parse().map(Condition::Record).map_err(|error: crate::engine::RecordFilterError| error.to_string()),
    }
}

/// How long ago something is: a duration, or a time.
pub(super) fn until(text: &str) -> Result<Duration, String> {
    match parse_time(text) {
        Some(time) => Ok(SystemTime::now().duration_since(time).unwrap_or_default()),
        None => age(text).map_err(|_| {
            format!("`{text}` is no duration: expected one such as `24h` or `1h30m`, or a time such as `2026-01-31T12:00:00Z`")
        }),
    }
}

/// Reads a duration: numbers with units, one after the other.
fn age(text: &str) -> Result<Duration, String> {
    let bad = || "expected a number with `s`, `m`, `h`, `d` or `w`, such as `36h`".to_owned();
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| digits + length);
        let unit = match &rest[digits..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 24.0 * 3600.0,
            "w" => 7.0 * 24.0 * 3600.0,
            _ => return Err(bad()),
        };
        total += rest[..digits].parse::<f64>().map_err(|_| bad())? * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

impl RuleArgs {
    /// What of the build cache is asked for, if anything is.
    fn rule(&self) -> Option<PruneRule> {
        let sizes = [self.reserved_space, self.max_used_space, self.min_free_space];
        (!self.filter.is_empty() || sizes.iter().any(Option::is_some)).then(|| self.rule_for(false))
    }

    fn rule_for(&self, all: bool) -> PruneRule {
        let mut rule = PruneRule {
            all,
            reserved_space: self.reserved_space.unwrap_or(0),
            max_used_space: self.max_used_space.unwrap_or(0),
            min_free_space: self.min_free_space.unwrap_or(0),
            ..PruneRule::default()
        };
        let mut filters = Vec::new();
        for condition in &self.filter {
            match condition {
                Condition::Until(age) => rule.unused_for = rule.unused_for.max(*age),
                Condition::Record(filter) => filters.push(filter.clone()),
            }
        }
        if !filters.is_empty() {
            rule.filters.push(filters);
        }
        rule
    }

    /// Whether nothing need be asked, or the answer was yes.
    fn may_begin(&self, what: impl FnOnce() -> &'static str) -> bool {
        self.force || self.dry_run || confirmed(&format!("This will remove {}. ", what()))
    }

    /// How long images, too, must have been here: only where time is all that is asked about.
    fn until(&self) -> Option<Duration> {
        match &self.filter[..] {
            [Condition::Until(age)] => Some(*age),
            _ => None,
        }
    }
}

/// Runs `strake prune`.
pub(in crate::cli) fn run(global: &Global, args: PruneArgs) -> ExitCode {
    if !args.rule.may_begin(|| match (args.rule.rule().is_some(), args.all, args.build_cache) {
        (true, true, _) if args.rule.until().is_some() => "all images without at least one container associated to them",
        (true, ..) => "build cache that fits",
        (false, true, _) => "all images without at least one container associated to them, and all build cache",
        (false, false, true) => "all dangling images, and the build cache",
        (false, false, false) => "all dangling images, and leftovers",
    }) {
        return ExitCode::SUCCESS;
    }
    exit(with_engine(global, None, |engine| async move {
        let mut options = PruneOptions { images: PruneImages::Dangling, downloads: true, ..PruneOptions::default() };
        match args.rule.rule() {
            // Whoever chooses among the records of the build cache means those, and no images.
            Some(rule) if args.rule.until().is_none() || !args.all => {
                (options.images, options.downloads) = (PruneImages::Keep, false);
                options.rules = vec![PruneRule { all: args.all, ..rule }];
            }
            _ if args.all => options = PruneOptions::all(),
            _ => {}
        }
        if args.build_cache && options.rules.is_empty() {
            (options.build_cache, options.cache_mounts) = (true, true);
        }
        options.until = args.older_than.or_else(|| args.rule.until()).and_then(|age| SystemTime::now().checked_sub(age));
        let report = prune(engine, options, args.rule.dry_run).await?;
        show_images(&report);
        builder::show_pruned(&report.records, args.rule.verbose);
        show_counts(&report);
        let label = if args.rule.dry_run { "Space to be reclaimed" } else { "Total reclaimed space" };
        report::result(&format!("{label}: {}", size(report.freed)));
        Ok(())
    }))
}

/// Runs `strake system prune`.
pub(super) fn system_prune(global: &Global, args: SystemPruneArgs) -> ExitCode {
    let (texts, images): (Vec<_>, Vec<_>) = args.filter.into_iter().unzip();
    let ages = || texts.iter().filter(|(key, _)| key == "until").filter_map(|(_, age)| until(age).ok());
    if args.volumes && ages().next().is_some() {
        let hint = Some("`strake volume prune` removes them by themselves".to_owned());
        return exit(Err(Error::Usage { message: "--filter until= is not for volumes".to_owned(), hint }));
    }
    let unused_for = ages().max().unwrap_or_default();
    let rules = match texts.iter().all(|(key, _)| key == "until") {
        true => vec![PruneRule { all: args.all, unused_for, ..PruneRule::default() }],
        false => Vec::new(),
    };
    if !args.force && !confirmed(&warning_of_all(args.all, args.volumes, &texts, !rules.is_empty())) {
        return ExitCode::SUCCESS;
    }
    exit(with_engine(global, None, |engine| async move {
        let freed = blocking(move || {
            let mut freed = container::prune(&engine, &texts)?;
            network::prune(&engine, &network::prune_filters(&texts)?)?;
            if args.volumes {
                freed += volume::prune(&engine, false, &texts)?;
            }
            freed += image::prune_images(&engine, args.all, &images)?;
            if !rules.is_empty() {
                let report = engine.prune(&PruneOptions { rules, downloads: texts.is_empty(), ..PruneOptions::default() })?;
                engine.pruned("builder", report.freed);
                builder::show_pruned(&report.records, false);
                freed += report.freed;
            }
            Ok::<_, Error>(freed)
        });
        report::result(&format!("Total reclaimed space: {}", size(freed.await?)));
        Ok(())
    }))
}

/// What `system prune` would remove, in the words of Docker's.
fn warning_of_all(all: bool, volumes: bool, filters: &[(String, String)], cache: bool) -> String {
    let mut parts = vec!["all stopped containers", "all networks not used by at least one container"];
    parts.extend(volumes.then_some("all anonymous volumes not used by at least one container"));
    parts.push(if all { "all images without at least one container associated to them" } else { "all dangling images" });
    parts.extend(cache.then_some(if all { "all build cache" } else { "unused build cache" }));
    let list = |lines: Vec<String>| lines.iter().map(|line| format!("  - {line}\n")).collect::<String>();
    let mut text = format!("This will remove:\n{}\n", list(parts.into_iter().map(str::to_owned).collect()));
    if !filters.is_empty() {
        let shown = filters.iter().map(|(key, value)| format!("{key}={value}")).collect();
        text += &format!("  Items to be pruned will be filtered with:\n{}\n", list(shown));
    }
    text
}

/// Runs `strake builder prune`.
pub(in crate::cli) fn builder_prune(global: &Global, args: &BuilderPruneArgs) -> ExitCode {
    let rule = args.rule.rule_for(args.all);
    if !args.rule.may_begin(|| if args.all { "all build cache" } else { "all dangling build cache" }) {
        return ExitCode::SUCCESS;
    }
    exit(with_engine(global, None, |engine| async move {
        let options = PruneOptions { rules: vec![rule], ..PruneOptions::default() };
        let report = prune(engine, options, args.rule.dry_run).await?;
        builder::show_pruned(&report.records, args.rule.verbose);
        report::result(&format!("Total: {}", size(report.freed)));
        Ok(())
    }))
}

async fn prune(engine: Engine, options: PruneOptions, dry_run: bool) -> Result<PruneReport, Error> {
    let options = PruneOptions { dry_run, ..options };
    let of_images = options.images != PruneImages::Keep;
    blocking(move || {
        let report = engine.prune(&options)?;
        if !dry_run {
            engine.pruned(if of_images { "image" } else { "builder" }, report.freed);
        }
        Ok(report)
    })
    .await
}

pub(super) fn show_images(report: &PruneReport) {
    for name in &report.names {
        report::result(&format!("Untagged: {}", name.familiar()));
    }
    for id in &report.images {
        report::result(&format!("Deleted: {id}"));
    }
}

fn show_counts(report: &PruneReport) {
    let counts = [
        (report.cache_records, "cache records"),
        (report.snapshots, "layers"),
        (report.blobs, "blobs"),
        (report.cache_mounts, "cache mounts"),
        (report.leftovers, "leftovers"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        report::result(&format!("{what}: {count}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_need_known_units() {
        assert_eq!(age("36h"), Ok(Duration::from_secs(36 * 3600)));
        assert_eq!(age("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(age("1.5h"), Ok(Duration::from_secs(5400)));
        for text in ["", "h", "3", "3y", "-1h", "1h3", "99999999999999999999999h"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn until_is_a_duration_or_a_time() {
        assert_eq!(until("24h"), Ok(Duration::from_secs(24 * 3600)));
        assert!(until("1970-01-01T00:00:00Z").unwrap() > Duration::from_secs(50 * 365 * 24 * 3600));
        assert!(until("yesterday").is_err());
    }
}
