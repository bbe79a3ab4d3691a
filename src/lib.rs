//! stub
pub mod config;
mod error;
mod event;
mod node;
pub mod proto;
mod role;
mod stats;
pub mod time;
pub mod wire;
pub use config::Config;
pub use error::*;
pub use event::{DownReason, Event, EventHandler, Evidence, Sight, Witness};
pub use node::*;
pub use role::{AsRole, MAX_ROLE_BYTES, MAX_ROLE_DEPTH, Role, RoleKey, Roles, RolesIter};
pub use stats::{Dropped, Stats, Traffic};
