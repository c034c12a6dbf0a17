//! The handle on a store: opening, making and recovering it.
//!
//! Opening costs reading two small files and one `stat`: the database is opened by the first question. The first process of a boot finds no directory of
//! that boot's name in `fresh/`, and then drops what an earlier boot did not settle (`recover`); nothing else is ever repaired.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Access;
use rustix::io::Errno;

use crate::sys::privilege;
use crate::task::fault_point;

use super::database::Database;
use super::layout::{DIRECTORIES, Layout, directory_mode};
use super::lease::LeaseFile;
use super::lock::KeyLock;
use super::stacks::KeptStack;
use super::view::Marks;
use super::{Error, FORMAT, SnapshotId};

/// A store on disk. Cheap to clone; any number of threads and processes may use one store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    layer_limit: Option<u64>,
}

struct Inner {
    layout: Layout,
    database: Database,
    /// Why nothing can be written, where that is so.
    read_only: Option<Errno>,
    userxattr: OnceLock<bool>,
    marks: OnceLock<Marks>,
    used: Mutex<Used>,
    leases: Mutex<Vec<Weak<LeaseFile>>>,
    stacks: Mutex<Vec<KeptStack>>,
    /// Snapshots that were seen to be committed, and how many removals there had been.
    committed: Mutex<(i64, HashSet<SnapshotId>)>,
}

/// What was used since the last flush, so that one transaction can say so of all of it.
#[derive(Default)]
pub(crate) struct Used {
    pub(crate) cache_records: HashSet<i64>,
    pub(crate) chains: HashSet<String>,
}

/// The mode of a store's directory.
const ROOT_MODE: u32 = 0o700;

/// Of a mode, what others than the owner may.
const OTHERS: u32 = 0o077;

impl Store {
    /// Opens the store in `root`, and makes it where there is none. A store of a newer format is refused.
    pub fn open(root: &Path) -> Result<Store, Error> {
        Store::open_in_boot(root, &boot_id())
    }

    /// The same store, in which a layer may unpack to at most `limit` bytes.
    #[must_use]
    pub fn with_layer_limit(self, limit: Option<u64>) -> Store {
        Store { layer_limit: limit, ..self }
    }

    /// To how many bytes a layer may unpack, if somebody said so.
    pub fn layer_limit(&self) -> Option<u64> {
        self.layer_limit
    }

    /// Opens the store in `root`, if there is one that nobody is removing.
    pub fn open_made(root: &Path) -> Result<Option<Store>, Error> {
        let store = Store::at(root, &boot_id())?;
        // What is missing would be made, as SQLite makes its log, and then a directory that is being removed would not be empty in the end.
        let is_whole = store.is_made()? && store.database().has_its_files() && store.layout().is_whole();
        Ok(if is_whole { Some(store.recovered()?) } else { None })
    }

    /// Opens the store as in the boot named `boot`.
    pub(crate) fn open_in_boot(root: &Path, boot: &str) -> Result<Store, Error> {
        let store = Store::at(root, boot)?;
        if !store.is_made()? {
            store.make()?;
        }
        store.recovered()
    }

    /// The store in `root`, as it is: neither made nor recovered.
    pub(crate) fn unopened(root: &Path) -> Result<Store, Error> {
        Store::at(root, &boot_id())
    }

    fn at(root: &Path, boot: &str) -> Result<Store, Error> {
        let root = std::path::absolute(root).map_err(Error::io("find", root))?;
        // Who may not write to the directory can still read what is there. A store that is not there yet is another matter.
        let denied = rustix::fs::access(&root, Access::WRITE_OK).err();
        let read_only = denied.filter(|errno| matches!(*errno, Errno::ROFS | Errno::ACCESS | Errno::PERM) && root.join("version").exists());
        let layout = Layout::new(root, boot.to_owned());
        let database = Database::new(layout.database(), read_only);
        let inner = Inner {
            layout,
            database,
            read_only,
            userxattr: OnceLock::new(),
            marks: OnceLock::new(),
            used: Mutex::default(),
            leases: Mutex::default(),
            stacks: Mutex::default(),
            committed: Mutex::default(),
        };
        Ok(Store { inner: Arc::new(inner), layer_limit: None })
    }

