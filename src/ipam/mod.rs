//! Addresses: who may give which, and who has which.
//!
//! A network's range is cut into **slices**, each of them one member's ([`slices`]). A member gives addresses out of its own
//! slices and asks nobody, so that no attach waits for another host and no two members give one address, whether they can
//! speak to each other or not. What it may give is a [`Space`]'s pool: its slices, less what nobody gets by chance. What it
//! has given are [`Leases`], each for a *holder*: who asks again under the same name has the same address again.
//!
//! ```text
//!   file, certificate ──► slices ─┐
//!   subnets, range, reserved ─────┼─► Space::pool ──► Leases::choose: the lowest that is free ──► disk ──► use
//!   what other members have ──────┘   (in our slices also across restarts: claims)
//! ```
//!
//! An address that somebody asks for by hand may lie in anyone's slice. Where two have it after all, the member in whose
//! slice it lies keeps it ([`slices::yields`]). docs/ipam.md has the whole argument.
//!
//! All of it are values: time and what others have are arguments, and the disk is the caller's.

pub mod claims;
pub mod leases;
pub mod slices;
mod space;
mod spans;

pub use claims::{Claim, Claims};
pub use leases::{By, Lease, Leases, State};
pub use space::Space;
pub use spans::Spans;

#[cfg(test)]
mod tests;
