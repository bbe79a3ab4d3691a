//! Whatever a node keeps for others has a limit.

use super::Verdict;
use crate::proto::Queue;

/// Nothing grows beyond its limit.
#[derive(Debug, Default)]
pub struct Queues {
    held: u64,
}

impl Queues {
    pub(super) const NAME: &'static str = "limits of queues";

    /// Queues that were looked at and had something in them.
    pub fn exercised(&self) -> u64 {
        self.held
    }

    /// What a node keeps.
    ///
    /// # Errors
    /// When something is beyond its limit.
    pub fn see(&mut self, queues: &[Queue]) -> Verdict {
        if let Some(over) = queues.iter().find(|queue| queue.len > queue.limit) {
            return Err(format!("{over:?}"));
        }
        self.held += queues.iter().filter(|queue| queue.len > 0).count() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_bite() {
        let mut checker = Queues::default();
        let queue = |len| Queue { name: "q", len, limit: 3 };
        checker.see(&[queue(3), queue(0)]).unwrap();
        assert_eq!(checker.exercised(), 1);
        checker.see(&[queue(0), queue(4)]).unwrap_err();
    }
}
