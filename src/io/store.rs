//! What must survive a crash: the ports that were made, and where; which address is whose, here and of ours on others; where other members were reached;
//! what trust must remember; what is exposed and published; and the names that were added by hand.
//!
//! A record is on the disk before its TAP is made to outlive the daemon, and goes after the TAP has gone. So after a
//! kill at any moment each surviving TAP has a record, and a record without a TAP is harmless: adoption finds nothing
//! there and says so.
//!
//! The records are JSON in a redb file (crash-safe by copy-on-write), one transaction each. A lock file beside it
//! keeps a second daemon out. A file that is damaged, foreign, or of a later weft is refused whole.

mod claims;
mod host;
mod names;

use super::api::LAST_BREATH;
use super::netns::NetnsId;
use super::wait::Patience;
use crate::config::Port;
use crate::control::contacts::Contact;
use crate::control::exposures;
use crate::control::names::AddedName;
use crate::control::ports::Origin;
use crate::docker::record::Record as DockerRecord;
use crate::ipam::{Claim, Lease};
use crate::trust::record::Record;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, TableHandle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The version of [`PortRecord`]'s meaning. Raised when an older weft would misread a record.
const SCHEMA: u32 = 1;
/// From a name to JSON with the schema beside the record.
type Records = TableDefinition<'static, &'static str, &'static [u8]>;
/// Port name → [`PortRecord`].
const PORTS: Records = TableDefinition::new("ports");
/// Public key → [`Contact`]. Absent, as the next, in a file that an earlier weft made.
const CONTACTS: Records = TableDefinition::new("contacts");
/// A record's slot → [`Record`].
const TRUST: Records = TableDefinition::new("trust");
/// A record's slot → [`DockerRecord`].
const DOCKER: Records = TableDefinition::new("docker");
/// `VNI/ADDRESS` → [`Lease`].
const LEASES: Records = TableDefinition::new("leases");
/// The tables we know, and what one record of each is; a table of any other name is another program's, or a later weft's.
const TABLES: [(Records, &str); 8] = [
    (PORTS, "port"),
    (CONTACTS, "contact"),
    (TRUST, "trust"),
    (DOCKER, "docker"),
    (names::NAMES, "name"),
    (host::HOST, "host"),
    (LEASES, "lease"),
    (claims::CLAIMS, "claim"),
];
/// What redb may keep in memory: all records of a busy host are a few hundred kilobytes, read once.
const CACHE: usize = 1 << 20;

/// A port that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRecord {
    /// The port as it was asked for. `spec.ifname` is the interface's name in its namespace.
    pub spec: Port,
    /// Its network's VNI.
    pub vni: u32,
    /// Its MAC address, also where the specification leaves it to us.
    pub mac: Mac,
    /// Who asked for it.
    pub origin: Origin,
    /// The namespace it was moved into.
    pub netns: NetnsId,
    /// How that namespace was reached.
    pub via: Via,
    /// Which of two places of its station is the later one.
    #[serde(default)]
    pub sequence: u32,
}

/// How a namespace was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// It is the daemon's own.
    Host,
    /// A file bound to it.
    Path(PathBuf),
    /// A process in it.
    Process {
        /// Its process id.
        pid: i32,
        /// When it started, in clock ticks since boot (proc(5), `starttime`): tells it from a later one of this id.
        started: u64,
        /// The engine that named it, where it is a container's.
        #[serde(default)]
        engine: Option<String>,
    },
}

