//! Another run is said to have this node's name. A node does not give way to hearsay: the heir has
//! to be found, and asked to let this node in, which who has the name itself refuses.
//!
//! ```text
//!   claimed --its profile--> found --"the name is taken"--> this node stops
//!      \------------------------\------silence-----> it was not so
//! ```

use std::net::SocketAddr;

use crate::node::NodeId;
use crate::time::Instant;

/// The run that is said to have the name.
#[derive(Debug)]
struct Heir {
    id: NodeId,
    /// Where it is, once that is known.
    addr: Option<SocketAddr>,
    deadline: Instant,
}

/// What is said of this node's name.
#[derive(Debug, Default)]
pub(super) struct Succession {
    heir: Option<Heir>,
}

impl Succession {
    /// A run is said to have the name; true if it is to be looked for.
    pub(super) fn claim(&mut self, id: NodeId, deadline: Instant) -> bool {
        let open = self.heir.is_none();
        self.heir.get_or_insert(Heir { id, addr: None, deadline });
        open
    }

    /// Whether it is to be found out still where this run is.
    pub(super) fn seeks(&self, id: NodeId) -> bool {
        self.heir.as_ref().is_some_and(|heir| heir.id == id && heir.addr.is_none())
    }

    /// The heir is there.
    pub(super) fn found(&mut self, addr: SocketAddr) {
        if let Some(heir) = &mut self.heir {
            heir.addr = Some(addr);
        }
    }

    /// Whether this run, there, is the one that is asked.
    pub(super) fn is_heir(&self, id: NodeId, addr: SocketAddr) -> bool {
        self.heir.as_ref().is_some_and(|heir| heir.id == id && heir.addr == Some(addr))
    }

    /// Whether an heir has not said that it has the name, for as long as it had to do so.
    pub(super) fn take_silent(&mut self, now: Instant) -> bool {
        self.heir.take_if(|heir| heir.deadline <= now).is_some()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.heir.as_ref().map(|heir| heir.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_heir_counts_where_it_was_found() {
        let id = |n| NodeId::from_u64(n).unwrap();
        let at = Instant::from_micros;
        let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut succession = Succession::default();
        assert!(succession.claim(id(1), at(10)));
        assert!(!succession.claim(id(2), at(20)), "one at a time");
        assert!(succession.seeks(id(1)) && !succession.seeks(id(2)));
        assert!(!succession.is_heir(id(1), addr(1)), "it is not known where it is");
        succession.found(addr(1));
        assert!(!succession.seeks(id(1)));
        assert!(succession.is_heir(id(1), addr(1)));
        assert!(!succession.is_heir(id(1), addr(2)) && !succession.is_heir(id(2), addr(1)));
        assert!(!succession.take_silent(at(9)));
        assert_eq!(succession.next_deadline(), Some(at(10)));
        assert!(succession.take_silent(at(10)));
        assert_eq!(succession.next_deadline(), None);
    }
}
