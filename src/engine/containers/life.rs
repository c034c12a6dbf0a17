//! What changes the life of a container that exists: restart, pause, rename, update, and what is started again after the machine was.

use std::time::{Duration, Instant};

use crate::runtime::CgroupSpec;
use crate::runtime::container::{self, HealthStatus, Mode, RestartPolicy, State, save_spec};

use super::super::{Engine, Error};
use super::ContainerInfo;

/// How often a container that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What [`Engine::update_container`] changes.
#[derive(Clone, Debug)]
pub struct UpdateRequest {
    /// All its limits from now on.
    pub limits: CgroupSpec,
    /// Whether it is started again when it has ended; `None` leaves it.
    pub restart: Option<RestartPolicy>,
}

/// How waiting for a container's health ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healed {
    /// It is healthy, or runs and nobody checks its health.
    Healthy,
    /// It is unhealthy.
    Unhealthy,
    /// It has ended.
    Ended(u8),
}

impl Engine {
    /// Stops a container if it runs, and starts it again in the background. Gives what the user should know. One that removes itself does not do so in between.
    pub fn restart_container(&self, info: &ContainerInfo, signal: Option<i32>, timeout: Option<Duration>) -> Result<Vec<String>, Error> {
        let removes_itself = info.spec.as_ref().is_some_and(|spec| spec.auto_remove);
        if removes_itself {
            self.set_auto_remove(info, false)?;
        }
        let started = self.stop_container(info, signal, timeout).and_then(|()| self.start_container(info, Mode::Detached));
        if removes_itself {
            self.set_auto_remove(info, true)?;
            // It may have ended before it knew.
            self.finish_container(&info.record.id)?;
        }
        let warnings = started?.warnings;
        self.event("container", "restart", info, &[]);
        Ok(warnings)
    }

    /// Changes whether a container removes itself.
    fn set_auto_remove(&self, info: &ContainerInfo, auto_remove: bool) -> Result<(), Error> {
        let failed =
            |source| if info.dir.exists() { info.failed("restart", source) } else { info.failed("restart", container::Error::Gone) };
        let spec = container::load_spec(&info.dir).map_err(failed)?;
        save_spec(&info.dir, &container::ContainerSpec { auto_remove, ..spec }).map_err(failed)
    }

    /// Makes all processes of a container stand still.
    pub fn pause_container(&self, info: &ContainerInfo) -> Result<(), Error> {
        if info.is_paused() {
            return Err(Error::Usage { message: format!("the container `{}` is already paused", info.record.name), hint: None });
        }
        self.must_run(info, "pause")?;
        let Some(State::Running { pid, cgroups, .. }) = &info.state else { return Err(not_in_state(info, "running")) };
        if let Err(source) = container::pause(&info.record.id, *pid, cgroups) {
            // Rather all of it than a part.
            let _ = container::unpause(&info.record.id, cgroups);
            return Err(match source {
                container::Error::NotRunning if info.spec.as_ref().is_some_and(|spec| spec.restart != RestartPolicy::No) => {
                    super::exec::restarting(info, "pause")
                }
                container::Error::NotRunning => not_in_state(info, "running"),
                source => info.failed("pause", source),
            });
        }
        self.event("container", "pause", info, &[]);
        Ok(())
    }

    /// Lets a container go on that stands still.
    pub fn unpause_container(&self, info: &ContainerInfo) -> Result<(), Error> {
        if !info.is_paused() {
            return Err(not_in_state(info, "paused"));
        }
        self.thaw(info)?;
        self.event("container", "unpause", info, &[]);
        Ok(())
    }

    /// Lets a container go on, if it stands still.
    pub(super) fn thaw(&self, info: &ContainerInfo) -> Result<(), Error> {
        match &info.state {
            Some(State::Running { cgroups, .. }) => {
                container::unpause(&info.record.id, cgroups).map_err(|source| info.failed("unpause", source))
            }
            _ => Ok(()),
        }
    }