/// Why the state cannot be used. The state on the disk is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has it.
    #[error(
        "another weft daemon{} uses the state in {}: stop it, or give this one another state_dir",
        .pid.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default(), .directory.display()
    )]
    InUse {
        /// The state directory.
        directory: PathBuf,
        /// Which process, where it said so.
        pid: Option<String>,
    },
    /// Not a state file, or one that was damaged.
    #[error(
        "state file {} is damaged or not weft's ({why}): move it away, 'mv {} {}.bad'; weft then starts without the \
         ports made by 'weft attach', and their interfaces have to be removed by hand",
        .path.display(), .path.display(), .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a later weft.
    #[error(
        "state file {} was written by a later weft (schema {schema}, this one knows {SCHEMA}): run that one, or detach \
         its ports with it first", .path.display()
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// The schema found.
        schema: u32,
    },
    /// The system refused.
    #[error("cannot {doing} {}: {source}", .path.display())]
    System {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A change was not saved.
    #[error("cannot save to state file {}: {why}; is the disk full?", .path.display())]
    NotSaved {
        /// The file.
        path: PathBuf,
        /// What redb says.
        why: String,
    },
}

/// The open state of one daemon. No other process can open it meanwhile.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// None after it could not be written, since it then refuses everything: it is opened again for what comes next.
    database: RefCell<Option<Database>>,
    ports: Vec<PortRecord>,
    contacts: Vec<Contact>,
    trust: Vec<Record>,
    docker: Vec<DockerRecord>,
    host: Vec<exposures::Record>,
    names: Vec<AddedName>,
    leases: Vec<Lease>,
    claims: Vec<Claim>,
    /// Held for as long as the store is.
    _lock: File,
}

