//! Typed requests and outcomes: what a command line (or later a server) asks for, and the wiring of the parts that do it.
//!
//! An [`Engine`] is opened once for a command. What costs time (certificates, networks, the database) is opened when it is first needed. This folder neither prints
//! nor reads the environment: it gets values, and returns outcomes.

mod build;
mod build_cache;
mod cache_export;
mod call;
mod changes;
mod check;
mod containers;
mod context_files;
mod copy;
mod diff;
mod doctor;
mod edit;
mod epoch;
mod error;
mod image_events;
mod images;
mod index;
mod information;
mod login;
mod network;
mod networks;
mod outputs;
mod remote;
mod root_driver;
mod search;
mod serve;
mod sources;
mod space;
mod stored_index;
mod syntax;
mod transfer;
mod validate;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::registry::{
    CertificateFiles, Client, ClientOptions, CredentialError, CredentialFiles, Credentials, Registries, RegistriesFiles, configured_proxies,
};
use crate::runtime::Spawner;
use crate::store::Store;
pub use crate::store::{
    GcSettings, GcSpace, LoggedBuild, PruneImages, PruneOptions, PruneReport, PruneRule, RecordFilter, RecordFilterError, StoreUsage,
    UsageRecord,
};

pub use crate::executor::RootDriver;
pub use crate::graph::SOURCE_DATE_EPOCH;
pub use crate::image::Error as ImageError;
pub use crate::image::load::Layout;
pub use crate::registry::{Credential, Saved};
pub use crate::store::remove_remains;
pub use build::{BuildContext, BuildOutcome, BuildRequest, ContextSource, DockerfileSource, PlatformOutcome};
pub use build_cache::{CacheDestination, CacheMode, CacheRepository, CacheSource, CacheTarget};
pub use call::{Call, CallOutcome, CheckReport, Lines};
pub use check::{CheckDepth, CheckOutcome, Problem, StoreCheck};
pub use containers::{
    Ahead, ChangeKind, CommitRequest, ContainerUsage, CopyFiles, Event, EventOptions, FileChange, Healed, HealthRequest, ProcessRow,
    Submounts, UpdateRequest, VolumeInfo, VolumesFrom, endpoint_id, mac_text, parse_mount, parse_volumes_from,
};
pub use containers::{
    ContainerInfo, ExecOptions, MountRequest, NetworkChoice, RunImage, RunNetwork, RunRequest, SeccompRequest, parse_bytes, parse_tmpfs,
    parse_volume,
};
pub use context_files::{ContextEntry, ContextFiles, ContextTotal, DecidedBy, ReadAs, Why};
pub use copy::{Access, CopyForm, CopyOutcome, CopyRequest, Effort, ManifestFormat, Place, RemoteDocument, RemoteImage, Wanted, Who};
pub use diff::{Change, DiffRequest, FileDifference, ImageDiff, Times};
pub use doctor::{DoctorRequest, Finding, Verdict, examine};
pub use edit::{BasePlace, ConfigChanges, Edit, EditOutcome, EditRequest, EditTarget, RebaseRequest, Refusal};
pub use error::{Class, Error};
pub use images::{HistoryLine, ImageDetails, ImageSummary, NamedAs, Removal, Removed, parse_time};
pub use index::{AddOptions, IndexBase, IndexEdit, IndexOutcome, IndexRequest, PlatformChange, Selector};
pub use information::Information;
pub use login::{LoginRequest, LoginResult, LogoutResult};
pub use network::NetworkFiles;
pub use networks::{NetworkConfig, NetworkInfo, NetworkMember, NetworkRequestOptions};
pub use outputs::{
    Annotation, AnnotationPlace, Compression, CompressionSpec, Destination, DigestNames, FileLayout, Output, OutputTimes, Packing, Push,
};
pub use root_driver::StorageDriver;
pub use search::FoundRepository;
pub use serve::{Collected, RegistryAccess, RegistryEvent, RegistryEvents, RegistryServer, ServeRequest, bind_registry, collect_registry};
pub use space::SpaceUsage;
pub use syntax::{HeredocNode, InstructionNode, StageNode, Syntax, SyntaxTree, parse_dockerfile};
pub use transfer::{ArchiveFormat, ImportRequest, Loaded, PullOutcome, PullRequest, PushOutcome, SaveRequest};
pub use validate::{Bad, Depth, Fault, ValidateRequest, Validation};
pub use verify::{EntryDifference, NotReproducible, StepDifference};

