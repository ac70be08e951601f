//! What was exposed and published.

use super::{Records, Store, StoreError};
use crate::control::exposures::Record;
use redb::TableDefinition;

/// A record's slot → [`Record`].
pub(super) const HOST: Records = TableDefinition::new("host");

impl Store {
    /// What was exposed and published when the state was opened.
    pub fn take_host(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.host)
    }

    /// Saves such a record, in place of the one in its slot. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn put_host(&self, record: &Record) -> Result<(), StoreError> {
        self.insert(HOST, &record.slot(), record)
    }

    /// Forgets the record in a slot; one that does not exist is no error.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn forget_host(&self, slot: &str) -> Result<(), StoreError> {
        self.change(HOST, |table| table.remove(slot).map(drop))
    }
}
