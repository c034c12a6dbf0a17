//! `build --test`: runs a command in the image that was just built, before anything is named or sent.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::executor::ops::TAIL_LINES;
use crate::oci::Platform;
use crate::progress::{Progress, StepOutcome, Stream};
use crate::runtime::container::{LogOptions, LogStream, Mode};
use crate::store::ImageRecord;
use crate::task::blocking;

use super::super::{Engine, Error};
use super::{ContainerInfo, RunNetwork, RunRequest};

impl Engine {
    /// Runs `command` in a container of the image, which is told with its `platform` where there are several, with its settings but without its entry point: by the image's shell, or as it is where it is a JSON array.
    ///
    /// # Errors
    /// It cannot be run, or its status is not 0. Nothing is left of the container.
    pub(in crate::engine) async fn test_image(
        &self,
        image: &ImageRecord,
        platform: Option<&Platform>,
        command: &str,
        cancel: &CancellationToken,
        progress: &Progress,
    ) -> Result<(), Error> {
        let engine = Engine { options: self.options.clone(), store: self.store.clone(), spawner: None, client: self.client.clone() };
        let shown = platform.map_or_else(String::new, |platform| format!("[{platform}] "));
        let step = Arc::new(progress.start(format!("{shown}test {command}"), None));
        let (image, line, logger) = (image.clone(), command.to_owned(), step.clone());
        let mut tail = VecDeque::new();
        let made = blocking(move || engine.start_test(image, &line).map(|info| (engine, info))).await;
        let tested = match made {
            Err(error) => Err(error),
            Ok((engine, info)) => {
                let engine = Arc::new(engine);
                let (watched, running) = (engine.clone(), info.clone());
                let work = blocking(move || {
                    watched.container_logs(&running, &LogOptions { follow: true, ..LogOptions::default() }, &mut |record| {
                        tail.push_back(record.log.trim_end().to_owned());
                        if tail.len() > TAIL_LINES {
                            tail.pop_front();
                        }
                        let stream = if record.stream == LogStream::Stdout { Stream::Stdout } else { Stream::Stderr };
                        logger.log(stream, record.log.into_bytes());
                        true
                    })?;
                    Ok((watched.wait_container(&running)?, Vec::from(tail)))
                });
                let code = tokio::select! {
                    code = work => code,
                    () = cancel.cancelled() => Err(Error::Build(crate::executor::Error::Cancelled)),
                };
                let removed = blocking(move || engine.remove_container(&info, true, true)).await;
                match code {
                    Ok((0, _)) => removed,
                    Ok((code, tail)) => Err(Error::Test { command: command.to_owned(), platform: platform.cloned(), code, tail }),
                    Err(error) => Err(error),
                }
            }
        };
        // The log's reader has ended with the container.
        if let Ok(step) = Arc::try_unwrap(step) {
            step.finish(if tested.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        }
        tested
    }

    fn start_test(&self, image: ImageRecord, command: &str) -> Result<ContainerInfo, Error> {
        let id = &image.id.to_string();
        let image = self.run_image(image, id)?.ok_or_else(|| Error::NoSuchImage { name: id.clone(), alike: Vec::new() })?;
        let args = match serde_json::from_str::<Vec<String>>(command) {
            Ok(args) => args,
            Err(_) if image.config.config.shell.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()],
            Err(_) => image.config.config.shell.iter().cloned().chain([command.to_owned()]).collect(),
        };
        let mut request = RunRequest::new(id);
        request.args = args;
        request.entrypoint = Some(String::new());
        request.network = RunNetwork::bridge();
        request.health.none = true;
        let info = self.create_container(&request, &image)?;
        match self.start_container(&info, Mode::Detached) {
            Ok(_) => self.container(&info.record.id),
            Err(error) => {
                // The failure matters more than that its container cannot be removed.
                let _ = self.remove_container(&info, true, true);
                Err(error)
            }
        }
    }
}
