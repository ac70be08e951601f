//! The first files of a host: what `weft init` and `weft join` leave behind for `weft up`.

use super::store::Store;
use crate::config::Config;
use crate::trust::record::Record;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a configuration file that is not there yet, whole or not at all, and the directories it is in.
///
/// # Errors
/// One sentence; a file that exists is never replaced.
pub fn create_config(path: &Path, text: &str) -> Result<(), String> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = Path::new(&draft);
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).create(directory)?;
        let _ = fs::remove_file(draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // A link fails when the name is taken, a rename would replace.
        fs::hard_link(draft, path)?;
        File::open(directory)?.sync_all()
    };
    let written = write();
    let _ = fs::remove_file(draft);
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{} exists: it stays as it is", path.display()),
        io::ErrorKind::PermissionDenied => {
            format!("cannot write {}: {error}; run the command with sudo", path.display())
        }
        _ => format!("cannot write {}: {error}", path.display()),
    })
}

/// Whether there is a file of this name.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Puts an invitation where the daemon of this configuration finds it at its next start.
///
/// # Errors
/// One sentence: a daemon runs already, or the state cannot be used.
pub fn remember_token(config: &Config, line: &str) -> Result<(), String> {
    let store = Store::open(&config.node.state_dir).map_err(|error| error.to_string())?;
    store.put_trust(&Record::Token(line.to_owned())).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;

    #[test]
    fn a_configuration_file_appears_whole_and_is_never_replaced() {
        let directory = Scratch::new();
        let path = directory.path().join("etc/weft.toml");
        create_config(&path, "# one\n").unwrap();
        assert!(create_config(&path, "# two\n").unwrap_err().contains("exists: it stays as it is"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "# one\n");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(exists(&path) && !exists(&directory.path().join("absent")));
    }
}
