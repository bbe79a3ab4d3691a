//! The errors, one small enum per surface. Each variant says when it happens and what changed.

use std::net::SocketAddr;

use thiserror::Error;

use crate::node::NodeName;

/// Why a node did not start.
///
/// Nothing is left behind: no socket, no task, and no peer has heard of the node as a member.
///
/// ```
/// use rolecall::{Cluster, StartError};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let error = Cluster::builder("").start().await.unwrap_err();
/// assert!(matches!(error, StartError::InvalidName { .. }));
/// # }
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name of the node, of the cluster or of a scope is empty, longer than 255 bytes, or holds
    /// control characters.
    #[error("{what} name {name:?} is not allowed: 1 to 255 bytes without control characters")]
    InvalidName {
        /// What it names: `"node"`, `"cluster"` or `"scope"`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// An address given to `bind` or `advertise` cannot be understood or resolved, or a seed is no
    /// `host:port`. (A seed whose name does not resolve is tried again and again.)
    #[error("address {address:?} is not usable: {reason}")]
    InvalidAddress {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The socket could not be opened or bound.
    #[error("cannot bind {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// A live node has this name, and answered when it was asked.
    #[error("the name {name} is taken by a live node at {holder}")]
    NameTaken {
        /// The name.
        name: NodeName,
        /// The address of the node that holds it.
        holder: SocketAddr,
    },
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The metadata given to the builder is not allowed.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// A role given to the builder is not allowed.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// A scope given to the builder is not allowed.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// `start` was called outside a tokio runtime with I/O and time enabled.
    #[error("no tokio runtime to run on: call start() inside one, with I/O and time enabled")]
    NoRuntime,
}

/// A configuration value that is not allowed. Nothing changed.
///
/// ```
/// use rolecall::Config;
///
/// let config = Config { gossip_fanout: 0, ..Config::lan() };
/// let error = config.validate().unwrap_err();
/// assert_eq!(error.field(), "gossip_fanout");
/// assert_eq!(error.to_string(), "gossip_fanout = 0 is not allowed: it must be 1 to 64");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} = {value} is not allowed: it must be {allowed}")]
pub struct ConfigError {
    pub(crate) field: &'static str,
    pub(crate) value: String,
    pub(crate) allowed: String,
}

impl ConfigError {
    /// The name of the field, as in [`Config`](crate::Config).
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// The value it had.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is allowed.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

/// Why seeds could not be contacted.
///
/// ```
/// use rolecall::JoinError;
///
/// assert_eq!(JoinError::NoAnswer.to_string(), "no seed answered in time");
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No seed answered within `join_timeout`. They are kept and tried again.
    #[error("no seed answered in time")]
    NoAnswer,
    /// A seed is no `host:port`. Nothing changed.
    #[error("seed {seed:?} is not usable: {reason}")]
    InvalidSeed {
        /// The seed as given.
        seed: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The list of seeds was empty. Nothing changed.
    #[error("no seeds were given")]
    NoSeeds,
    /// The node has stopped or left. Nothing changed.
    #[error("this node has stopped")]
    Stopped,
}

/// Why a goodbye was not complete.
///
/// ```
/// use rolecall::LeaveError;
///
/// assert_eq!(LeaveError::Stopped.to_string(), "this node has already stopped");
/// ```
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LeaveError {
    /// The node had stopped or left before. Nothing changed.
    #[error("this node has already stopped")]
    Stopped,
    /// The node has stopped, but not every peer acknowledged the goodbye in time; those learn of
    /// it from the others, or by failing to reach this node.
    #[error("left, but {unheard} peers did not acknowledge the goodbye in time")]
    Unacknowledged {
        /// How many peers did not acknowledge.
        unheard: usize,
    },
}

/// Why metadata was refused. Nothing changed.
///
/// ```
/// use rolecall::MetaError;
///
/// let error = MetaError::TooLarge { len: 5000, max: 4096 };
/// assert_eq!(error.to_string(), "metadata of 5000 bytes is over the limit of 4096");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MetaError {
    /// More than [`MAX_META_BYTES`](crate::MAX_META_BYTES).
    #[error("metadata of {len} bytes is over the limit of {max}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The node has stopped or left.
    #[error("this node has stopped")]
    Stopped,
}

/// Why a scope could not be joined or left. Nothing changed.
///
/// ```
/// use rolecall::ScopeError;
///
/// assert_eq!(ScopeError::NotJoined.to_string(), "this node is not in that scope");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// `join` on a scope that the node is in already.
    #[error("this node is already in that scope")]
    AlreadyJoined,
    /// `leave` on a scope that the node is not in.
    #[error("this node is not in that scope")]
    NotJoined,
    /// The name is empty, longer than 255 bytes, or holds control characters.
    #[error("the scope name {name:?} is not allowed: 1 to 255 bytes without control characters")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The node is in as many scopes as it can be:
    /// [`max_scopes_per_node`](crate::Config::max_scopes_per_node).
    #[error("this node is in {max} scopes, the most there can be")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The node has stopped or left.
    #[error("this node has stopped")]
    Stopped,
}

/// Why a role was refused. Nothing changed.
///
/// ```
/// use rolecall::{Role, RoleError};
///
/// let error = Role::new(&"x".repeat(5000)).unwrap_err();
/// assert!(matches!(error, RoleError::TooLarge { max: rolecall::MAX_ROLE_BYTES, .. }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RoleError {
    /// The encoded role is longer than [`MAX_ROLE_BYTES`](crate::MAX_ROLE_BYTES), or than the
    /// node's [`max_role_bytes`](crate::Config::max_role_bytes).
    #[error("a role of {len} bytes is over the limit of {max}")]
    TooLarge {
        /// Its encoded length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The value has no canonical encoding: its `Serialize` failed, it is nested too deep, or a
    /// map in it has the same key twice.
    #[error("the value cannot be a role: {reason}")]
    Unencodable {
        /// What is wrong.
        reason: String,
    },
    /// `Role::get` asked for a type that this role's value does not have.
    #[error("the role is not of the type asked for: {reason}")]
    WrongType {
        /// What was expected and found.
        reason: String,
    },
    /// [`Role::from_bytes`](crate::Role::from_bytes) was given bytes that are not one canonical
    /// term. No role was made.
    #[error("the bytes are not a role: {reason}")]
    Malformed {
        /// What is wrong with them.
        reason: String,
    },
    /// The node would hold more roles in the scope than
    /// [`max_roles_per_node`](crate::Config::max_roles_per_node).
    #[error("this node would hold {count} roles in the scope, more than {max}")]
    TooMany {
        /// How many there would be.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The roles of the node in the scope would take more bytes than
    /// [`max_node_role_bytes`](crate::Config::max_node_role_bytes).
    #[error("this node's roles in the scope would take {len} bytes, more than {max}")]
    TooManyBytes {
        /// Their encoded length together, in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// All roles that the node keeps, its own and those of others, would take more than
    /// [`max_total_role_bytes`](crate::Config::max_total_role_bytes).
    #[error("all roles that this node keeps would take {len} bytes, more than {max}")]
    TotalTooLarge {
        /// What they would take together, in bytes, as that limit counts them.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The scope had to be joined first, and could not be.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The node has stopped or left.
    #[error("this node has stopped")]
    Stopped,
}
