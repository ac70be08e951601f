//! The file with this member's private key: one line, as `wg genkey` writes it; and the one with an authority's, which is
//! marked, so that neither is taken for the other.
//!
//! Whoever reads it is this member. So it is made readable by its owner alone, and a file that others can read, or
//! that another user could have put there, is refused rather than used: its secret must be taken as known. A crash
//! never leaves half a key behind: the file appears whole, under its name, or not at all.

use crate::wire::key::Secret;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// No key file is longer: 44 characters, a line end, and some room to say "not a key" instead of "too long".
const LONGEST: u64 = 4096;
/// 32 bytes in base64.
const TEXT_LEN: usize = 44;
/// In front of the secret key of an authority.
const AUTHORITY_MARK: &str = "weft-authority:";

/// Why there is no private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// No such file.
    #[error("key file {} does not exist: 'weft key' makes one, and so does the daemon's first start", .0.display())]
    Missing(PathBuf),
    /// No such file, and nothing makes another that is the same authority.
    #[error("key file {} does not exist: bring the authority's key back from where it is kept, or take authority_key_file out of \
        [trust], and this host invites and revokes no more", .0.display())]
    MissingAuthority(PathBuf),
    /// A key is there already, and it stays.
    #[error("key file {} exists: it is this member's identity; move it away first to make another", .0.display())]
    Exists(PathBuf),
    /// Group or others may read or change it.
    #[error(
        "key file {} can be reached by others (mode {mode:04o}): 'chmod 600 {}', and if others may have read it, \
         make another key", .path.display(), .path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else owns it, and so may change it.
    #[error("key file {} belongs to user {owner}: 'chown {} {}'", .path.display(), .ours, .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// Our own.
        ours: u32,
    },
    /// It holds something else.
    #[error("key file {} holds no WireGuard private key: it must be one line of 44 characters, as 'weft key' makes it",
        .0.display())]
    NotAKey(PathBuf),
    /// It holds something else.
    #[error("key file {} holds no authority's key: it must be one line that begins with {AUTHORITY_MARK}, as 'weft init' \
        makes it", .0.display())]
    NotAnAuthority(PathBuf),
    /// The system refused.
    #[error("cannot {doing} key file {}: {source}", .path.display())]
    System {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Reads the key.
///
/// # Errors
/// [`KeyFileError`]: not there, not safe, not a key.
pub fn load(path: &Path) -> Result<Secret, KeyFileError> {
    let not_a_key = || KeyFileError::NotAKey(path.to_owned());
    let text = read_line(path, not_a_key)?;
    if text.len() != TEXT_LEN {
        return Err(not_a_key());
    }
    text.parse().map_err(|_| not_a_key())
}

/// Reads the secret key of an authority. A mode, an owner or a content that will not do is refused as for any key.
///
/// # Errors
/// [`KeyFileError`]: not there, not safe, not an authority's key.
pub fn load_authority(path: &Path) -> Result<Secret, KeyFileError> {
    let not_one = || KeyFileError::NotAnAuthority(path.to_owned());
    let text = read_line(path, not_one).map_err(|error| match error {
        KeyFileError::Missing(path) => KeyFileError::MissingAuthority(path),
        other => other,
    })?;
    text.strip_prefix(AUTHORITY_MARK).and_then(|key| key.parse().ok()).ok_or_else(not_one)
}

/// The line in a file that is safe to hold a secret.
fn read_line(path: &Path, other: impl Fn() -> KeyFileError) -> Result<Zeroizing<String>, KeyFileError> {
    // O_NONBLOCK: a pipe under this name must not keep us.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        _ => system("open", path)(error),
    })?;
    // Of the open file, so that what is checked is what is read.
    let metadata = file.metadata().map_err(system("look at", path))?;
    if !metadata.is_file() {
        return Err(other());
    }
    let ours = own_uid();
    if metadata.uid() != ours && metadata.uid() != 0 {
        return Err(KeyFileError::Owner { path: path.to_owned(), owner: metadata.uid(), ours });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => other(),
        _ => system("read", path)(error),
    })?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Makes a key and its file, readable by its owner alone, and the directories it is in.