    /// Shuts the store to other users, and drops what an earlier boot left, where this is the first command of a boot.
    fn recovered(self) -> Result<Store, Error> {
        if self.read_only().is_none() {
            self.close_to_others()?;
        }
        let fresh = self.layout().fresh();
        if !fresh.try_exists().map_err(Error::io("stat", &fresh))? {
            match self.read_only() {
                None => self.recover()?,
                // All of it is durable, so there is nothing to be dropped.
                Some(_) if self.is_settled()? => {}
                Some(_) => return Err(self.cannot_write("drop what was not durable before this boot")),
            }
        }
        Ok(self)
    }

    /// Keeps other users of this machine out, also of a store that was made open or in a directory that was. A file that a container made set-user-ID is that here as well,
    /// so who reached it could be root (CVE-2021-41091). Containers reach theirs by mounts, without a step through this directory.
    fn close_to_others(&self) -> Result<(), Error> {
        let root = self.root();
        let mode = fs::metadata(root).map_err(Error::io("stat", root))?.permissions().mode();
        if mode & OTHERS == 0 {
            return Ok(());
        }
        match set_mode(root, mode & 0o7777 & !OTHERS) {
            // Whose directory it is lets us write to it: they know who else may.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }

    /// Whether the store can only be read.
    pub fn is_read_only(&self) -> bool {
        self.read_only().is_some()
    }

    /// Why the store can only be read, where that is so.
    pub(crate) fn read_only(&self) -> Option<Errno> {
        self.inner.read_only
    }

    /// The error that the store can only be read.
    pub(crate) fn cannot_write(&self, action: &'static str) -> Error {
        let source = self.read_only().unwrap_or(Errno::ROFS).into();
        Error::ReadOnly { action, root: self.root().to_owned(), source }
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        self.layout().root()
    }

    /// Whether overlay attributes are in `user.overlay.*`: so where this process is not root of the initial user namespace, as the kernel then
    /// refuses `trusted.*`.
    pub fn userxattr(&self) -> bool {
        *self.inner.userxattr.get_or_init(|| !(privilege::is_root() && privilege::in_initial_user_namespace()))
    }

    /// The marks that layers of this store have. Found out once for each file system that it is on: a store that ever had portable ones keeps to them.
    pub fn marks(&self) -> Marks {
        *self.inner.marks.get_or_init(|| self.find_marks(if self.userxattr() { Marks::User } else { Marks::Trusted }))
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    pub(crate) fn database(&self) -> &Database {
        &self.inner.database
    }

    /// What was used since the last flush.
    pub(crate) fn used(&self) -> MutexGuard<'_, Used> {
        // Sets of keys: whatever a panicking thread left in there is true.
        self.inner.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leases that were taken through this store.
    pub(crate) fn leases(&self) -> MutexGuard<'_, Vec<Weak<LeaseFile>>> {
        self.inner.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The deep stacks of snapshots that were asked for lately.
    pub(super) fn kept_stacks(&self) -> &Mutex<Vec<KeptStack>> {
        &self.inner.stacks
    }

    /// Snapshots that were seen to be committed, after that many removals of any.
    pub(crate) fn seen_committed(&self) -> MutexGuard<'_, (i64, HashSet<SnapshotId>)> {
        // A set that may always be smaller.
        self.inner.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads `version`; false where the store is yet to be made.
    fn is_made(&self) -> Result<bool, Error> {
        let path = self.layout().version();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(Error::NoDirectory { root: self.root().to_owned(), what: "is a file, or lies below one".to_owned() });
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let text = String::from_utf8_lossy(&text[..text.len().min(32)]).trim().to_owned();
        match text.parse::<u32>() {
            Ok(FORMAT) => Ok(true),
            Ok(1..FORMAT) => {
                self.migrate()?;
                Ok(true)
            }
            Ok(found) if found > FORMAT => Err(Error::NewerFormat { root: self.root().to_owned(), found, known: FORMAT }),
            _ => Err(Error::BadVersion { path, found: text }),
        }
    }

    /// Brings a store of an older format up to date. Processes that are still at work on it do not notice: formats grow only.
    fn migrate(&self) -> Result<(), Error> {
        if self.read_only().is_some() {
            return Err(self.cannot_write("bring the store up to date"));
        }
        let _lock = KeyLock::wait(self.layout().lock("migrate"))?;
        self.database().migrate()?;
        self.write_version()
    }

    /// Makes the directories and the database. Several processes may try at once, and one that was killed half way left nothing in the way.
    fn make(&self) -> Result<(), Error> {
        let layout = self.layout();
        let root = layout.root();
        if let Ok(target) = fs::read_link(root)
            && !root.exists()
        {
            let what = format!("is a symbolic link to `{}`, where nothing is", target.display());
            return Err(Error::NoDirectory { root: root.to_owned(), what });
        }
        if !root.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(ROOT_MODE).create(root).map_err(Error::io("create", root))?;
        }
        fault_point("make:root");
        make_dir(&layout.locks(), 0o700)?;
        let _lock = KeyLock::wait(layout.lock("make"))?;
        if self.is_made()? {
            return Ok(());
        }
        for name in DIRECTORIES {
            let mode = directory_mode(name);
            make_dir(&root.join(name), mode)?;
            set_mode(&root.join(name), mode)?;
            fault_point("make:directory");
        }
        make_dir(&layout.blobs().join("sha256"), 0o700)?;
        make_dir(&layout.blobs().join("sha512"), 0o700)?;
        make_dir(&layout.snapshot(SnapshotId::SCRATCH), 0o711)?;
        let scratch = layout.snapshot_fs(SnapshotId::SCRATCH);
        make_dir(&scratch, 0o755)?;
        // Not left to the umask: this is the root directory of whatever starts from nothing.
        set_mode(&scratch, 0o755)?;
        set_mode(&layout.snapshot(SnapshotId::SCRATCH), 0o711)?;
        fault_point("make:directories");
        self.database().create()?;
        fault_point("make:database");
        self.write_version()?;
        fault_point("make:version");
        Ok(())
    }

    fn write_version(&self) -> Result<(), Error> {
        use std::io::Write;
        let path = self.layout().version();
        let temporary = self.layout().ingests().join("version");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&temporary)
            .map_err(Error::io("create", &temporary))?;
        file.write_all(format!("{FORMAT}\n").as_bytes()).map_err(Error::io("write", &temporary))?;
        file.sync_all().map_err(Error::io("sync", &temporary))?;
        fault_point("make:version-written");
        fs::rename(&temporary, &path).map_err(Error::io("create", &path))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.root()).finish()
    }
}