/// Where things are, and how registries are reached.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The store's directory.
    pub root: PathBuf,
    /// A directory for what does not outlive a reboot.
    pub run_dir: PathBuf,
    /// Where credentials are kept.
    pub credentials: CredentialFiles,
    /// How registries are reached. Its credentials are replaced by those of `credentials`.
    pub client: ClientOptions,
    /// The files about registries: mirrors, short names, what is blocked.
    pub registries: RegistriesFiles,
    /// What the user's own settings say of registries. Asked when a registry is first needed, so that a mistake in them stops nothing else.
    pub registry_settings: fn() -> Result<RegistrySettings, Error>,
    /// To how much a layer may unpack, as the user wrote it.
    pub max_layer_size: Option<String>,
    /// How root file systems are made, where the user says so. Asked when one is first needed, as registries are.
    pub storage_driver: fn() -> Result<Option<StorageDriver>, Error>,
    /// The host's files about names.
    pub network: NetworkFiles,
    /// The directories of programs that may carry packets of containers and steps.
    pub programs: Vec<PathBuf>,
}

/// What the user's own settings say of registries.
#[derive(Clone, Debug, Default)]
pub struct RegistrySettings {
    /// The file that says it.
    pub file: PathBuf,
    /// By registry, what is asked before it: `host[:port][/path]`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries that are spoken to without TLS.
    pub plain_http: Vec<String>,
    /// Registries whose certificates do not count.
    pub skip_tls_verify: Vec<String>,
    /// Certificates by registry.
    pub certificates: BTreeMap<String, CertificateFiles>,
    /// How long a connection may be silent.
    pub idle_timeout: Option<Duration>,
    /// How often something is tried.
    pub attempts: Option<u32>,
}

/// All that commands are made of.
pub struct Engine {
    options: EngineOptions,
    store: Store,
    spawner: Option<Arc<Spawner>>,
    /// Made when a registry is first asked: reading the certificates of the system takes some milliseconds.
    client: Arc<Mutex<Option<Client>>>,
}

