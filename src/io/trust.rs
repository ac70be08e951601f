//! Trust from the disk: the authority's key, the certificate's file, and what is remembered.

use super::keyfile;
use crate::config::Config;
use crate::control::{Identity, trust};
use crate::trust::record::Record;
use crate::trust::{Authority, TrustState, certificate};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// No certificate's file is longer: one certificate, and room for remarks.
const LONGEST: u64 = 16 * 1024;

/// The trust of this member at the start of its daemon. A rotation that was cut short is finished.
///
/// # Errors
/// One sentence.
pub fn load(config: &Config, identity: Identity, records: Vec<Record>) -> Result<TrustState, String> {
    let authority = config.trust.authority_key_file.as_deref().map(|path| authority(path, &records)).transpose()?;
    let mut state = trust::trust(config, identity, authority, records);
    if let Some(path) = &config.trust.certificate_file {
        state.prefer(read_certificate(path)?);
    }
    Ok(state)
}

/// The authority in `path`, or the one that waits beside it if the ledger says that it leads.
fn authority(path: &Path, records: &[Record]) -> Result<Authority, String> {
    let waiting = keyfile::waiting_authority(path).map_err(|error| error.to_string())?;
    if let Some(next) = waiting.map(|seed| Authority::new(&seed)) {
        // The ledger of a rotation is signed by the one that follows, and its key stands behind the version.
        let leads = |record: &Record| match record {
            Record::Ledger(ledger) => ledger.0.get(1..33) == Some(next.key().0.as_slice()),
            _ => false,
        };
        if records.iter().any(leads) {
            keyfile::adopt_next_authority(path).map_err(|error| error.to_string())?;
            return Ok(next);
        }
    }
    keyfile::load_authority(path).map(|seed| Authority::new(&seed)).map_err(|error| error.to_string())
}

fn read_certificate(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    read.map_err(|error| format!("cannot read certificate_file {}: {error}", path.display()))?;
    certificate::from_text(&text)
        .map_err(|_| format!("certificate_file {} has no line that begins with weft-certificate:", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::scratch::Scratch;
    use crate::trust::ledger::{Ledger, Succession};
    use crate::trust::record::Blob;
    use std::time::Duration;

    #[test]
    fn a_rotation_that_was_cut_short_is_finished_at_the_next_start() {
        let directory = Scratch::new();
        let path = directory.path().join("authority.key");
        let old = Authority::new(&keyfile::create_authority(&path).unwrap());
        let next = Authority::new(&keyfile::next_authority(&path).unwrap());
        // Cut short before the ledger was saved: nothing has happened.
        assert_eq!(authority(&path, &[]).unwrap().key(), old.key());
        let succession = Succession::new(&old, next.key(), Duration::from_secs(1));
        let ledger = Ledger::sign(&next, 1, vec![succession], Vec::new(), Vec::new(), Vec::new()).unwrap();
        let record = Record::Ledger(Blob(ledger.bytes().to_vec()));
        assert_eq!(authority(&path, &[record]).unwrap().key(), next.key());
        assert_eq!(authority(&path, &[]).unwrap().key(), next.key(), "the old key is gone");
    }

    #[test]
    fn a_certificate_file_is_read_or_told_to_be_none() {
        let directory = Scratch::new();
        let path = directory.path().join("certificate");
        assert!(read_certificate(&path).unwrap_err().contains("cannot read certificate_file"));
        std::fs::write(&path, "# beta\n").unwrap();
        assert!(read_certificate(&path).unwrap_err().contains("no line that begins with weft-certificate:"));
        std::fs::write(&path, certificate::to_text(&[1, 2, 3])).unwrap();
        assert_eq!(read_certificate(&path).unwrap(), [1, 2, 3]);
    }
}