/// Makes a directory, unless it exists.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::io("create", path)(error)),
        _ => Ok(()),
    }
}

/// Sets the mode of a directory that was just made, where it must not depend on the umask.
pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::io("change the mode of", path))
}

/// What the kernel calls this boot.
fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    // Without `/proc` (or in a sandbox that hides it) there is only one boot: what is not settled is then believed after a power cut.
    if id.is_empty() { "unknown".to_owned() } else { id }
}

/// A moment as the database keeps it: microseconds since the epoch.
pub(crate) fn to_micros(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

/// The moment that the database keeps as `micros`.
pub(crate) fn from_micros(micros: i64) -> SystemTime {
    let length = Duration::from_micros(micros.unsigned_abs());
    let moment = if micros < 0 { UNIX_EPOCH.checked_sub(length) } else { UNIX_EPOCH.checked_add(length) };
    moment.unwrap_or(UNIX_EPOCH)
}

/// Now, as the database keeps it.
pub(crate) fn now() -> i64 {
    to_micros(SystemTime::now())
}

/// A time of last use is only written where it is older than this many microseconds: good enough for pruning, and most builds write nothing.
pub(crate) const USE_GRANULARITY: i64 = 60 * 1_000_000;

/// Tells of a time of last use whether it is to be written anew at `now`: it is old, or of a future that a clock which was set right has taken back.
pub(crate) fn stale_use(now: i64) -> impl Fn(i64) -> bool {
    move |last_used: i64| now.saturating_sub(last_used).saturating_abs() > USE_GRANULARITY
}
