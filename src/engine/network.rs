//! The network of build steps: a private one where this host can have it, or without root a program of the user's that carries packets; the host's otherwise.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::executor::{Error as BuildError, NetworkSource, StepNetwork};
use crate::graph::NetworkMode;
use crate::progress::Progress;
use crate::runtime::container::HostAddress;
use crate::runtime::network::{
    Error as NetworkError, NetnsPool, Network, Program, ResolvFlags, ResolvMode, Service, Settings, Userspace, carried_resolv_conf,
    host_address, hosts_file, is_for_us, name_servers, no_program, probe_tun, resolv_conf,
};

use super::EngineOptions;

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
    /// Where programs are that may carry packets.
    program_dirs: Vec<PathBuf>,
    /// `None` where this host cannot have private networks, which was said then.
    source: OnceLock<Option<Source>>,
    opening: Mutex<()>,
}

/// Where steps have their networks from.
enum Source {
    Bridge(NetnsPool),
    /// Without root: one of these programs for each step.
    Programs(Vec<Program>),
}

/// The networks of one build's steps.
pub(super) fn networks(options: &EngineOptions, progress: &Progress, extra_hosts: &[(String, HostAddress)]) -> Arc<NetworkSource> {
    let networks = Networks {
        run_dir: options.run_dir.join("net"),
        files: options.network.clone(),
        program_dirs: options.programs.clone(),
        progress: progress.clone(),
        extra_hosts: extra_hosts.to_vec(),
        source: OnceLock::new(),
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
            NetworkMode::Default => match self.source() {
                Some(source) => match self.private(source, hostname) {
                    Ok(network) => Ok(network),
                    Err(error) => {
                        let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
                        self.progress.warn(format!("no private network for this step, so it has the host's: {error}{hint}"));
                        Ok(self.host())
                    }
                },
                None => Ok(self.host()),
            },
        }
    }

    /// The names of `--add-host`; `host-gateway` is the host as seen from a network with this gateway, itself where there is none.
    fn extra_hosts(&self, gateway: Option<IpAddr>) -> Vec<(String, IpAddr)> {
        let gateway = gateway.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let resolved = |address: &HostAddress| match address {
            HostAddress::Address(address) => *address,
            HostAddress::Gateway => gateway,
        };
        self.extra_hosts.iter().map(|(name, address)| (name.clone(), resolved(address))).collect()
    }

    fn private(&self, source: &Source, hostname: &str) -> Result<StepNetwork, NetworkError> {
        let pool = match source {
            Source::Bridge(pool) => pool,
            Source::Programs(programs) => return self.carried(programs, hostname),
        };
        let netns = pool.acquire()?;
        let namespace = netns.fd().try_clone_to_owned().map_err(NetworkError::namespace)?;
        let upstream = std::fs::read_to_string(&self.files.upstream_resolv_conf).ok();
        let host = std::fs::read_to_string(&self.files.resolv_conf).unwrap_or_default();
        let address = IpAddr::V4(netns.address().address);
        Ok(StepNetwork {
            namespace: Some(namespace),
            resolv_conf: resolv_conf(&host, ResolvMode::Private { alternative: upstream.as_deref() }),
            hosts: hosts_file(hostname, &[address], &self.extra_hosts(Some(netns.gateway().into()))),
            guard: Some(Box::new(netns)),
        })
    }

    /// A network whose packets a program carries.
    fn carried(&self, programs: &[Program], hostname: &str) -> Result<StepNetwork, NetworkError> {
        let host = std::fs::read_to_string(&self.files.resolv_conf).unwrap_or_default();
        let flags = ResolvFlags::default();
        let settings = Settings::of_carried(name_servers(&host, &flags));
        let service = Service::spawn(&Userspace { programs: programs.to_vec(), mac: None }, &settings)?;
        let (place, netns) = service.place().ok_or(NetworkError::ServiceEnded)?;
        let namespace = netns.try_clone_to_owned().map_err(NetworkError::namespace)?;
        let gateway = host_address().unwrap_or(IpAddr::V4(place.gateway));
        Ok(StepNetwork {
            namespace: Some(namespace),
            resolv_conf: carried_resolv_conf(&host, &flags),
            hosts: hosts_file(hostname, &[IpAddr::V4(place.address.address)], &self.extra_hosts(Some(gateway))),
            guard: Some(Box::new(service)),
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

    fn source(&self) -> Option<&Source> {
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let bridge = || Network::open(&self.run_dir).and_then(|network| NetnsPool::new(network.lingering(), AHEAD)).map(Source::Bridge);
        let open = || match bridge().or_else(|error| self.programs(error)) {
            Ok(source) => Some(source),
            Err(error) => {
                let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
                self.progress.warn(format!("steps use the host's network: {error}{hint}"));
                None
            }
        };
        self.source.get_or_init(open).as_ref()
    }

    /// The programs that may carry packets where there can be no bridge.
    fn programs(&self, error: NetworkError) -> Result<Source, NetworkError> {
        if !matches!(error, NetworkError::Unavailable(_)) || !is_for_us() {
            return Err(error);
        }
        let programs = Program::find(&self.program_dirs);
        if programs.is_empty() {
            return Err(NetworkError::Unavailable(no_program(None)));
        }
        probe_tun().map(|()| Source::Programs(programs)).map_err(NetworkError::Unavailable)
    }
}
