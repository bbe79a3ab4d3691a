//! Nodes and the small words around them: names, run ids, counters.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Most bytes in the name of a node or of a scope.
pub const MAX_NAME_BYTES: usize = 255;

/// Most bytes of metadata that a node can carry.
pub const MAX_META_BYTES: usize = 4096;

/// One *run* of a node: 64 random bits drawn when it starts, never zero.
///
/// A node that restarts keeps its [`NodeName`] and draws a new `NodeId`; the wire refers to nodes
/// by it, so that datagrams meant for an earlier run confuse nobody.
///
/// ```
/// use rolecall::NodeId;
///
/// let id = NodeId::from_u64(0xfeed).unwrap();
/// assert_eq!(id.as_u64(), 0xfeed);
/// assert_eq!(id.to_string(), "000000000000feed");
/// assert!(NodeId::from_u64(0).is_none());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(std::num::NonZeroU64);

impl NodeId {
    /// The smallest id there can be.
    pub(crate) const MIN: NodeId = NodeId(std::num::NonZeroU64::MIN);
    /// The largest id there can be.
    pub(crate) const MAX: NodeId = NodeId(std::num::NonZeroU64::MAX);

    /// The id with these bits; `None` for zero, which on the wire means "nobody in particular".
    pub const fn from_u64(bits: u64) -> Option<NodeId> {
        match std::num::NonZeroU64::new(bits) {
            Some(bits) => Some(NodeId(bits)),
            None => None,
        }
    }

    /// The bits of this id.
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// The id right before this one; the first is its own.
    pub(crate) fn previous(self) -> NodeId {
        NodeId::from_u64(self.as_u64() - 1).unwrap_or(NodeId::MIN)
    }

    /// The id right after this one; `None` after the last.
    pub(crate) const fn next(self) -> Option<NodeId> {
        match self.0.checked_add(1) {
            Some(bits) => Some(NodeId(bits)),
            None => None,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        postcard::fixint::le::serialize(&self.as_u64(), serializer)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        let bits: u64 = postcard::fixint::le::deserialize(deserializer)?;
        NodeId::from_u64(bits).ok_or_else(|| serde::de::Error::custom("node id zero"))
    }
}

/// Declares a cheap-to-clone checked name: at most [`MAX_NAME_BYTES`], never empty.
macro_rules! name_type {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(SmolStr);

        impl $name {
            /// The name, checked: 1 to [`MAX_NAME_BYTES`] bytes and no control characters.
            ///
            /// `None` when it is empty, too long or holds a control character.
            pub fn new(name: &str) -> Option<$name> {
                let fits = (1..=MAX_NAME_BYTES).contains(&name.len());
                (fits && !name.chars().any(char::is_control)).then(|| $name(SmolStr::new(name)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.0.as_str(), f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<$name, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                $name::new(&text).ok_or_else(|| serde::de::Error::custom("not a valid name"))
            }
        }
    };
}

name_type! {
    /// The stable name of a node, chosen by its user; it survives restarts.
    ///
    /// ```
    /// use rolecall::NodeName;
    ///
    /// let name = NodeName::new("node-1").unwrap();
    /// assert_eq!(name, "node-1");
    /// assert!(NodeName::new("").is_none());
    /// ```
    NodeName
}

name_type! {
    /// The name of a scope: an isolated set of roles.
    ///
    /// ```
    /// use rolecall::ScopeName;
    ///
    /// let scope = ScopeName::new("analytics").unwrap();
    /// assert_eq!(scope.as_str(), "analytics");
    /// ```
    ScopeName
}

impl ScopeName {
    /// A name that the caller checks before it reaches a peer: a handle may have an unusable one.
    pub(crate) fn unchecked(name: &str) -> ScopeName {
        ScopeName(SmolStr::new(name))
    }
}

/// How often a node's roles in one scope have changed, per run: starts at 0, one step per call
/// that changes anything, never falls back.
///
/// ```
/// use rolecall::Generation;
///
/// assert!(Generation::ZERO < Generation::from_u64(1));
/// ```
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Generation(u64);

impl Generation {
    /// Nothing has changed yet.
    pub const ZERO: Generation = Generation(0);

    /// The generation with this number.
    pub const fn from_u64(number: u64) -> Generation {
        Generation(number)
    }

    /// The number of this generation.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// One step on.
    pub(crate) const fn next(self) -> Generation {
        Generation(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A node as its peers see it: one run, with its name, address and metadata.
///
/// Cheap to clone. Equality, order and hash look at name and id only: the same run with new
/// metadata is still the same node.
///
/// ```
/// use rolecall::{Node, NodeId, NodeName};
///
/// let node = Node::new(
///     NodeName::new("a").unwrap(),
///     NodeId::from_u64(7).unwrap(),
///     "127.0.0.1:7946".parse().unwrap(),
///     bytes::Bytes::from_static(b"http=:8080"),
/// );
/// assert_eq!(node.name(), "a");
/// assert_eq!(node.meta(), b"http=:8080");
/// ```
#[derive(Clone)]
pub struct Node(Arc<NodeInner>);

/// Every node keeps one of these for every other: what is rarely long or large is kept apart.
struct NodeInner {
    name: NodeName,
    id: NodeId,
    addr: Addr,
    meta: Box<[u8]>,
}

/// A `SocketAddr` in half the space if it is of IPv4.
enum Addr {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

impl Addr {
    fn new(addr: SocketAddr) -> Addr {
        match addr {
            SocketAddr::V4(addr) => Addr::V4(addr),
            SocketAddr::V6(addr) => Addr::V6(Box::new(addr)),
        }
    }

    fn get(&self) -> SocketAddr {
        match self {
            Addr::V4(addr) => SocketAddr::V4(*addr),
            Addr::V6(addr) => SocketAddr::V6(**addr),
        }
    }
}

impl Node {
    /// A node value. Services get theirs from a cluster; this is for tests of their own code.
    #[expect(clippy::needless_pass_by_value, reason = "the caller need not know what is kept")]
    pub fn new(name: NodeName, id: NodeId, addr: SocketAddr, meta: Bytes) -> Node {
        Node(Arc::new(NodeInner { name, id, addr: Addr::new(addr), meta: Box::from(&*meta) }))
    }

    /// The stable name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The stable name, as a value that is cheap to clone.
    pub fn node_name(&self) -> &NodeName {
        &self.0.name
    }

    /// The run.
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    /// Where the node is reached, as it advertises itself.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr.get()
    }

    /// The opaque bytes its user attached; empty by default.
    pub fn meta(&self) -> &[u8] {
        &self.0.meta
    }

    /// The same bytes, copied.
    pub(crate) fn meta_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.meta)
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        self.0.id == other.0.id && self.0.name == other.0.name
    }
}

impl Eq for Node {}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
        self.0.id.hash(state);
    }
}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Node) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Node {
    fn cmp(&self, other: &Node) -> std::cmp::Ordering {
        (&self.0.name, self.0.id).cmp(&(&other.0.name, other.0.id))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({} at {})", self.0.name, self.0.id, self.addr())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.name)
    }
}

