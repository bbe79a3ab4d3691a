//! Prints of what entries say, by which nodes find that they have different things under one
//! number.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use super::frame::{Boot, Membership};
use super::{Domain, StableHasher};
use crate::role::Role;

/// What one role adds to the print of a set that it is in: the sum of these.
pub(crate) fn of_role(role: &Role) -> u64 {
    let mut hasher = StableHasher::new(Domain::Print);
    hasher.write(role.as_bytes());
    hasher.finish()
}

/// The print of a set of these roles.
pub(crate) fn of_roles<'a>(roles: impl Iterator<Item = &'a Role>) -> u64 {
    roles.map(of_role).fold(0, u64::wrapping_add)
}

/// The print of what a profile says besides its numbers.
pub(crate) fn of_profile(
    boot: Boot,
    name: &str,
    addr: SocketAddr,
    meta: &[u8],
    scopes: &[Membership],
) -> u32 {
    let mut hasher = StableHasher::new(Domain::Print);
    hasher.write(&boot.0.to_le_bytes());
    for bytes in [name.as_bytes(), meta] {
        hasher.write(&(bytes.len() as u64).to_le_bytes());
        hasher.write(bytes);
    }
    match addr.ip() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write(&addr.port().to_le_bytes());
    for Membership { scope, generation } in scopes {
        hasher.write(&scope.as_u64().to_le_bytes());
        hasher.write(&generation.as_u64().to_le_bytes());
    }
    fold(hasher.finish())
}

/// The half of a print that travels.
pub(crate) fn fold(print: u64) -> u32 {
    super::cell::low_half(print ^ (print >> 32))
}
