//! Pruning the build cache by itself: the default rules, where they may have something to do.
//!
//! Asking costs one `statfs` where the whole file system holds less than any rule allows the cache. Otherwise sizes are looked at, once a minute at most.

use std::time::{Duration, SystemTime};

use super::open::to_micros;
use super::policy::EASY_TIME;
use super::stamp::is_due;
use super::{Error, GcLimits, GcSettings, PruneOptions, PruneReport, PruneRule, Store, default_rules};

/// How long the sizes that were looked at last are good enough.
const INTERVAL: Duration = Duration::from_secs(60);

impl Store {
    /// Applies the default rules to the build cache; `None` where there was nothing to do. What `settings` leave open follows from the disk.
    ///
    /// # Errors
    /// As [`Store::prune`].
    pub fn collect_garbage(&self, settings: &GcSettings) -> Result<Option<PruneReport>, Error> {
        let disk = self.disk_space()?;
        let rules = default_rules(GcLimits::new(settings, disk.total));
        // The cache is no larger than all that is on the disk.
        let most = disk.total.saturating_sub(disk.free);
        let mut near: Vec<PruneRule> = rules.into_iter().filter(|rule| rule.limit(most, disk).is_some()).collect();
        if near.first().is_some_and(|rule| rule.unused_for == EASY_TIME) && !self.has_old_mounts()? {
            near.remove(0);
        }
        if near.is_empty() || !is_due(&self.layout().gc_stamp(), INTERVAL)? {
            return Ok(None);
        }
        let report = self.prune(&PruneOptions { rules: near, ..PruneOptions::default() })?;
        Ok((!report.records.is_empty()).then_some(report))
    }

    /// Whether there are cache mounts old enough for the rule of what is easily made again.
    fn has_old_mounts(&self) -> Result<bool, Error> {
        let old = SystemTime::now().checked_sub(EASY_TIME).map_or(i64::MIN, to_micros);
        self.database().read("look for old cache mounts", |db| {
            db.prepare_cached("SELECT 1 FROM cache_mounts WHERE last_used < ? LIMIT 1")?.exists([old])
        })
    }
}
