//! What a node tells its user: events, the reason behind a node-down, the handler trait.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::{Node, NodeName, ScopeName};
use crate::role::Role;

/// Something that changed in the cluster, as this node learned it.
///
/// Every event about nodes and roles is a difference between two states that a reader could have
/// seen, and the published maps already show it when it arrives.
///
/// ```
/// use rolecall::Event;
///
/// fn describe(event: &Event) -> String {
///     match event {
///         Event::NodeUp { node } => format!("{node} is up"),
///         Event::NodeDown { node, reason } => format!("{node} is down: {reason}"),
///         Event::RoleAdded { scope, node, role } => format!("{scope}: {node} plays {role}"),
///         other => format!("{other:?}"),
///     }
/// }
/// assert_eq!(describe(&Event::Lagged { missed: 3 }), "Lagged { missed: 3 }");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A node came up. Its roles in shared scopes are readable already, unless they did not come
    /// within [`pull_timeout`](crate::Config::pull_timeout): then they follow as they come.
    NodeUp {
        /// The node.
        node: Node,
    },
    /// A node is gone; none of its roles is readable any more.
    NodeDown {
        /// The node.
        node: Node,
        /// Why.
        reason: DownReason,
    },
    /// A live node replaced its metadata.
    NodeUpdated {
        /// The node, with its new metadata.
        node: Node,
    },
    /// Two live processes claim one name; told once a minute at most. Either somebody claims the
    /// name of a member, and is ignored. Or it is this node's own name that another has: then it
    /// has lost it and stops, which ends the events, or it is alone and nobody lets it in.
    NameConflict {
        /// The name that both claim.
        name: NodeName,
        /// Where the one that is ignored is; if `name` is this node's, where the other one is.
        other: SocketAddr,
    },
    /// A node took a role in a scope that this node is in.
    RoleAdded {
        /// The scope.
        scope: ScopeName,
        /// The node that took it.
        node: Node,
        /// The role.
        role: Role,
    },
    /// A node gave a role up, left the scope, or went down.
    RoleRemoved {
        /// The scope.
        scope: ScopeName,
        /// The node that held it.
        node: Node,
        /// The role.
        role: Role,
    },
    /// Another node would have exceeded one of the limits in [`Config`](crate::Config): what it
    /// said was refused as a whole, and what was known of it before stays. Told once, until the
    /// same is taken in again; no reader sees a difference. Of the runs that find no room
    /// ([`Limit::MaxNodes`]) only the first is told of, until there was room for one again.
    ///
    /// ```
    /// use rolecall::{Event, Limit};
    ///
    /// fn is_my_config(event: &Event) -> bool {
    ///     // More nodes than this one keeps: the cluster has outgrown its configuration.
    ///     matches!(event, Event::LimitReached { limit: Limit::MaxNodes, .. })
    /// }
    /// # let _ = is_my_config;
    /// ```
    LimitReached {
        /// The limit.
        limit: Limit,
        /// The node that was refused; where it is not a member, as it introduced itself.
        node: Node,
        /// The scope whose roles were refused; `None` when it is not about roles.
        scope: Option<ScopeName>,
    },
    /// This subscriber was too slow and missed events: re-read the maps.
    Lagged {
        /// How many events it missed.
        missed: u64,
    },
}

/// A limit on what this node keeps of others, by its field in [`Config`](crate::Config).
///
/// ```
/// assert_eq!(rolecall::Limit::MaxNodes.to_string(), "max_nodes");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// [`max_nodes`](crate::Config::max_nodes).
    MaxNodes,
    /// [`max_scopes_per_node`](crate::Config::max_scopes_per_node).
    MaxScopesPerNode,
    /// [`max_roles_per_node`](crate::Config::max_roles_per_node).
    MaxRolesPerNode,
    /// [`max_role_bytes`](crate::Config::max_role_bytes).
    MaxRoleBytes,
    /// [`max_node_role_bytes`](crate::Config::max_node_role_bytes).
    MaxNodeRoleBytes,
    /// [`max_total_role_bytes`](crate::Config::max_total_role_bytes).
    MaxTotalRoleBytes,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::MaxNodes => "max_nodes",
            Limit::MaxScopesPerNode => "max_scopes_per_node",
            Limit::MaxRolesPerNode => "max_roles_per_node",
            Limit::MaxRoleBytes => "max_role_bytes",
            Limit::MaxNodeRoleBytes => "max_node_role_bytes",
            Limit::MaxTotalRoleBytes => "max_total_role_bytes",
        })
    }
}

/// Why a node is down.
///
/// ```
/// use rolecall::DownReason;
///
/// assert_eq!(DownReason::Left.to_string(), "left");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DownReason {
    /// The failure detector's verdict, with what it rests on.
    Failed(Evidence),
    /// It said goodbye.
    Left,
    /// A newer run of the same name took its place.
    Replaced {
        /// The newer run.
        by: Node,
    },
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Failed(evidence) => write!(f, "failed ({evidence})"),
            DownReason::Left => f.write_str("left"),
            DownReason::Replaced { by } => write!(f, "replaced by {by:?}"),
        }
    }
}

