//! Which records of the build cache go: BuildKit's policy rules, and the four that apply by default.
//!
//! A rule takes records that are not in use, that all of its filters fit, and that were not used for some time; of those the least recently used first, and a layer
//! never before those above it. A rule with a limit stops as soon as what is left is below it. Rules are applied one after the other.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::records::Entry;
use super::usage::DiskSpace;
use super::{RecordFilter, RecordKind};

/// One rule.
#[derive(Clone, Debug, Default)]
pub struct PruneRule {
    /// Alternatives, each of conditions that must all hold; without any, every record fits.
    pub filters: Vec<Vec<RecordFilter>>,
    /// Also records that images share.
    pub all: bool,
    /// Only records that were not used for this long.
    pub unused_for: Duration,
    /// The cache may always be this large, in bytes.
    pub reserved_space: u64,
    /// The cache may be this large at most, in bytes; 0 is without limit.
    pub max_used_space: u64,
    /// The file system should have this much left, in bytes.
    pub min_free_space: u64,
}

impl PruneRule {
    /// What the rule may take: everything it fits, or no more than leaves this many bytes of a cache that is `used` bytes large. `None` where there is nothing to do.
    pub(crate) fn limit(&self, used: u64, disk: DiskSpace) -> Option<u64> {
        if (self.max_used_space, self.reserved_space, self.min_free_space) == (0, 0, 0) {
            return Some(0);
        }
        let missing = self.min_free_space.saturating_sub(disk.free);
        let fits_disk = if missing > 0 { used.saturating_sub(missing) } else { u64::MAX };
        let fits_cap = match (self.max_used_space, self.min_free_space) {
            // A reserve alone is what is kept.
            (0, 0) => self.reserved_space,
            (0, _) => u64::MAX,
            (cap, _) => cap,
        };
        let keep = fits_cap.min(fits_disk).max(self.reserved_space);
        (used >= keep).then_some(keep)
    }

    fn fits(&self, entry: &Entry, now: SystemTime) -> bool {
        let record = &entry.record;
        let idle = now.duration_since(record.last_used).unwrap_or_default() >= self.unused_for;
        let filtered = self.filters.is_empty() || self.filters.iter().any(|all| all.iter().all(|filter| filter.matches(record)));
        !record.in_use && (self.all || !record.shared) && idle && filtered
    }
}

/// How large the cache may grow before the default rules take something, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcLimits {
    /// [`PruneRule::reserved_space`].
    pub reserved_space: u64,
    /// [`PruneRule::max_used_space`].
    pub max_used_space: u64,
    /// [`PruneRule::min_free_space`].
    pub min_free_space: u64,
}

/// Limits of the default rules that somebody chose; the others follow from the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcSettings {
    /// [`GcLimits::reserved_space`].
    pub reserved_space: Option<GcSpace>,
    /// [`GcLimits::max_used_space`].
    pub max_used_space: Option<GcSpace>,
    /// [`GcLimits::min_free_space`].
    pub min_free_space: Option<GcSpace>,
}

/// So much of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcSpace {
    /// In bytes.
    Bytes(u64),
    /// In hundredths of the disk.
    Percent(u64),
}

impl GcSpace {
    /// The bytes of it, of a disk of `total` bytes.
    fn bytes(self, total: u64) -> u64 {
        match self {
            GcSpace::Bytes(bytes) => bytes,
            GcSpace::Percent(part) => percent(total, part),
        }
    }
}

impl GcLimits {
    /// The limits for a disk of `total` bytes.
    pub fn new(settings: &GcSettings, total: u64) -> GcLimits {
        let default = GcLimits::of_disk(total);
        let chosen = |space: Option<GcSpace>, default: u64| space.map_or(default, |space| space.bytes(total));
        GcLimits {
            reserved_space: chosen(settings.reserved_space, default.reserved_space),
            max_used_space: chosen(settings.max_used_space, default.max_used_space),
            min_free_space: chosen(settings.min_free_space, default.min_free_space),
        }
    }

    /// What BuildKit takes by default: a tenth of the disk reserved but 10 GB at most, four fifths or 100 GB used at most, a fifth left free.
    pub fn of_disk(total: u64) -> GcLimits {
        GcLimits {
            reserved_space: percent(total, 10).min(10_000_000_000),
            max_used_space: percent(total, 80).min(100_000_000_000),
            min_free_space: percent(total, 20),
        }
    }
}

/// A part of a disk, as BuildKit rounds it: the next higher number of GiB, as many GB.
pub fn percent(total: u64, percent: u64) -> u64 {
    let part = u128::from(total) * u128::from(percent) / 100;
    u64::try_from((part / (1 << 30) + 1) * 1_000_000_000).unwrap_or(u64::MAX)
}

