//! The names that were added by hand.

use super::{Records, Store, StoreError};
use crate::control::names::AddedName;
use redb::TableDefinition;

/// Network and name, a blank between them → [`AddedName`].
pub(super) const NAMES: Records = TableDefinition::new("names");

impl Store {
    /// The names that were kept when the store was opened.
    pub fn take_names(&mut self) -> Vec<AddedName> {
        std::mem::take(&mut self.names)
    }

    /// Saves a name, in place of the one with its network and name. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn put_name(&self, added: &AddedName) -> Result<(), StoreError> {
        self.insert(NAMES, &slot(added), added)
    }

    /// Forgets a name; one that does not exist is no error.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn remove_name(&self, added: &AddedName) -> Result<(), StoreError> {
        self.change(NAMES, |table| table.remove(&*slot(added)).map(drop))
    }
}

/// Neither has a blank in it.
fn slot(added: &AddedName) -> String {
    format!("{} {}", added.network, added.name)
}
