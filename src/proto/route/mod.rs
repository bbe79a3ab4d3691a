//! The conductor's roads, one file each. They hold no rule of their own: what a frame, a timer or
//! a command means is in the leaf modules; here it is carried from one to the next.

#[cfg(feature = "sim")]
mod blocked;
#[cfg(any(test, debug_assertions, feature = "sim"))]
mod check;
mod commands;
#[cfg(feature = "sim")]
mod converged;
mod counters;
mod detect;
#[cfg(feature = "sim")]
mod inspect;
mod joining;
mod last_word;
mod membership;
mod names;
mod quotas;
mod receive;
mod reconcile;
mod repair;
mod scopes;
mod send;
mod spread;
#[cfg(feature = "sim")]
mod swim;
mod timeouts;

use std::net::SocketAddr;

use tracing::Level;

use super::fetch::Source;
use super::pull::Purpose;
use super::{LogLine, Protocol};
use crate::node::NodeId;

#[cfg(feature = "sim")]
pub use blocked::Blocked;
#[cfg(feature = "sim")]
pub use converged::Introduction;
pub(super) use counters::Counters;
#[cfg(feature = "sim")]
pub use inspect::{Digest, Queue, RunState, Sighting};
pub(super) use last_word::Corrections;
pub(super) use membership::Hearsay;
pub(super) use scopes::PartCache;
pub(super) use send::Outgoing;
pub(super) use spread::Cargo;

/// Where a frame comes from.
#[derive(Clone, Copy, Debug)]
struct Origin {
    id: NodeId,
    addr: SocketAddr,
    /// Whether it is a live member.
    member: bool,
    /// Whether the frame answers a pull, and of which kind.
    pulled: Option<Purpose>,
    /// Whether the frame came on the fast path, which passes it on.
    spread: bool,
}

impl Origin {
    /// A run that is no member, as far as is known.
    fn of(id: NodeId, addr: SocketAddr) -> Origin {
        Origin { id, addr, member: false, pulled: None, spread: false }
    }

    fn as_source(&self) -> Source {
        Source { id: self.id, addr: self.addr }
    }

    /// Whether what comes from here is news to others too: the first pull, and the first of a
    /// scope, bring only what everybody else knows.
    fn is_news(&self) -> bool {
        !matches!(self.pulled, Some(Purpose::Join | Purpose::Scope(_)))
    }
}

/// Lines for the log that wait to be taken away.
const MAX_LOG_LINES: usize = 1024;

impl Protocol {
    /// Logs, unless nobody wants lines of this level, or nobody takes any.
    fn log(&mut self, level: Level, write: impl FnOnce() + Send + 'static) {
        if self.log.len() < MAX_LOG_LINES {
            self.log.extend(LogLine::new(level, write));
        }
    }
}
