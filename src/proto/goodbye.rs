//! Leaving: everybody is told on the fast path, and who takes a part of them over acknowledges it.
//!
//! ```text
//!   begun --told, or no budget yet--> told --no hop is open, or the deadline--> over
//! ```

use crate::time::Instant;

/// A goodbye under way.
#[derive(Debug)]
pub(super) struct Goodbye {
    /// When it is over, whoever has not acknowledged it.
    pub(super) deadline: Instant,
    /// Whether it is on its way.
    pub(super) told: bool,
    /// Peers in parts that nobody took over.
    pub(super) unheard: usize,
}

impl Goodbye {
    pub(super) fn new(deadline: Instant) -> Goodbye {
        Goodbye { deadline, told: false, unheard: 0 }
    }

    /// Whether it is over, when so many hops still wait for an acknowledgement.
    pub(super) fn is_over(&self, now: Instant, open: usize) -> bool {
        self.deadline <= now || (self.told && open == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_all_is_acknowledged_or_time_is_up() {
        let at = Instant::from_micros;
        let mut goodbye = Goodbye::new(at(100));
        assert!(!goodbye.is_over(at(1), 0), "nobody has been told");
        goodbye.told = true;
        assert!(!goodbye.is_over(at(99), 1));
        assert!(goodbye.is_over(at(2), 0));
        assert!(goodbye.is_over(at(100), 1));
    }
}