impl Store {
    /// Opens the state in `directory`, which is made if it does not exist, and reads all of it.
    ///
    /// # Errors
    /// [`StoreError`]: in use, damaged, of a later weft, or the system refused.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let mut dirs = DirBuilder::new();
        dirs.recursive(true).mode(0o700).create(directory).map_err(system("make", directory))?;
        let lock = lock(directory)?;
        let path = directory.join("state.redb");
        if !path.try_exists().map_err(system("look for", &path))? {
            make_empty(directory, &path)?;
        }
        let damaged = |why| StoreError::Damaged { path: path.clone(), why };
        // redb asserts parts of its structure instead of checking them; a broken file must not end in a panic.
        let read = catch_unwind(AssertUnwindSafe(|| read(&path)));
        let Content { database, ports, contacts, trust, docker, names, host, leases, claims } = match read {
            Ok(Ok(read)) => read,
            Ok(Err(Unread::Damaged(why))) => return Err(damaged(why)),
            Ok(Err(Unread::Later(schema))) => return Err(StoreError::Later { path, schema }),
            Ok(Err(Unread::System(source))) => return Err(system("open", &path)(source)),
            Err(_) => return Err(damaged("its structure contradicts itself".to_owned())),
        };
        let database = RefCell::new(Some(database));
        Ok(Self { path, database, ports, contacts, trust, docker, names, host, leases, claims, _lock: lock })
    }

    /// All records, by port name.
    pub fn ports(&self) -> &[PortRecord] {
        &self.ports
    }

    /// Saves a record, in place of the one with its name. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn put(&mut self, port: &PortRecord) -> Result<(), StoreError> {
        self.insert(PORTS, &port.spec.name, port)?;
        self.ports.retain(|have| have.spec.name != port.spec.name);
        let at = self.ports.partition_point(|have| have.spec.name < port.spec.name);
        self.ports.insert(at, port.clone());
        Ok(())
    }

    /// Forgets a record; one that does not exist is no error.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.change(PORTS, |table| table.remove(name).map(drop))?;
        self.ports.retain(|have| have.spec.name != name);
        Ok(())
    }

    /// What trust remembered when the state was opened.
    pub fn take_trust(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.trust)
    }

    /// Saves a record of trust, in place of the one in its slot. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn put_trust(&self, record: &Record) -> Result<(), StoreError> {
        self.insert(TRUST, &record.slot(), record)
    }

    /// Forgets the record in a slot; one that does not exist is no error.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn forget_trust(&self, slot: &str) -> Result<(), StoreError> {
        self.change(TRUST, |table| table.remove(slot).map(drop))
    }

    /// What was kept of Docker when the store was opened.
    pub fn take_docker(&mut self) -> Vec<DockerRecord> {
        std::mem::take(&mut self.docker)
    }

    /// Saves a record of Docker, in place of the one in its slot. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn put_docker(&self, record: &DockerRecord) -> Result<(), StoreError> {
        self.insert(DOCKER, &record.slot(), record)
    }

    /// Forgets the record in a slot; one that does not exist is no error.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn remove_docker(&self, slot: &str) -> Result<(), StoreError> {
        self.change(DOCKER, |table| table.remove(slot).map(drop))
    }

    /// The contacts that were kept when the store was opened.
    pub fn take_contacts(&mut self) -> Vec<Contact> {
        std::mem::take(&mut self.contacts)
    }

    /// Saves a contact, in place of the one with its key.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn put_contact(&self, contact: &Contact) -> Result<(), StoreError> {
        self.insert(CONTACTS, &contact.public_key.to_string(), contact)
    }

    /// Forgets a contact; one that does not exist is no error.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn remove_contact(&self, key: &PublicKey) -> Result<(), StoreError> {
        self.change(CONTACTS, |table| table.remove(key.to_string().as_str()).map(drop))
    }

    /// The leases that were kept when the store was opened.
    pub fn take_leases(&mut self) -> Vec<Lease> {
        std::mem::take(&mut self.leases)
    }

    /// Saves leases, in place of those of their addresses, and forgets others. All of it is on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn change_leases(&self, keep: &[Lease], forget: &[(u32, IpAddr)]) -> Result<(), StoreError> {
        let name = |vni: u32, address: IpAddr| format!("{vni}/{address}");
        let kept = keep.iter().map(|lease| Ok((name(lease.vni, lease.address), self.json(LEASES, lease)?)));
        let kept: Vec<_> = kept.collect::<Result<_, StoreError>>()?;
        self.change(LEASES, |table| {
            for (vni, address) in forget {
                table.remove(name(*vni, *address).as_str())?;
            }
            for (name, json) in &kept {
                table.insert(name.as_str(), json.as_slice())?;
            }
            Ok(())
        })
    }

    fn json<T: Serialize>(&self, table: Records, record: &T) -> Result<Vec<u8>, StoreError> {
        let stored = json!({ "schema": SCHEMA, what(&table): record });
        serde_json::to_vec(&stored).map_err(|error| self.not_saved(&error))
    }

    fn insert<T: Serialize>(&self, table: Records, name: &str, record: &T) -> Result<(), StoreError> {
        let json = self.json(table, record)?;
        self.change(table, |table| table.insert(name, json.as_slice()).map(drop))
    }

    fn change(
        &self,
        table: Records,
        change: impl FnOnce(&mut redb::Table<'_, &str, &[u8]>) -> Result<(), redb::StorageError>,
    ) -> Result<(), StoreError> {
        let mut place = self.database.borrow_mut();
        let database = match place.take() {
            Some(database) => database,
            None => self.open_again()?,
        };
        let transaction = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            change(&mut transaction.open_table(table)?)?;
            Ok(transaction.commit()?)
        };
        transaction().map_err(|error| self.not_saved(&error))?;
        *place = Some(database);
        Ok(())
    }

    fn open_again(&self) -> Result<Database, StoreError> {
        // As when it is read for the first time.
        let open = || Database::builder().set_cache_size(CACHE).open(&self.path);
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(opened) => opened.map_err(|error| self.not_saved(&error)),
            Err(_) => Err(self.not_saved(&io::Error::other("it is damaged"))),
        }
    }

    fn not_saved(&self, error: &dyn std::error::Error) -> StoreError {
        StoreError::NotSaved { path: self.path.clone(), why: error.to_string() }
    }
}

/// Why a file could not be read.
enum Unread {
    Damaged(String),
    Later(u32),
    System(io::Error),
}