/// What a verdict of failure rests on, as far as this node knows.
///
/// ```
/// use rolecall::{DownReason, Event};
///
/// fn log(event: &Event) {
///     if let Event::NodeDown { node, reason: DownReason::Failed(evidence) } = event {
///         println!("{node} failed, accused by {:?}", evidence.accuser);
///     }
/// }
/// # log(&Event::Lagged { missed: 0 });
/// ```
#[derive(Clone, Debug, PartialEq, Default)]
#[non_exhaustive]
pub struct Evidence {
    /// Who suspected it first, as far as this node heard; `None` when that node is unknown here.
    pub accuser: Option<Node>,
    /// Those who saw the failure for themselves, the accuser among them, by name.
    pub witnesses: Vec<Witness>,
    /// How long ago this node last heard from it directly; `None` when it never did.
    pub last_heard: Option<Duration>,
    /// This node's own local health at the verdict: 0 is well, larger is worse (Lifeguard, IV.A).
    pub local_health: u32,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.accuser {
            Some(node) => write!(f, "accused by {node}")?,
            None => f.write_str("accuser unknown")?,
        }
        write!(f, ", {} witnesses", self.witnesses.len())?;
        if let Some(ago) = self.last_heard {
            write!(f, ", last heard {ago:.1?} ago")?;
        }
        write!(f, ", local health {}", self.local_health)
    }
}

/// One node's own observation of a failure.
///
/// ```
/// use rolecall::{Sight, Witness};
///
/// fn is_silence(witness: &Witness) -> bool {
///     witness.saw == Sight::Silence
/// }
/// # let _ = is_silence;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Witness {
    /// The witness.
    pub node: Node,
    /// What it saw.
    pub saw: Sight,
}

/// What a witness of a failure saw.
///
/// ```
/// assert_eq!(format!("{:?}", rolecall::Sight::Silence), "Silence");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Sight {
    /// No answer to any ping for as long as a pause is tolerated
    /// ([`pause_tolerance`](crate::Config::pause_tolerance)).
    Silence,
    /// The host's kernel answered that nobody listens there (ICMP port unreachable).
    Unreachable,
}

/// Callbacks for changes, run one after another on a thread of their own.
///
/// Every method has an empty default. A handler that blocks delays only itself; one that panics is
/// logged and called again for the next event.
///
/// ```
/// use rolecall::{EventHandler, Node, Role, ScopeName};
///
/// struct Log;
/// impl EventHandler for Log {
///     fn on_role_added(&self, node: &Node, role: &Role, scope: &ScopeName) {
///         println!("{node} plays {role} in {scope}");
///     }
/// }
/// ```
pub trait EventHandler: Send + Sync + 'static {
    /// A node took a role.
    fn on_role_added(&self, node: &Node, role: &Role, scope: &ScopeName) {
        let _ = (node, role, scope);
    }

    /// A node no longer plays a role.
    fn on_role_removed(&self, node: &Node, role: &Role, scope: &ScopeName) {
        let _ = (node, role, scope);
    }

    /// A node came up.
    fn on_node_added(&self, node: &Node) {
        let _ = node;
    }

    /// A node went down.
    fn on_node_removed(&self, node: &Node, reason: DownReason) {
        let _ = (node, reason);
    }

    /// A live node replaced its metadata.
    fn on_node_updated(&self, node: &Node) {
        let _ = node;
    }

    /// Another process claims the name of a live node, or this node has lost its own
    /// ([`Event::NameConflict`]).
    fn on_name_conflict(&self, name: &NodeName, other: SocketAddr) {
        let _ = (name, other);
    }

    /// What another node said was refused, because it would exceed a limit
    /// ([`Event::LimitReached`]).
    fn on_limit_reached(&self, limit: Limit, node: &Node, scope: Option<&ScopeName>) {
        let _ = (limit, node, scope);
    }

    /// The handler was so slow that `missed` events were dropped: re-read the maps.
    fn on_lagged(&self, missed: u64) {
        let _ = missed;
    }
}

/// Calls the handler's method for an event, if it has one.
pub(crate) fn dispatch(handler: &dyn EventHandler, event: Event) {
    match event {
        Event::RoleAdded { scope, node, role } => handler.on_role_added(&node, &role, &scope),
        Event::RoleRemoved { scope, node, role } => handler.on_role_removed(&node, &role, &scope),
        Event::NodeUp { node } => handler.on_node_added(&node),
        Event::NodeDown { node, reason } => handler.on_node_removed(&node, reason),
        Event::Lagged { missed } => handler.on_lagged(missed),
        Event::NodeUpdated { node } => handler.on_node_updated(&node),
        Event::NameConflict { name, other } => handler.on_name_conflict(&name, other),
        Event::LimitReached { limit, node, scope } => {
            handler.on_limit_reached(limit, &node, scope.as_ref());
        }
    }
}
