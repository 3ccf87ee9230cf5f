//! The state directory: who this process is, and that it is the only one to be so.
//!
//! ```text
//! <dir>/lock            locked as long as the process lives; holds its process id
//! <dir>/identity.json   the uuid, and where it was made
//! <dir>/<application>/  the stores
//! ```
//!
//! The uuid makes the process's names at Kafka (transactional ids, static members) the same after a
//! restart, so that a restart takes over at once from what it was before. Two processes with the same
//! names would fence each other for ever; so a directory that was copied, by its host name and inode,
//! gets a new uuid. The stores in it stay: they are valid by what they hold, whoever reads them.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const LOCK: &str = "lock";
const IDENTITY: &str = "identity.json";

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process uses it.
    #[error(
        "the state directory {} is in use by another process{}; stop that process, or give this one a \
         directory of its own (--state-dir, or state.dir in the settings)",
        .dir.display(),
        .pid.map(|pid| format!(" (process id {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, if it can be known.
        pid: Option<u32>,
    },
    /// The application's name is taken by a file of the directory, or leads out of it.
    #[error(
        "a topology cannot be called {0:?}: its stores lie in a directory of that name; give it another name"
    )]
    Name(String),
    /// The machine refuses.
    #[error(
        "cannot {action} {}: {error}; check that the directory can be written by this user and that the \
         disk has room, or choose another one (--state-dir, or state.dir in the settings)",
        .path.display()
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the machine said.
        error: io::Error,
    },
}

/// A locked state directory. It is unlocked when this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    application: String,
    identity: Identity,
    _lock: File,
}

/// What `identity.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    uuid: uuid_text::UuidText,
    #[serde(flatten)]
    place: Place,
}

/// Where a directory is. A copy of it is somewhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    host: String,
    device: u64,
    inode: u64,
}

/// How the `group.instance.id` of a bounded run's worker ends.
const BOUNDED: &str = "-bounded";

/// Whether a member of a group, by its id, belongs to a bounded run.
pub fn is_of_bounded_run(member: &str) -> bool {
    member.contains(&format!("{BOUNDED}-"))
}

impl StateDir {
    /// Opens the directory for this process alone, creating what is missing. Says loudly when it has
    /// to give it a new identity.
    pub fn open(dir: &Path, application: &str) -> Result<StateDir, IdentityError> {
        fs::create_dir_all(dir).map_err(io_error("create the state directory", dir))?;
        Self::open_on(dir, application, &host_name())
    }

    /// As [`open`](StateDir::open), but `None` if there is no such directory.
    pub fn open_existing(dir: &Path, application: &str) -> Result<Option<StateDir>, IdentityError> {
        if !dir.try_exists().map_err(io_error("look for the state directory", dir))? {
            return Ok(None);
        }
        Self::open_on(dir, application, &host_name()).map(Some)
    }

    fn open_on(dir: &Path, application: &str, host: &str) -> Result<StateDir, IdentityError> {
        if [".", "..", LOCK, IDENTITY].contains(&application) || application.contains('/') {
            return Err(IdentityError::Name(application.to_owned()));
        }
        let lock = lock(dir)?;
        let place = place(dir, host)?;
        let path = dir.join(IDENTITY);
        let found = read_identity(&path)?;
        let identity = match found {
            Found::Identity(identity) if identity.place == place => identity,
            Found::Nothing => new_identity(&path, place)?,
            Found::Identity(old) => {
                let identity = new_identity(&path, place)?;
                tracing::warn!(
                    dir = %dir.display(), old = ?old, new = ?identity,
                    "this state directory was copied or moved here: its identity belongs to where it was \
                     made, so this process gets a new one. If the process that it was made for runs no \
                     more, its partitions and open transactions are free once its session and its \
                     transaction time out"
                );
                identity
            }
            Found::Garbage(error) => {
                let identity = new_identity(&path, place)?;
                tracing::warn!(
                    path = %path.display(), error, new = ?identity,
                    "the identity of this state directory cannot be read, so this process gets a new one"
                );
                identity
            }
        };
        Ok(StateDir { dir: dir.to_owned(), application: application.to_owned(), identity, _lock: lock })
    }

