//! Trust: who may be a member, and who said what.
//!
//! Sans I/O: bytes, random bits and the time (since 1970, since certificates end by the calendar) are arguments.

pub mod authority;
pub mod certificate;
pub mod date;
pub mod issuer;
pub mod joiner;
pub mod ledger;
pub mod message;
pub mod policy;
pub mod record;
pub mod sign;
pub mod state;
pub mod token;

pub use authority::Authority;
pub use certificate::Certificate;
pub use issuer::Issuer;
pub use joiner::Joiner;
pub use ledger::Ledger;
pub use policy::{Policy, Standing, Stranger};
pub use state::TrustState;
pub use token::Token;
