//! The configuration file from the disk, for the daemon and for `weft config check`.

use super::keyfile::{self, KeyFileError};
use crate::config::Config;
use crate::config::error::Errors;
use crate::config::parse::{Defaults, MAX_FILE, parse};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Reads a configuration file, the host's name, and the files of pre-shared keys it points to.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, Errors> {
    let name = path.display().to_string();
    let text = read_bounded(path).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "name the file that you want; config/weft.toml in the source is an example",
            io::ErrorKind::PermissionDenied => "run the command with sudo",
            io::ErrorKind::InvalidData => "save it as UTF-8 text",
            _ => "is this the right file?",
        };
        Errors::whole_file(&name, format!("cannot be read: {error}"), remedy)
    })?;
    let defaults = Defaults { hostname: hostname() };
    parse(&name, &text, &defaults, &read_preshared_key)
}

/// The host's name.
pub fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than is allowed lets the parser see that there is more.
    File::open(path)?.take(MAX_FILE as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// A pre-shared key is as secret as a private one, and its file is held to the same rules.
fn read_preshared_key(path: &Path) -> Result<String, String> {
    keyfile::load(path).map(|key| key.to_base64()).map_err(|error| match error {
        KeyFileError::Missing(_) => "there is no such file".to_owned(),
        KeyFileError::Exposed { mode, .. } => {
            format!("others can reach it (mode {mode:04o}), so 'chmod 600' it first")
        }
        KeyFileError::NotAKey(_) => "it holds no key, which is one line of 44 characters".to_owned(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    const PEER: &str = "[[peer]]\nname = 'b'\npublic_key = 'S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU='\n";

    #[test]
    fn a_file_is_read_with_the_files_beside_it() {
        let directory = Scratch::new();
        let (file, psk) = (directory.path().join("weft.toml"), directory.path().join("b.psk"));
        fs::write(&file, format!("{PEER}preshared_key_file = 'b.psk'\n")).unwrap();
        let refused = |what: &str| {
            let errors = load(&file).unwrap_err().to_string();
            assert!(errors.contains(&format!("weft.toml:4: peer[1] \"b\".preshared_key_file: {}", psk.display())));
            assert!(errors.contains(what), "{errors}");
        };
        refused("there is no such file");
        fs::write(&psk, "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=\n").unwrap();
        fs::set_permissions(&psk, fs::Permissions::from_mode(0o644)).unwrap();
        refused("others can reach it (mode 0644)");
        fs::set_permissions(&psk, fs::Permissions::from_mode(0o600)).unwrap();
        let config = load(&file).unwrap();
        assert!(config.peers[0].preshared_key.is_some() && !config.node.name.is_empty());
        fs::write(&psk, "no key\n").unwrap();
        refused("it holds no key");
    }

    #[test]
    fn what_cannot_be_read_is_told_with_a_remedy() {
        let directory = Scratch::new();
        let file = directory.path().join("weft.toml");
        assert!(load(&file).unwrap_err().to_string().contains("weft.toml: cannot be read: "));
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(load(&file).unwrap_err().to_string().contains("save it as UTF-8"));
        fs::write(&file, vec![b'#'; MAX_FILE + 100]).unwrap();
        assert!(load(&file).unwrap_err().to_string().contains("at most 1048576"));
    }
}
