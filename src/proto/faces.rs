//! The live runs by what others find them by: their name, and their address.

use std::net::SocketAddr;

use crate::node::{Node, NodeId};

/// Two sorted lists of the same nodes.
#[derive(Debug, Default)]
pub(super) struct Faces {
    /// One of each name.
    by_name: Vec<Node>,
    /// By address, then id: it happens that two have the same.
    by_addr: Vec<Node>,
}

impl Faces {
    /// Enters a node. Whoever has its name keeps it until it is removed.
    pub(super) fn insert(&mut self, node: &Node) {
        if let Err(at) = self.by_name.binary_search_by(|other| other.name().cmp(node.name())) {
            self.by_name.insert(at, node.clone());
        }
        if let Err(at) = self.by_addr.binary_search_by_key(&place(node), place) {
            self.by_addr.insert(at, node.clone());
        }
    }

    pub(super) fn remove(&mut self, node: &Node) {
        if let Ok(at) = self.by_name.binary_search(node) {
            self.by_name.remove(at);
        }
        if let Ok(at) = self.by_addr.binary_search_by_key(&place(node), place) {
            self.by_addr.remove(at);
        }
    }

    /// Enters many nodes, each of another name.
    #[cfg(feature = "sim")]
    pub(super) fn extend(&mut self, nodes: impl Iterator<Item = Node>) {
        self.by_name.extend(nodes);
        self.by_name.sort_unstable();
        let mut pairs = self.by_name.windows(2);
        assert!(pairs.all(|pair| pair[0].name() != pair[1].name()), "every name is there once");
        self.by_name.shrink_to_fit();
        self.by_addr.clone_from(&self.by_name);
        self.by_addr.sort_unstable_by_key(place);
    }

    /// The node of a name.
    pub(super) fn named(&self, name: &str) -> Option<&Node> {
        let at = self.by_name.binary_search_by(|node| node.name().cmp(name)).ok()?;
        Some(&self.by_name[at])
    }

    /// The nodes that are reached at an address.
    pub(super) fn reached_at(&self, addr: SocketAddr) -> impl Iterator<Item = &Node> {
        let first = self.by_addr.partition_point(|node| node.addr() < addr);
        self.by_addr[first..].iter().take_while(move |node| node.addr() == addr)
    }

    /// What must always hold, given the nodes that are to be here, sorted by id.
    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn check<'a>(&self, live: impl Iterator<Item = &'a Node>) {
        assert!(self.by_name.is_sorted_by(|a, b| a.name() < b.name()), "one live run a name");
        assert!(self.by_addr.is_sorted_by_key(place), "those of one address lie side by side");
        let live: Vec<_> = live.map(|node| (node, node.addr())).collect();
        for list in [&self.by_name, &self.by_addr] {
            let mut here: Vec<_> = list.iter().map(|node| (node, node.addr())).collect();
            here.sort_unstable_by_key(|(node, _)| node.id());
            assert_eq!(here, live, "no live run is missing, and no former face is kept alive");
        }
    }
}

fn place(node: &Node) -> (SocketAddr, NodeId) {
    (node.addr(), node.id())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::node::NodeName;

    fn node(name: &str, id: u64, port: u16) -> Node {
        let addr = SocketAddr::from(([10, 0, 0, 1], port));
        Node::new(NodeName::new(name).unwrap(), NodeId::from_u64(id).unwrap(), addr, Bytes::new())
    }

    #[test]
    fn nodes_are_found_by_name_and_by_address() {
        let mut faces = Faces::default();
        let (a, b, c) = (node("a", 3, 70), node("b", 2, 80), node("c", 1, 70));
        [&b, &c, &a].into_iter().for_each(|it| faces.insert(it));
        faces.check([&c, &b, &a].into_iter());
        assert_eq!(faces.named("b"), Some(&b));
        assert_eq!(faces.named("bb"), None);
        assert_eq!(faces.reached_at(a.addr()).collect::<Vec<_>>(), [&c, &a], "by id");
        faces.remove(&c);
        assert_eq!((faces.named("c"), faces.reached_at(a.addr()).count()), (None, 1));
        faces.check([&b, &a].into_iter());
    }

    #[test]
    fn who_has_a_name_keeps_it() {
        let mut faces = Faces::default();
        let (first, second) = (node("a", 1, 70), node("a", 2, 80));
        faces.insert(&first);
        faces.insert(&second);
        assert_eq!(faces.named("a"), Some(&first));
        faces.remove(&second);
        assert_eq!((faces.named("a"), faces.reached_at(second.addr()).count()), (Some(&first), 0));
    }
}
