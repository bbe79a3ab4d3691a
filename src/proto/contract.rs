//! What goes into a [`Protocol`](super::Protocol) and what comes out, datagrams and events apart.

use std::net::SocketAddr;

use bytes::Bytes;
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::config::Config;
use crate::error::{ConfigError, MetaError, RoleError, ScopeError};
use crate::keyring::{Key, KeyId, KeyringError};
use crate::node::{Generation, NodeName, Nodes, ScopeName};
use crate::role::Role;
use crate::wire::ClusterId;

/// What a node is before it has met anybody.
#[derive(Clone, Debug)]
pub struct LocalNode {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its stable name.
    pub name: NodeName,
    /// Where others reach it.
    pub addr: SocketAddr,
    /// Its start stamp; raised by itself when the cluster remembers a later one of this name.
    pub boot: u64,
    /// Its user's bytes, at most [`MAX_META_BYTES`](crate::MAX_META_BYTES).
    pub meta: Bytes,
}

/// A line for the log, to be written by who has time to wait until the log takes it.
pub struct LogLine(Box<dyn FnOnce() + Send>);

impl LogLine {
    /// The line that `write` writes, if anybody wants lines of this level.
    pub(crate) fn new(level: Level, write: impl FnOnce() + Send + 'static) -> Option<LogLine> {
        // Without a subscriber they may still go to the `log` crate: tracing's feature of that
        // name decides, and does not tell.
        let wanted = LevelFilter::current();
        let is_wanted = level <= wanted || wanted == LevelFilter::OFF && level <= Level::INFO;
        is_wanted.then(|| LogLine(Box::new(write)))
    }

    /// Writes it, by [`tracing`].
    pub fn write(self) {
        (self.0)();
    }
}

impl std::fmt::Debug for LogLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogLine")
    }
}

/// What a user asks of a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Command {
    /// Take roles; joins the scope first if need be.
    AddRoles {
        /// The scope.
        scope: ScopeName,
        /// The roles; those held already count for nothing.
        roles: Vec<Role>,
    },
    /// Give roles up.
    RemoveRoles {
        /// The scope.
        scope: ScopeName,
        /// The roles; those not held count for nothing.
        roles: Vec<Role>,
    },
    /// Enter a scope.
    JoinScope(ScopeName),
    /// Leave a scope, with all roles there.
    LeaveScope(ScopeName),
    /// Replace the metadata.
    SetMeta(Bytes),
    /// Ask these addresses to let this node in.
    Contact {
        /// The addresses.
        addrs: Vec<SocketAddr>,
        /// If given, [`Outcome::Answered`] with this number tells how many answered.
        token: Option<u64>,
    },
    /// Say goodbye; [`Outcome::Left`] tells when that is done.
    Leave,
    /// Read datagrams that are sealed with this key too.
    InstallKey(Key),
    /// Seal with this key from now on, which is installed.
    UseKey(KeyId),
    /// Read no more datagrams that are sealed with this key.
    RemoveKey(KeyId),
    /// Replace the tuning.
    Reconfigure(Box<Config>),
    /// Find out who has this node's roles in a scope up to a generation; [`Outcome::Delivered`]
    /// tells.
    Deliver {
        /// Repeated in the outcome.
        token: u64,
        /// The scope.
        scope: ScopeName,
        /// The generation.
        generation: Generation,
    },
}

/// Why a command was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The node has left, or lost its name.
    #[error("this node has stopped")]
    Stopped,
    /// A role, or the set of them, is not allowed.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// A scope cannot be joined or left.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The metadata is not allowed.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The configuration is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keyring cannot be changed so.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Too many calls of this kind wait already.
    #[error("too many calls wait already")]
    Busy,
}

/// What comes of a command later on, or is asked of the driver.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Resolve the seeds again, and give their addresses to [`Command::Contact`].
    ResolveSeeds,
    /// The first pull is complete: reads are as good as the seed's.
    Synced,
    /// A live node has this node's name. Before the first pull this node is not a member; later,
    /// it has lost its name and stopped.
    NameTaken {
        /// Where the other is.
        holder: SocketAddr,
        /// Whether this node has stopped because of it.
        stopped: bool,
    },
    /// A contact has been made, or not.
    Answered {
        /// Of the command.
        token: u64,
        /// How many addresses answered.
        count: usize,
    },
    /// The receipt that was asked for.
    Delivered {
        /// Of the command.
        token: u64,
        /// Who has the generation.
        reached: Nodes,
        /// Who has not said so.
        missing: Nodes,
    },
    /// The goodbye is over, and the node has stopped.
    Left {
        /// How many peers did not acknowledge it.
        unheard: usize,
    },
}

/// What the kernel of this host noticed of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Hint {
    /// Nobody listens at its address: an ICMP message said so.
    Unreachable,
    /// The connection to it that serves as a tether was closed, and it had not said that it would.
    TetherClosed,
}

/// Where to send a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The address.
    pub to: SocketAddr,
}
