//! The graph of a build: which platforms it is for, the plan for each of them, and what they have in common.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use crate::diag::Diagnostic;
use crate::engine::epoch::{Epoch, Origins, build_epoch, warn_of_other_times};
use crate::engine::sources::{BuildSources, PullPolicy};
use crate::engine::{Engine, Error};
use crate::graph::{BuildGraph, ImageNeed, PlanRequest, Planned, ResolvedImages, plan};
use crate::oci::Platform;
use crate::progress::Progress;

/// What is built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Platforms {
    /// These, each once; there is at least one.
    pub(in crate::engine) all: Vec<Platform>,
    /// Whether nobody asked for that one: then the result has the platform of its base image.
    pub(in crate::engine) implicit: bool,
    /// Whether the result is an index: there are several, or it was asked for.
    pub(in crate::engine) indexed: bool,
}

/// The build argument by which a result is an index also for one platform.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

impl Platforms {
    /// The platforms that are `given`, those that are named twice once.
    ///
    /// # Errors
    /// A build argument that says otherwise.
    pub(in crate::engine) fn of(given: &[Platform], build_args: &BTreeMap<String, String>) -> Result<Platforms, Error> {
        let mut all: Vec<Platform> = Vec::new();
        for platform in given {
            if !all.contains(platform) {
                all.push(platform.clone());
            }
        }
        let asked = match build_args.get(MULTI_PLATFORM).map(String::as_str) {
            None | Some("") => None,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Some(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Some(false),
            Some(value) => {
                let message = format!("the build argument {MULTI_PLATFORM} is true or false, not `{value}`");
                return Err(Error::Usage { message, hint: None });
            }
        };
        if asked == Some(false) && all.len() > 1 {
            let message = format!("{MULTI_PLATFORM} is off, and there are {} platforms", all.len());
            return Err(Error::Usage { message, hint: Some("leave the build argument out, or name one platform".into()) });
        }
        let (implicit, indexed) = (all.is_empty(), all.len() > 1 || asked == Some(true));
        if implicit {
            all.push(Platform::host());
        }
        Ok(Platforms { all, implicit, indexed })
    }
}

/// A planned build.
pub(super) struct Plan {
    /// What is done, for all platforms.
    pub(super) graph: BuildGraph,
    /// The build's own time, in seconds since the epoch.
    pub(super) epoch: Option<i64>,
}

impl Engine {
    /// Plans a build for all platforms. `request` is that for the first of them.
    ///
    /// # Errors
    /// Mistakes of the Dockerfile, as [`Error::Diagnostics`]; images and times that cannot be had.
    pub(super) async fn plan_build(
        &self,
        request: PlanRequest<'_>,
        platforms: &Platforms,
        reproducible: bool,
        (sources, policy): (&BuildSources, PullPolicy),
        origins: &Origins<'_>,
    ) -> Result<Plan, Error> {
        let Epoch { seconds: epoch, build_args } = build_epoch(&request, reproducible, origins).await?;
        warn_of_other_times(&request, &platforms.all, origins.progress)?;
        let request = PlanRequest { build_args: &build_args, ..request };
        let of = |platform: &Platform| PlanRequest { target_platform: platform.clone(), ..request.clone() };
        let requests: Vec<PlanRequest<'_>> = platforms.all.iter().map(of).collect();
        let graphs = plan_all(&requests, sources, policy, origins.progress).await?;
        Ok(Plan { graph: BuildGraph::join(graphs), epoch })
    }
}

/// Plans for all platforms, fetching the configs of base images until the graphs are complete. An image that several need is asked for once.
async fn plan_all(
    requests: &[PlanRequest<'_>],
    sources: &BuildSources,
    policy: PullPolicy,
    progress: &Progress,
) -> Result<Vec<BuildGraph>, Error> {
    let mut images = ResolvedImages::new();
    loop {
        let (mut graphs, mut failed) = (Vec::new(), Vec::new());
        let mut needs: Vec<ImageNeed> = Vec::new();
        for request in requests {
            match plan(request, &images) {
                Ok(Planned::Ready(graph)) => graphs.push(*graph),
                Ok(Planned::NeedsImages(needed)) => {
                    needs.extend(needed.into_iter().filter(|new| !needs.iter().any(|need| need.key() == new.key())).collect::<Vec<_>>());
                }
                Err(errors) => failed.push((&request.target_platform, errors)),
            }
        }
        if !failed.is_empty() {
            return Err(Error::Diagnostics(told_once(failed, requests.len())));
        }
        if needs.is_empty() {
            return Ok(graphs);
        }
        let found = try_join_all(needs.iter().map(|need| sources.resolve(need, policy, progress))).await?;
        images.extend(needs.iter().map(ImageNeed::key).zip(found));
    }
}

/// The mistakes that planning found for some of `count` platforms. What is wrong for all of them is told once, the rest with its platform.
fn told_once(failed: Vec<(&Platform, Vec<Diagnostic>)>, count: usize) -> Vec<Diagnostic> {
    let has = |(_, errors): &(&Platform, Vec<Diagnostic>), wanted: &Diagnostic| {
        errors.iter().any(|error| (error.span, &error.message) == (wanted.span, &wanted.message))
    };
    let mut told: Vec<Diagnostic> = Vec::new();
    for (at, (platform, errors)) in failed.iter().enumerate() {
        for error in errors {
            let common = failed.iter().filter(|other| has(other, error)).count() == count;
            match common {
                true if at > 0 => {}
                true => told.push(error.clone()),
                false => told.push(Diagnostic { message: format!("{} (for {platform})", error.message), ..error.clone() }),
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(platforms: &[&str], argument: Option<&str>) -> Result<(Vec<String>, bool, bool), String> {
        let platforms: Vec<Platform> = platforms.iter().map(|text| text.parse().unwrap()).collect();
        let arguments = argument.map(|value| (MULTI_PLATFORM.to_owned(), value.to_owned())).into_iter().collect();
        let found = Platforms::of(&platforms, &arguments).map_err(|error| error.to_string())?;
        Ok((found.all.iter().map(ToString::to_string).collect(), found.implicit, found.indexed))
    }

    #[test]
    fn platforms_count_once_in_their_order_and_several_make_an_index() {
        let host = Platform::host().to_string();
        assert_eq!(of(&[], None), Ok((vec![host.clone()], true, false)));
        assert_eq!(of(&[], Some("")), Ok((vec![host.clone()], true, false)));
        assert_eq!(of(&["linux/arm64"], None), Ok((vec!["linux/arm64".into()], false, false)));
        let several = ["linux/s390x", "linux/arm64/v8", "linux/s390x", "linux/aarch64"];
        assert_eq!(of(&several, None), Ok((vec!["linux/s390x".into(), "linux/arm64".into()], false, true)));
        assert_eq!(of(&["arm64", "arm64"], Some("0")), Ok((vec!["linux/arm64".into()], false, false)));
        assert_eq!(of(&[], Some("1")), Ok((vec![host], true, true)));
        assert!(of(&several, Some("false")).unwrap_err().contains("there are 2 platforms"));
        assert!(of(&[], Some("maybe")).unwrap_err().contains("not `maybe`"));
    }
}