    /// Gives a container another name.
    pub fn rename_container(&self, info: &ContainerInfo, name: &str) -> Result<(), Error> {
        if name == info.record.name {
            return Err(Error::Usage { message: format!("the container is already called `{name}`"), hint: None });
        }
        let refused = |error: crate::store::Error| Error::Usage { message: error.to_string(), hint: None };
        self.store().rename_container(&info.record.id, name).map_err(refused)?;
        if let Some(spec) = &info.spec {
            let spec = container::ContainerSpec { name: name.to_owned(), ..spec.clone() };
            save_spec(&info.dir, &spec).map_err(|source| info.failed("rename", source))?;
            if info.is_running() {
                // Others find it by its new name. One that has just ended needs none.
                let _ = container::change_networks(&info.dir);
            }
        }
        self.event("container", "rename", info, &[("oldName", &format!("/{}", info.record.name)), ("name", name)]);
        Ok(())
    }

    /// Changes the limits of a container, also of one that runs, and its restart policy.
    ///
    /// # Errors
    /// The kernel refuses a limit: then nothing is changed for the next start.
    pub fn update_container(&self, info: &ContainerInfo, request: &UpdateRequest) -> Result<(), Error> {
        let Some(spec) = &info.spec else { return Err(not_in_state(info, "whole")) };
        let mut spec = spec.clone();
        if let Some(restart) = request.restart {
            if spec.auto_remove && restart != RestartPolicy::No {
                let message = format!("the container `{}` removes itself, so it cannot be started again", info.record.name);
                return Err(Error::Usage { message, hint: None });
            }
            spec.restart = restart;
        }
        if let Some(State::Running { pid, cgroups, .. }) = &info.state {
            let before = spec.sandbox.cgroup.clone().unwrap_or_default();
            let changed = request.limits.changed_from(&before);
            if changed.has_limits() {
                container::limit(&info.record.id, *pid, cgroups, &changed).map_err(|source| info.failed("update", source))?;
            }
        }
        spec.sandbox.cgroup = request.limits.is_wanted().then(|| request.limits.clone());
        save_spec(&info.dir, &spec).map_err(|source| info.failed("update", source))?;
        self.event("container", "update", info, &[]);
        Ok(())
    }

    /// Waits until a container is healthy, or is known not to become so.
    pub fn wait_healthy(&self, id: &str, timeout: Option<Duration>) -> Result<Healed, Error> {
        let begun = Instant::now();
        loop {
            let info = self.container(id)?;
            match (&info.state, &info.health) {
                (Some(State::Exited { code, .. }), _) => return Ok(Healed::Ended(*code)),
                (Some(State::Running { .. }), None) if info.spec.as_ref().is_none_or(|spec| spec.health.is_none()) => {
                    return Ok(Healed::Healthy);
                }
                (_, Some(health)) if health.status == HealthStatus::Healthy => return Ok(Healed::Healthy),
                (Some(State::Running { .. }), Some(health)) if health.status == HealthStatus::Unhealthy => return Ok(Healed::Unhealthy),
                _ => {}
            }
            if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
                let message = format!("the container `{}` was not healthy in time", info.record.name);
                return Err(Error::Usage {
                    message,
                    hint: Some(format!("`strake inspect {}` shows what its checks said", info.record.name)),
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The containers that a restart policy wants to run and that do not: `always`, and `unless-stopped` where no user ended them. Oldest first.
    pub fn containers_to_resume(&self) -> Result<Vec<ContainerInfo>, Error> {
        let wanted = |info: &ContainerInfo| {
            let Some(State::Exited { by_hand, .. }) = &info.state else { return false };
            match info.spec.as_ref().map(|spec| spec.restart) {
                Some(RestartPolicy::Always) => true,
                Some(RestartPolicy::UnlessStopped) => !by_hand,
                _ => false,
            }
        };
        let mut found: Vec<ContainerInfo> = self.containers()?.into_iter().filter(wanted).collect();
        found.reverse();
        Ok(found)
    }
}

fn not_in_state(info: &ContainerInfo, state: &str) -> Error {
    Error::Usage { message: format!("the container `{}` is not {state}", info.record.name), hint: None }
}