/// How long what is easily made again is kept unused.
pub(crate) const EASY_TIME: Duration = Duration::from_secs(48 * 3600);
/// How much of it is kept, in bytes.
const EASY_SPACE: u64 = 512_000_000;
/// How long anything is kept unused, once there is more than the reserve.
const LONG_TIME: Duration = Duration::from_secs(60 * 24 * 3600);

/// The default rules: what is easily made again and unused for two days; what is unused for sixty days; then whatever was not used for longest, and last what images share.
pub fn default_rules(limits: GcLimits) -> Vec<PruneRule> {
    let easy = |kind: &str| format!("type=={kind}").parse::<RecordFilter>().ok().map(|filter| vec![filter]);
    let GcLimits { reserved_space, max_used_space, min_free_space } = limits;
    let capped = PruneRule { reserved_space, max_used_space, min_free_space, ..PruneRule::default() };
    vec![
        PruneRule {
            filters: ["source.local", RecordKind::CacheMount.name(), "source.git.checkout"].into_iter().filter_map(easy).collect(),
            unused_for: EASY_TIME,
            max_used_space: EASY_SPACE,
            ..PruneRule::default()
        },
        PruneRule { unused_for: LONG_TIME, ..capped.clone() },
        capped.clone(),
        PruneRule { all: true, ..capped },
    ]
}

/// Chooses what `rule` takes of `entries`, in the order in which it goes; what is gone already is in `gone`. `disk` is what it will be then.
pub(crate) fn choose(entries: &mut [Entry], gone: &mut [bool], rule: &PruneRule, disk: &mut DiskSpace, now: SystemTime) -> Vec<usize> {
    let own = |entry: &Entry| if entry.record.shared { 0 } else { entry.record.size };
    let mut used: u64 = entries.iter().zip(gone.iter()).filter(|(_, gone)| !**gone).map(|(entry, _)| own(entry)).sum();
    let Some(keep) = rule.limit(used, *disk) else { return Vec::new() };
    // Those of the same time go from the top of a stack down.
    let place = |entries: &[Entry], at: usize| (entries[at].record.last_used, std::cmp::Reverse(at));
    let is_free = |entries: &[Entry], gone: &[bool], at: usize| !gone[at] && entries[at].above == 0 && rule.fits(&entries[at], now);
    let mut ready: BTreeSet<_> = (0..entries.len()).filter(|at| is_free(entries, gone, *at)).map(|at| place(entries, at)).collect();
    let mut chosen = Vec::new();
    while keep == 0 || used >= keep {
        let Some((_, std::cmp::Reverse(at))) = ready.pop_first() else { break };
        gone[at] = true;
        chosen.push(at);
        used = used.saturating_sub(own(&entries[at]));
        disk.free = disk.free.saturating_add(own(&entries[at]));
        for below in std::mem::take(&mut entries[at].below) {
            entries[below].above -= 1;
            if is_free(entries, gone, below) {
                ready.insert(place(entries, below));
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn rule(reserved_space: u64, max_used_space: u64, min_free_space: u64) -> PruneRule {
        PruneRule { reserved_space, max_used_space, min_free_space, ..PruneRule::default() }
    }

    #[test]
    fn limits_are_weighed_as_buildkit_does() {
        let disk = DiskSpace { total: 100 * GB, free: 15 * GB };
        for (rule, used, keep) in [
            (rule(0, 0, 0), 5, Some(0)),
            (rule(0, 10, 0), 20, Some(10)),
            (rule(0, 10, 0), 9, None),
            (rule(8, 0, 0), 20, Some(8)),
            // 5 GB are missing, so of 30 GB 25 may stay, or the cap, or the reserve.
            (rule(0, 0, 20 * GB), 30 * GB, Some(25 * GB)),
            (rule(0, 10 * GB, 20 * GB), 30 * GB, Some(10 * GB)),
            (rule(28 * GB, 10 * GB, 20 * GB), 30 * GB, Some(28 * GB)),
            (rule(0, 0, 15 * GB), 30 * GB, None),
        ] {
            assert_eq!(rule.limit(used, disk), keep, "{rule:?} {used}");
        }
    }

    #[test]
    fn default_limits_follow_the_size_of_the_disk() {
        let large = GcLimits::of_disk(1 << 40);
        assert_eq!((large.reserved_space, large.max_used_space, large.min_free_space), (10 * GB, 100 * GB, 205 * GB));
        let small = GcLimits::of_disk(50 << 30);
        assert_eq!((small.reserved_space, small.max_used_space, small.min_free_space), (6 * GB, 41 * GB, 11 * GB));
    }
}
