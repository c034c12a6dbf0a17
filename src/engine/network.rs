//! The network of build steps: a private one where this host can have it, the host's otherwise.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::executor::{Error as BuildError, NetworkSource, StepNetwork};
use crate::graph::NetworkMode;
use crate::progress::Progress;
use crate::runtime::container::HostAddress;
use crate::runtime::network::{NetnsPool, Network, ResolvMode, hosts_file, resolv_conf};

/// The host's files about names.
#[derive(Clone, Debug)]
pub struct NetworkFiles {
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Where the real servers are when that names a local stub (`/run/systemd/resolve/resolv.conf`).
    pub upstream_resolv_conf: PathBuf,
    /// `/etc/hosts`.
    pub hosts: PathBuf,
}

/// How many namespaces are made ahead of their use.
const AHEAD: usize = 2;

struct Networks {
    run_dir: PathBuf,
    files: NetworkFiles,
    progress: Progress,
    extra_hosts: Vec<(String, HostAddress)>,
    /// `None` where this host cannot have private networks, which was said then.
    pool: OnceLock<Option<NetnsPool>>,
    opening: Mutex<()>,
}

/// The networks of one build's steps.
pub(super) fn networks(
    run_dir: &Path,
    files: &NetworkFiles,
    progress: &Progress,
    extra_hosts: &[(String, HostAddress)],
) -> Arc<NetworkSource> {
    let networks = Networks {
        run_dir: run_dir.join("net"),
        files: files.clone(),
        progress: progress.clone(),
        extra_hosts: extra_hosts.to_vec(),
        pool: OnceLock::new(),
        opening: Mutex::new(()),
    };
    Arc::new(move |mode, hostname: &str| networks.step(mode, hostname))
}

impl Networks {
    fn step(&self, mode: NetworkMode, hostname: &str) -> Result<StepNetwork, BuildError> {
        match mode {
            NetworkMode::None => Ok(StepNetwork {
                namespace: None,
                resolv_conf: String::new(),
                hosts: hosts_file(hostname, &[], &self.extra_hosts(None)),
                guard: None,
            }),
            NetworkMode::Host => Ok(self.host()),
            NetworkMode::Default => match self.pool() {
                Some(pool) => match self.private(pool, hostname) {
                    Ok(network) => Ok(network),
                    Err(error) => {
                        self.progress.warn(format!("no private network for this step, so it has the host's: {error}"));
                        Ok(self.host())
                    }
                },
                None => Ok(self.host()),
            },
        }
    }

    /// The names of `--add-host`; `host-gateway` is the host as seen from a network with this gateway, itself where there is none.
    fn extra_hosts(&self, gateway: Option<Ipv4Addr>) -> Vec<(String, IpAddr)> {
        let gateway = IpAddr::V4(gateway.unwrap_or(Ipv4Addr::LOCALHOST));
        let resolved = |address: &HostAddress| match address {
            HostAddress::Address(address) => *address,
            HostAddress::Gateway => gateway,
        };
        self.extra_hosts.iter().map(|(name, address)| (name.clone(), resolved(address))).collect()
    }

    fn private(&self, pool: &NetnsPool, hostname: &str) -> Result<StepNetwork, crate::runtime::network::Error> {
        let netns = pool.acquire()?;
        let namespace = netns.fd().try_clone_to_owned().map_err(crate::runtime::network::Error::namespace)?;
        let upstream = std::fs::read_to_string(&self.files.upstream_resolv_conf).ok();
        let host = std::fs::read_to_string(&self.files.resolv_conf).unwrap_or_default();
        let address = IpAddr::V4(netns.address().address);
        Ok(StepNetwork {
            namespace: Some(namespace),
            resolv_conf: resolv_conf(&host, ResolvMode::Private { alternative: upstream.as_deref() }),
            hosts: hosts_file(hostname, &[address], &self.extra_hosts(Some(netns.gateway()))),
            guard: Some(Box::new(netns)),
        })
    }

    fn host(&self) -> StepNetwork {
        let host = std::fs::read_to_string(&self.files.resolv_conf).unwrap_or_default();
        let mut hosts = std::fs::read_to_string(&self.files.hosts).unwrap_or_default();
        if !hosts.is_empty() && !hosts.ends_with('\n') {
            hosts.push('\n');
        }
        hosts.extend(self.extra_hosts(None).iter().map(|(name, address)| format!("{address}\t{name}\n")));
        StepNetwork { namespace: None, resolv_conf: resolv_conf(&host, ResolvMode::Host), hosts, guard: None }
    }

    fn pool(&self) -> Option<&NetnsPool> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || match Network::open(&self.run_dir).and_then(|network| NetnsPool::new(network, AHEAD)) {
            Ok(pool) => Some(pool),
            Err(error) => {
                let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
                self.progress.warn(format!("steps use the host's network: {error}{hint}"));
                None
            }
        };
        self.pool.get_or_init(open).as_ref()
    }
}