///
/// # Errors
/// [`KeyFileError`]; a file that exists is never replaced.
pub fn create(path: &Path) -> Result<Secret, KeyFileError> {
    let secret = Secret::private(*random_for(path)?);
    create_line(path, "", &secret)?;
    Ok(secret)
}

/// Makes the secret key of an authority, and its file as [`create`] does.
///
/// # Errors
/// [`KeyFileError`]; a file that exists is never replaced.
pub fn create_authority(path: &Path) -> Result<Secret, KeyFileError> {
    let secret = Secret::shared(*random_for(path)?);
    create_line(path, AUTHORITY_MARK, &secret)?;
    Ok(secret)
}

/// The secret key of the authority that is to follow the one in `path`, made beside it; one that an earlier attempt left
/// is taken up.
///
/// # Errors
/// [`KeyFileError`].
pub fn next_authority(path: &Path) -> Result<Secret, KeyFileError> {
    let next = beside(path, "next");
    match create_authority(&next) {
        Err(KeyFileError::Exists(_)) => load_authority(&next),
        other => other,
    }
}

/// Puts the file of [`next_authority`] in place of the one before, whose key is gone then.
///
/// # Errors
/// The system refused; both files are as before.
pub fn adopt_next_authority(path: &Path) -> Result<(), KeyFileError> {
    fs::rename(beside(path, "next"), path).map_err(system("replace", path))?;
    save_directory(path)
}

