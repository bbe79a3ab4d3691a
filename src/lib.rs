//! Which nodes are up, and who plays which role in which scope: known to every node of a cluster,
//! at any moment, without asking anybody.
//!
//! Nodes talk UDP. A SWIM failure detector with Lifeguard's refinements produces node-up and
//! node-down; role changes ride on gossip, per scope, with generation counters; what is known is
//! published into maps that any number of threads read in nanoseconds, without a lock.
//!
//! ```
//! use rolecall::{Cluster, Config, Event};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let a = Cluster::builder("a").bind("127.0.0.1:0").config(Config::local()).start().await?;
//! let b = Cluster::builder("b")
//!     .bind("127.0.0.1:0")
//!     .seed(a.local_addr().to_string())
//!     .config(Config::local())
//!     .role("web")
//!     .start()
//!     .await?;
//!
//! let web = a.default_scope().wait_for("web", 1).await;
//! assert_eq!(web.names(), ["b"]);
//!
//! let mut events = a.events();
//! b.scope("jobs").add_role(("shard", 7))?;
//! b.leave().await?;
//! while let Some(event) = events.next().await {
//!     if let Event::NodeDown { node, reason } = event {
//!         println!("{node} is down: {reason}");
//!         break;
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! It is meant for liveness and routing hints. It is no consensus: two nodes may see two truths for
//! a moment, and during a partition for as long as that lasts. With a [`Keyring`] every datagram is
//! encrypted and authenticated; without one it is for networks on which every host is trusted.
//!
//! # The modules, in reading order
//! What a service holds: [`Cluster`], [`Builder`], [`Scope`]. What they speak of: [`Node`],
//! [`Role`], [`Event`], [`Config`], the errors, [`Stats`]. Then, inwards as a datagram travels:
//! [`wire`] (bytes to data), [`proto`] (the state machine), [`view`] (the published maps); [`time`]
//! is the only time that the protocol knows.

/// The README's code, compiled as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod cluster;

mod builder;
mod scope;

mod config;
mod error;
mod event;
mod id_map;
mod keyring;
mod node;
mod role;
mod stats;
pub mod time;

pub mod wire;

pub mod proto;

pub mod view;

mod driver;

#[cfg(feature = "sim")]
pub mod sim;

pub use builder::Builder;
pub use cluster::Cluster;
pub use config::Config;
pub use driver::hub::Events;
pub use error::{ConfigError, JoinError, LeaveError, MetaError, RoleError, ScopeError, StartError};
pub use event::{DownReason, Event, EventHandler, Evidence, Limit, Sight, Witness};
pub use keyring::{Key, KeyError, KeyId, Keyring, KeyringError, MAX_KEYS};
pub use node::{
    Generation, MAX_META_BYTES, MAX_NAME_BYTES, Node, NodeId, NodeName, Nodes, ScopeName,
};
pub use role::{AsRole, MAX_ROLE_BYTES, MAX_ROLE_DEPTH, Role, RoleKey, Roles, RolesIter};
pub use scope::{Delivery, RoleWatch, Scope};
pub use stats::{Dropped, Stats, Traffic};
pub use view::View;
