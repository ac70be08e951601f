//! `weft key`: identities and pre-shared keys.

use super::args::Key;
use crate::io::keyfile;
use crate::wire::key::Secret;

/// Runs `weft key`.
pub(super) fn run(key: Key) -> Result<String, String> {
    match key {
        Key::New { file } => {
            let secret = keyfile::create(&file).map_err(|error| error.to_string())?;
            Ok(format!("{}\n", secret.public_key()))
        }
        Key::Show { file, address } => {
            let public = keyfile::load(&file).map_err(|error| error.to_string())?.public_key();
            Ok(if address { format!("{}\n", public.tunnel_address()) } else { format!("{public}\n") })
        }
        Key::Psk => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).map_err(|error| format!("the system has no random numbers: {error}"))?;
            Ok(format!("{}\n", Secret::shared(random).to_base64()))
        }
    }
}