/// The next authority, if [`next_authority`] made one that was not yet put in place.
///
/// # Errors
/// [`KeyFileError`], other than that there is none.
pub fn waiting_authority(path: &Path) -> Result<Option<Secret>, KeyFileError> {
    match load_authority(&beside(path, "next")) {
        Ok(secret) => Ok(Some(secret)),
        Err(KeyFileError::MissingAuthority(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    PathBuf::from(name)
}

fn random_for(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *random).map_err(|error| system("find randomness for", path)(error.into()))?;
    Ok(random)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn save_directory(path: &Path) -> Result<(), KeyFileError> {
    let saved = File::open(directory_of(path)).and_then(|directory| directory.sync_all());
    saved.map_err(system("save the directory of", path))
}

fn create_line(path: &Path, mark: &str, secret: &Secret) -> Result<(), KeyFileError> {
    let mut dirs = DirBuilder::new();
    let made = dirs.recursive(true).mode(0o700).create(directory_of(path));
    made.map_err(system("make the directory of", path))?;

    let draft = beside(path, &std::process::id().to_string());
    let written = write_whole(&draft, mark, secret).map_err(system("write", path));
    // A link fails when the name is taken, a rename would replace.
    let linked = written.and_then(|()| {
        fs::hard_link(&draft, path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists(path.to_owned()),
            _ => system("name", path)(error),
        })
    });
    let _ = fs::remove_file(&draft);
    linked?;
    save_directory(path)
}

/// Reads the key, or makes one when there is no file. Says whether it made one.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_or_create(path: &Path) -> Result<(Secret, bool), KeyFileError> {
    match load(path) {
        Err(KeyFileError::Missing(_)) => {}
        other => return other.map(|secret| (secret, false)),
    }
    match create(path) {
        // Somebody made it between the two looks.
        Err(KeyFileError::Exists(_)) => load(path).map(|secret| (secret, false)),
        other => other.map(|secret| (secret, true)),
    }
}

fn write_whole(draft: &Path, mark: &str, secret: &Secret) -> io::Result<()> {
    // Left by a crash of a process that had our id: its content is nobody's key.
    let _ = fs::remove_file(draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    let line = Zeroizing::new(format!("{mark}{}\n", *Zeroizing::new(secret.to_base64())));
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

fn own_uid() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

fn system(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::System { doing, path, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;
    use crate::io::skip;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_created_key_is_private_and_is_loaded_again() {
        let dir = Scratch::new();
        let path = dir.path().join("etc/weft/private.key");
        let (made, created) = load_or_create(&path).unwrap();
        assert!(created);
        let (loaded, created) = load_or_create(&path).unwrap();
        assert!(!created && loaded == made);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        // `wg pubkey` wants exactly this: 44 characters and a line end.
        assert_eq!(fs::read_to_string(&path).unwrap(), made.to_base64() + "\n");
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["private.key"]);
    }

    #[test]
    fn an_existing_key_is_never_replaced() {
        let dir = Scratch::new();
        let path = dir.path().join("private.key");
        let made = create(&path).unwrap();
        assert!(matches!(create(&path), Err(KeyFileError::Exists(_))));
        assert!(load(&path).unwrap() == made);
    }

    #[test]
    fn a_key_that_others_can_reach_is_refused_with_the_remedy() {
        let dir = Scratch::new();
        let path = dir.path().join("private.key");
        create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o660, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load_or_create(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("'chmod 600 {}'", path.display())), "{error}");
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        load(&path).unwrap();
    }

    #[test]
    fn a_key_of_another_user_is_refused() {
        let dir = Scratch::new();
        let path = dir.path().join("private.key");
        create(&path).unwrap();
        if std::os::unix::fs::chown(&path, Some(4711), None).is_err() {
            return skip::say("not allowed to give a file away");
        }
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("belongs to user 4711: 'chown 0 "), "{error}");
    }

    #[test]
    fn the_keys_of_members_and_of_authorities_are_not_taken_for_each_other() {
        let dir = Scratch::new();
        let (member, authority) = (dir.path().join("key"), dir.path().join("authority.key"));
        create(&member).unwrap();
        let made = create_authority(&authority).unwrap();
        assert!(load_authority(&authority).unwrap() == made);
        let error = load_authority(&authority.with_extension("gone")).unwrap_err().to_string();
        assert!(error.contains("bring the authority's key back"), "{error}");
        assert!(matches!(load(&authority), Err(KeyFileError::NotAKey(_))));
        let error = load_authority(&member).unwrap_err().to_string();
        assert!(error.contains("begins with weft-authority:, as 'weft init' makes it"), "{error}");
        assert!(matches!(create_authority(&authority), Err(KeyFileError::Exists(_))));
    }

    #[test]
    fn the_next_authority_waits_beside_the_one_in_force_until_it_takes_its_place() {
        let dir = Scratch::new();
        let path = dir.path().join("authority.key");
        let old = create_authority(&path).unwrap();
        assert!(waiting_authority(&path).unwrap().is_none());
        let next = next_authority(&path).unwrap();
        // An attempt that was cut short is taken up where it was left.
        assert!(next_authority(&path).unwrap() == next && waiting_authority(&path).unwrap() == Some(next.clone()));
        assert!(load_authority(&path).unwrap() == old);
        adopt_next_authority(&path).unwrap();
        assert!(load_authority(&path).unwrap() == next && waiting_authority(&path).unwrap().is_none());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = Scratch::new();
        let path = dir.path().join("private.key");
        let long = "A".repeat(44 * 1000);
        for wrong in ["", "\n", "secret", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo\n", long.as_str()] {
            fs::write(&path, wrong).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(load(&path), Err(KeyFileError::NotAKey(_))), "{wrong:.60}");
        }
        fs::write(&path, [0xff; 44]).unwrap();
        assert!(matches!(load(&path), Err(KeyFileError::NotAKey(_))));
        assert!(matches!(load(dir.path()), Err(KeyFileError::NotAKey(_))));
        assert!(matches!(load(&dir.path().join("absent")), Err(KeyFileError::Missing(_))));
    }
}