/// An immutable snapshot of nodes, sorted by name then id: cheap to clone, `Send + Sync`, fine to
/// hold across `.await`.
///
/// ```
/// use rolecall::Nodes;
///
/// let nodes = Nodes::default();
/// assert!(nodes.is_empty());
/// for node in &nodes {
///     println!("{}", node.name());
/// }
/// ```
#[derive(Clone)]
pub struct Nodes(List);

/// Either takes two words, and is read as a slice at once.
#[derive(Clone)]
enum List {
    /// As a rule: one allocation.
    Fixed(Arc<[Node]>),
    /// Many, which who is their only holder can change in place.
    Growable(Arc<Vec<Node>>),
}

impl Nodes {
    /// The names, in order; handy in tests and logs.
    pub fn names(&self) -> Vec<&str> {
        self.iter().map(Node::name).collect()
    }

    /// Of nodes that are sorted, each once.
    pub(crate) fn from_sorted(nodes: Arc<[Node]>) -> Nodes {
        debug_assert!(nodes.is_sorted_by(|a, b| a < b), "the caller has sorted them");
        Nodes(List::Fixed(nodes))
    }

    /// The same, for many: see [`list_mut`](Nodes::list_mut).
    pub(crate) fn from_sorted_list(nodes: Vec<Node>) -> Nodes {
        debug_assert!(nodes.is_sorted_by(|a, b| a < b), "the caller has sorted them");
        Nodes(List::Growable(Arc::new(nodes)))
    }

    /// Whether it was made by [`from_sorted_list`](Nodes::from_sorted_list).
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.0, List::Growable(_))
    }

    /// The nodes of such a list if this is the only snapshot that has them. They stay sorted.
    pub(crate) fn list_mut(&mut self) -> Option<&mut Vec<Node>> {
        match &mut self.0 {
            List::Fixed(_) => None,
            List::Growable(nodes) => Arc::get_mut(nodes),
        }
    }
}

impl Default for Nodes {
    fn default() -> Nodes {
        Nodes(List::Fixed(Arc::default()))
    }
}

impl PartialEq for Nodes {
    fn eq(&self, other: &Nodes) -> bool {
        **self == **other
    }
}

impl Eq for Nodes {}

impl Hash for Nodes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl FromIterator<Node> for Nodes {
    /// Sorts, and keeps one of each.
    fn from_iter<I: IntoIterator<Item = Node>>(nodes: I) -> Nodes {
        let mut nodes: Vec<Node> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        Nodes::from_sorted(nodes.into())
    }
}

impl Deref for Nodes {
    type Target = [Node];

    #[inline]
    fn deref(&self) -> &[Node] {
        match &self.0 {
            List::Fixed(nodes) => nodes,
            List::Growable(nodes) => nodes,
        }
    }
}

impl<'a> IntoIterator for &'a Nodes {
    type Item = &'a Node;
    type IntoIter = std::slice::Iter<'a, Node>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Nodes {
    type Item = Node;
    type IntoIter = std::vec::IntoIter<Node>;
    fn into_iter(self) -> Self::IntoIter {
        // The snapshot may be shared: its nodes are cloned, each one reference count.
        Vec::from(&*self).into_iter()
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
