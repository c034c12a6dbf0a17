//! Namespaces made ahead, so that a build step does not wait for one.
//!
//! One thread keeps a bounded channel full. When it is empty (many steps start at once) the caller makes its own instead of queueing behind the thread.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{Error, Netns, Network};

/// A network with a few namespaces ready.
#[derive(Debug)]
pub struct NetnsPool {
    network: Network,
    /// `None` only while dropping.
    ready: Option<Mutex<Receiver<Netns>>>,
    filler: Option<JoinHandle<()>>,
}

impl NetnsPool {
    /// Keeps up to `ahead` namespaces (at least one) ready, beginning now.
    pub fn new(network: Network, ahead: usize) -> Result<NetnsPool, Error> {
        // One more waits in the filler's hands.
        let (sender, ready) = sync_channel(ahead.saturating_sub(1));
        let source = network.clone();
        let fill = move || {
            // A failure ends the thread: the next caller sees it first hand, with its reason.
            while let Ok(netns) = source.acquire() {
                if sender.send(netns).is_err() {
                    return;
                }
            }
        };
        let filler = std::thread::Builder::new().name("netns-pool".to_owned()).spawn(fill).map_err(Error::kernel("start a thread"))?;
        Ok(NetnsPool { network, ready: Some(Mutex::new(ready)), filler: Some(filler) })
    }

    /// A namespace: one that is ready, else a new one.
    pub fn acquire(&self) -> Result<Netns, Error> {
        if let Some(ready) = &self.ready {
            match ready.lock().unwrap_or_else(PoisonError::into_inner).try_recv() {
                Ok(netns) => return Ok(netns),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
        }
        self.network.acquire()
    }

    /// The network that the namespaces are on.
    pub fn network(&self) -> &Network {
        &self.network
    }
}

impl Drop for NetnsPool {
    fn drop(&mut self) {
        // Ends the filler's wait.
        self.ready = None;
        if let Some(filler) = self.filler.take() {
            let _ = filler.join();
        }
    }
}