    /// The identity: a random uuid, the same at every start.
    pub fn uuid(&self) -> &str {
        self.identity.uuid.as_str()
    }

    /// Where this application's stores lie. Not created here.
    pub fn stores_path(&self) -> PathBuf {
        self.dir.join(&self.application)
    }

    /// The transactional id of a worker, numbered from 0.
    pub fn transactional_id(&self, worker: usize) -> String {
        format!("{}-{}-{worker}", self.application, self.uuid())
    }

    /// The `group.instance.id` of a worker, numbered from 0. It tells a bounded run from an unbounded one:
    /// brokers begin a static member's id with it.
    pub fn instance_id(&self, worker: usize, bounded: bool) -> String {
        format!("{}-{worker}{}", self.uuid(), if bounded { BOUNDED } else { "" })
    }

    /// Deletes this application's stores. Nothing there is no error.
    pub fn remove_stores(&self) -> Result<(), IdentityError> {
        let path = self.stores_path();
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(IdentityError::Io { action: "delete the stores in", path, error })
            }
            _ => Ok(()),
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError + use<> {
    let path = path.to_owned();
    move |error| IdentityError::Io { action, path, error }
}

/// Locks the directory and leaves the process id in the lock file, for whoever is refused.
fn lock(dir: &Path) -> Result<File, IdentityError> {
    let path = dir.join(LOCK);
    // Not truncated: until the lock is ours, what stands in the file is the holder's.
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io_error("open the lock file", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(IdentityError::InUse { dir: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io_error("write the lock file", &path))?;
    Ok(file)
}

enum Found {
    Identity(Identity),
    Nothing,
    Garbage(String),
}

fn read_identity(path: &Path) -> Result<Found, IdentityError> {
    match fs::read(path) {
        Ok(bytes) => Ok(match serde_json::from_slice(&bytes) {
            Ok(identity) => Found::Identity(identity),
            Err(error) => Found::Garbage(error.to_string()),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Makes an identity and keeps it: the file is there in full or not at all.
fn new_identity(path: &Path, place: Place) -> Result<Identity, IdentityError> {
    let identity = Identity { uuid: uuid_text::UuidText::random(), place };
    let mut text = serde_json::to_string_pretty(&identity)
        .map_err(|error| io_error("write", path)(io::Error::other(error)))?;
    text.push('\n');
    let draft = path.with_extension("json.new");
    let write = || {
        let mut file = File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(io_error("write", path))?;
    Ok(identity)
}

fn place(dir: &Path, host: &str) -> Result<Place, IdentityError> {
    let metadata = fs::metadata(dir).map_err(io_error("read the properties of", dir))?;
    Ok(Place { host: host.to_owned(), device: metadata.dev(), inode: metadata.ino() })
}

/// The machine's name; empty where it cannot be read. Then a copy is told by its inode alone.
fn host_name() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

mod uuid_text {
    use serde::{Deserialize, Serialize};

    /// A uuid as text; a file that holds anything else is not read.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(try_from = "String", into = "String")]
    pub(super) struct UuidText(String);

    impl UuidText {
        pub(super) fn random() -> UuidText {
            #[expect(clippy::disallowed_methods, reason = "two processes must never have the same identity")]
            let uuid = uuid::Uuid::new_v4();
            UuidText(uuid.to_string())
        }

        pub(super) fn as_str(&self) -> &str {
            &self.0
        }
    }

    impl TryFrom<String> for UuidText {
        type Error = uuid::Error;

        fn try_from(text: String) -> Result<UuidText, uuid::Error> {
            Ok(UuidText(uuid::Uuid::try_parse(&text)?.to_string()))
        }
    }

    impl From<UuidText> for String {
        fn from(uuid: UuidText) -> String {
            uuid.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for name in [LOCK, IDENTITY] {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }

    #[test]
    fn the_identity_survives_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("deep/state");
        let first = StateDir::open(&dir, "revenue").unwrap();
        let uuid = first.uuid().to_owned();
        assert_eq!(first.stores_path(), dir.join("revenue"));
        assert_eq!(first.transactional_id(3), format!("revenue-{uuid}-3"));
        assert_eq!(first.instance_id(0, false), format!("{uuid}-0"));
        assert!(is_of_bounded_run(&format!("{}-another-uuid at /127.0.0.1", first.instance_id(0, true))));
        assert!(!is_of_bounded_run(&format!("{}-another-uuid at /127.0.0.1", first.instance_id(0, false))));
        drop(first);
        assert_eq!(StateDir::open(&dir, "revenue").unwrap().uuid(), uuid);
        assert!(!dir.join("identity.json.new").exists());
    }

    #[test]
    fn a_second_process_is_refused_by_name_and_pid() {
        let temp = tempfile::tempdir().unwrap();
        let held = StateDir::open(temp.path(), "a").unwrap();
        // A lock belongs to an open file, so a second opening in this process stands for another one.
        let error = StateDir::open(temp.path(), "b").unwrap_err();
        assert!(matches!(error, IdentityError::InUse { pid, .. } if pid == Some(std::process::id())));
        let message = error.to_string();
        assert!(message.contains(temp.path().to_str().unwrap()), "{message}");
        assert!(message.contains(&format!("(process id {})", std::process::id())), "{message}");
        drop(held);
        StateDir::open(temp.path(), "b").unwrap();
    }

    #[test]
    fn a_copied_directory_gets_an_identity_of_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let (original, copied) = (temp.path().join("original"), temp.path().join("copy"));
        let first = StateDir::open(&original, "a").unwrap();
        copy(&original, &copied);
        let second = StateDir::open(&copied, "a").unwrap();
        assert_ne!(first.uuid(), second.uuid());
        // The new one is kept.
        let uuid = second.uuid().to_owned();
        drop(second);
        assert_eq!(StateDir::open(&copied, "a").unwrap().uuid(), uuid);
    }

    #[test]
    fn a_directory_on_another_host_gets_an_identity_of_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let here = StateDir::open_on(temp.path(), "a", "here").unwrap().uuid().to_owned();
        let there = StateDir::open_on(temp.path(), "a", "there").unwrap().uuid().to_owned();
        assert_ne!(here, there);
        assert_eq!(StateDir::open_on(temp.path(), "a", "there").unwrap().uuid(), there);
    }

    #[test]
    fn an_identity_that_cannot_be_read_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let first = StateDir::open(temp.path(), "a").unwrap().uuid().to_owned();
        let whole = fs::read_to_string(temp.path().join(IDENTITY)).unwrap();
        for garbage in [String::new(), whole[..20].to_owned(), whole.replace(&first, "../../etc")] {
            fs::write(temp.path().join(IDENTITY), garbage).unwrap();
            let uuid = StateDir::open(temp.path(), "a").unwrap().uuid().to_owned();
            assert_ne!(uuid, first);
            assert_eq!(StateDir::open(temp.path(), "a").unwrap().uuid(), uuid);
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        for name in [".", "..", "lock", "identity.json", "a/b"] {
            let error = StateDir::open(temp.path(), name).unwrap_err();
            assert!(matches!(&error, IdentityError::Name(refused) if refused == name), "{error}");
        }
    }

    #[test]
    fn stores_are_removed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::open(temp.path(), "a").unwrap();
        for path in ["a/orders-0", "b/orders-0"] {
            fs::create_dir_all(temp.path().join(path)).unwrap();
        }
        state.remove_stores().unwrap();
        state.remove_stores().unwrap();
        assert!(!temp.path().join("a").exists() && temp.path().join("b/orders-0").exists());
        assert!(StateDir::open_existing(&temp.path().join("missing"), "a").unwrap().is_none());
        assert!(!temp.path().join("missing").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_says_what_to_do() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        let message = StateDir::open(&file.join("state"), "a").unwrap_err().to_string();
        assert!(message.contains("file/state") && message.contains("--state-dir"), "{message}");
    }
}
