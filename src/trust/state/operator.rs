//! What the operator of a member that holds an authority's key asks of it: to invite, to revoke, to hand on.

use super::{Output, TrustState};
use crate::trust::authority::Authority;
use crate::trust::date::date;
use crate::trust::record::{Record, invite_slot};
use crate::trust::token::{Introducer, NetworkHint, Token};
use crate::wire::cidr::Cidr;
use std::time::Duration;

const NO_AUTHORITY: &str = "this host does not hold the authority's key: run the command on the one where 'weft init' was \
                            run, or name the key's file in authority_key_file of [trust]";

impl TrustState {
    /// Invites a host; the token is good once its record is saved. Of `introducers` the first is this member.
    ///
    /// # Errors
    /// One sentence.
    #[expect(clippy::too_many_arguments, reason = "what an invitation is made of")]
    pub fn invite(
        &mut self,
        unix: Duration,
        name: &str,
        slices: Vec<Cidr>,
        life: Duration,
        introducers: Vec<Introducer>,
        networks: Vec<NetworkHint>,
        random: [u8; 24],
    ) -> Result<Token, String> {
        let issuer = self.issuer.as_mut().ok_or(NO_AUTHORITY)?;
        let invite =
            issuer.invite(unix, &self.policy, name, slices, life, random).map_err(|error| error.to_string())?;
        let token = Token {
            authority: issuer.key(),
            id: invite.id,
            secret: invite.secret.clone(),
            name: invite.name.clone(),
            expires: Duration::from_secs(invite.expires),
            introducers,
            networks,
        };
        self.outputs.push_back(Output::Save(Record::Invite(invite)));
        Ok(token)
    }

    /// Takes back what was issued to a name or a public key; what was done, in sentences.
    ///
    /// # Errors
    /// One sentence.
    pub fn revoke(&mut self, unix: Duration, whom: &str) -> Result<Vec<String>, String> {
        if whom == self.name || whom == self.key.to_string() {
            return Err(
                "this member cannot revoke itself: do it on another one that holds the authority's key".into()
            );
        }
        let issuer = self.issuer.as_mut().ok_or(NO_AUTHORITY)?;
        let revoked = issuer.revoke(unix, &self.policy, whom).map_err(|error| error.to_string())?;
        let mut told = Vec::new();
        if !revoked.withdrawn.is_empty() {
            told.push(format!("the invitation for '{whom}' was withdrawn"));
            self.outputs.extend(revoked.withdrawn.into_iter().map(|id| Output::Forget(invite_slot(id))));
        }
        self.save(revoked.records);
        if let Some(ledger) = revoked.ledger {
            self.policy.adopt(ledger.bytes()).map_err(|error| format!("the ledger does not count here: {error}"))?;
            self.spread_ledger();
            told.push(format!("'{whom}' is revoked; all members are told"));
        }
        Ok(told)
    }

    /// Takes the slices of a name or a public key from it, to give them to others; what was done, in sentences.
    ///
    /// # Errors
    /// One sentence.
    pub fn reclaim(&mut self, unix: Duration, whom: &str) -> Result<Vec<String>, String> {
        if whom == self.name || whom == self.key.to_string() {
            return Err("this member is there: its slices cannot be reclaimed".into());
        }
        let issuer = self.issuer.as_mut().ok_or(NO_AUTHORITY)?;
        let reclaimed = issuer.reclaim(unix, &self.policy, whom).map_err(|error| error.to_string())?;
        self.policy
            .adopt(reclaimed.ledger.bytes())
            .map_err(|error| format!("the ledger does not count here: {error}"))?;
        // In this order: a slice that is free here and still the member's by the ledger would be two members'.
        self.spread_ledger();
        self.save(reclaimed.record.into_iter().collect());
        let slices: Vec<String> = reclaimed.slices.iter().map(ToString::to_string).collect();
        Ok(vec![
            format!("'{}' has lost {}; all members are told", reclaimed.name, slices.join(", ")),
            "when it comes back it asks for a slice anew, and gives way wherever its containers' addresses lie in another's"
                .to_owned(),
        ])
    }

    /// Hands the authority on to one whose key is on the disk already; what was done, in sentences.
    ///
    /// # Errors
    /// One sentence.
    pub fn rotate(&mut self, unix: Duration, next: Authority, overlap: Duration) -> Result<Vec<String>, String> {
        let key = next.key();
        let issuer = self.issuer.as_mut().ok_or(NO_AUTHORITY)?;
        let ledger = issuer.rotate(unix, &self.policy, next, overlap).map_err(|error| error.to_string())?;
        self.policy.adopt(ledger.bytes()).map_err(|error| format!("the ledger does not count here: {error}"))?;
        self.spread_ledger();
        self.rotated_until = unix.saturating_add(super::LEDGER_FIRST);
        let until = date(unix.saturating_add(overlap));
        Ok(vec![
            format!("the authority is {key}"),
            format!("certificates of the old one hold until {until}; members renew theirs by themselves"),
            format!("write authority = [\"{key}\"] into [trust] of all members' files before you rotate again"),
        ])
    }
}