impl<E: Into<redb::Error>> From<E> for Unread {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Io(error) if error.raw_os_error().is_some() => Self::System(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// A file that was read.
struct Content {
    database: Database,
    ports: Vec<PortRecord>,
    contacts: Vec<Contact>,
    trust: Vec<Record>,
    docker: Vec<DockerRecord>,
    host: Vec<exposures::Record>,
    names: Vec<AddedName>,
    leases: Vec<Lease>,
    claims: Vec<Claim>,
}

fn read(path: &Path) -> Result<Content, Unread> {
    let mut database = Database::builder().set_cache_size(CACHE).open(path)?;
    // Against checksums: a page that went bad under an intact header is found here, not when it is needed.
    if !database.check_integrity()? {
        return Err(Unread::Damaged("its checksums do not match its content".to_owned()));
    }
    let transaction = database.begin_read()?;
    for table in transaction.list_tables()? {
        if TABLES.iter().all(|(known, _)| known.name() != table.name()) {
            return Err(Unread::Damaged(format!("it has a table called '{}'", table.name())));
        }
    }
    let ports = records(&transaction, PORTS)?;
    let contacts = records(&transaction, CONTACTS)?;
    let trust = records(&transaction, TRUST)?;
    let names = records(&transaction, names::NAMES)?;
    let host = records(&transaction, host::HOST)?;
    let docker = records(&transaction, DOCKER)?;
    let leases = records(&transaction, LEASES)?;
    let claims = records(&transaction, claims::CLAIMS)?;
    Ok(Content { database, ports, contacts, trust, docker, names, host, leases, claims })
}

/// What one record of a table is; its key beside the schema.
fn what(table: &Records) -> &'static str {
    TABLES.iter().find(|(known, _)| known.name() == table.name()).map_or("record", |(_, what)| what)
}

/// All records of a table; none of one that is not there.
fn records<T: DeserializeOwned>(transaction: &ReadTransaction, table: Records) -> Result<Vec<T>, Unread> {
    let what = what(&table);
    let table = match transaction.open_table(table) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (name, json) = entry?;
        records.push(decode(what, name.value(), json.value())?);
    }
    Ok(records)
}

fn decode<T: DeserializeOwned>(what: &str, name: &str, json: &[u8]) -> Result<T, Unread> {
    let wrong =
        |error: serde_json::Error| Unread::Damaged(format!("the record of {what} '{name}' is unreadable: {error}"));
    let mut stored: Map<String, Value> = serde_json::from_slice(json).map_err(wrong)?;
    let mut take = |key: &str| stored.remove(key).unwrap_or(Value::Null);
    // The version first: of a later record, nothing else may be understood.
    let schema: u32 = serde_json::from_value(take("schema")).map_err(wrong)?;
    if schema > SCHEMA {
        return Err(Unread::Later(schema));
    }
    serde_json::from_value(take(what)).map_err(wrong)
}

/// A state file appears whole under its name or not at all, so that a crash during the first start leaves nothing
/// that would look damaged at the second.
fn make_empty(directory: &Path, path: &Path) -> Result<(), StoreError> {
    let draft = directory.join("state.redb.draft");
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft);
    let file = open().map_err(system("make", &draft))?;
    let fill = || -> Result<(), redb::Error> {
        let database = Database::builder().set_cache_size(CACHE).create_file(file)?;
        let transaction = database.begin_write()?;
        transaction.open_table(PORTS)?;
        Ok(transaction.commit()?)
    };
    fill().map_err(|error| StoreError::NotSaved { path: draft.clone(), why: error.to_string() })?;
    fs::rename(&draft, path).map_err(system("name", path))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(system("save", directory))
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("LOCK");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(system("open", &path))?;
    let free = || match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => None,
        other => Some(other),
    };
    match Patience::new(Some(LAST_BREATH)).until(free).unwrap_or(Err(fs::TryLockError::WouldBlock)) {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.take(16).read_to_string(&mut pid);
            let pid = Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty());
            return Err(StoreError::InUse { directory: directory.to_owned(), pid });
        }
        Err(fs::TryLockError::Error(error)) => return Err(system("lock", &path)(error)),
    }
    // Only for the message above; the lock itself is the kernel's, and goes with the process.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn system(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::System { doing, path, source }
}

#[cfg(test)]
mod tests;