impl Engine {
    /// Opens the store. Builds need a `spawner`, which was made before any thread.
    pub fn open(options: EngineOptions, spawner: Option<Spawner>) -> Result<Engine, Error> {
        let limit = options.max_layer_size.as_deref().map(layer_limit).transpose()?;
        let store = Store::open(&options.root)?.with_layer_limit(limit);
        // What killed processes left is gone with the next command, whatever that is.
        crate::runtime::network::sweep(&options.run_dir);
        Ok(Engine { options, store, spawner: spawner.map(Arc::new), client: Arc::default() })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the engine was opened with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// The variables for proxies that Docker's settings have for what runs in builds and containers.
    ///
    /// # Errors
    /// The settings exist and cannot be read or understood.
    pub fn configured_proxies(&self) -> Result<Vec<(&'static str, String)>, CredentialError> {
        self.options.credentials.docker_config.as_deref().map_or_else(|| Ok(Vec::new()), configured_proxies)
    }

    /// The registry client.
    pub fn client(&self) -> Result<Client, Error> {
        client_of(&self.options, &self.client)
    }

    /// A client that takes the registry of `reference` as it is: with any certificate, or without TLS.
    fn insecure_client(&self, reference: &crate::oci::Reference) -> Result<Client, Error> {
        let mut options = client_options(&self.options)?;
        options.insecure.push(reference.registry().to_owned());
        Client::new(options).map_err(set_up_failed)
    }

    /// What a name that was written without a registry may stand for at registries; other names are what they are.
    fn long_names(&self, reference: &crate::oci::Reference) -> Result<Vec<crate::oci::Reference>, Error> {
        if !reference.is_short() {
            return Ok(vec![reference.clone()]);
        }
        let settings = (self.options.registry_settings)()?;
        registries(&self.options, &settings)?.long_names(reference).map_err(set_up_failed)
    }

    /// Makes root file systems for a build.
    fn roots(&self) -> Result<crate::executor::Roots, Error> {
        let (store, wanted, programs) = (self.store.clone(), (self.options.storage_driver)()?, self.options.programs.clone());
        Ok(crate::executor::Roots::new(move || root_driver::choose(&store, wanted, &programs)))
    }

    /// Ends a command: makes durable what it `changed`, or, where it only looked, notes what was used.
    pub fn finish(&self, changed: bool) -> Result<(), Error> {
        if changed {
            self.store.settle()?
        } else {
            self.store.flush()?
        }
        Ok(())
    }
}

/// Makes durable what any command made in the store in `root`, unless that was removed meanwhile.
///
/// # Errors
/// The store cannot be opened or written.
pub fn settle_in_background(root: &std::path::Path) -> Result<(), Error> {
    // The long wait comes first and holds nothing open there: whoever unmounts or removes the store meanwhile can do so. It is begun a little later, as
    // what is only tried out is often removed at once.
    std::thread::sleep(std::time::Duration::from_secs(1));
    rustix::fs::sync();
    if let Some(store) = Store::open_made(root)? {
        store.settle()?;
    }
    Ok(())
}

/// Shortens the log of the database of the store in `root`, unless that was removed meanwhile.
///
/// # Errors
/// The store cannot be opened or written.
pub fn shorten_log_in_background(root: &std::path::Path) -> Result<(), Error> {
    // The command that asked for it, and the start of what it runs, come first.
    std::thread::sleep(std::time::Duration::from_millis(50));
    if let Some(store) = Store::open_made(root)? {
        store.shorten_log()?;
    }
    Ok(())
}

/// The client in `made`, which is made if it is not there.
fn client_of(options: &EngineOptions, made: &Mutex<Option<Client>>) -> Result<Client, Error> {
    let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(client) = &*made {
        return Ok(client.clone());
    }
    let client = Client::new(client_options(options)?).map_err(set_up_failed)?;
    *made = Some(client.clone());
    Ok(client)
}

fn set_up_failed(source: crate::registry::Error) -> Error {
    Error::Registry { action: "set up", name: "the registry client".into(), source }
}

/// Reads the largest size that a layer may unpack to.
fn layer_limit(text: &str) -> Result<u64, Error> {
    parse_bytes(text).map_err(|reason| Error::Usage {
        message: format!("`{text}` cannot be the largest size of a layer: {reason}"),
        hint: Some("STRAKE_MAX_LAYER_SIZE is a size such as 50GB".to_owned()),
    })
}

/// How registries are reached, with all that files say about it.
fn client_options(options: &EngineOptions) -> Result<ClientOptions, Error> {
    let credentials = Credentials::load(&options.credentials)?;
    let mut client = client_options_without(options)?;
    client.credentials = credentials.with_helpers(client.registries.credential_helpers());
    client.extra_headers = credentials.http_headers();
    Ok(client)
}

/// The same without credentials.
fn client_options_without(options: &EngineOptions) -> Result<ClientOptions, Error> {
    let mut client = options.client.clone();
    let settings = (options.registry_settings)()?;
    client.registries = registries(options, &settings)?;
    client.plain_http.extend(settings.plain_http);
    client.skip_tls_verify.extend(settings.skip_tls_verify);
    client.certificates = settings.certificates;
    client.idle_timeout = settings.idle_timeout.unwrap_or(client.idle_timeout);
    client.retry.attempts = settings.attempts.unwrap_or(client.retry.attempts);
    Ok(client)
}

fn registries(options: &EngineOptions, settings: &RegistrySettings) -> Result<Registries, Error> {
    let read = Registries::load(&options.registries).and_then(|read| read.with_mirrors(&settings.mirrors, &settings.file));
    read.map_err(set_up_failed)
}
