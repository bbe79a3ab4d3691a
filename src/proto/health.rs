//! Local health: a node that misses answers doubts itself before it doubts others
//! (Lifeguard, section IV.A).

use std::time::Duration;

/// What a node saw of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    /// A probe of ours was answered.
    ProbeAnswered,
    /// A probe of ours was not answered.
    ProbeFailed,
    /// A helper sent neither an ack nor a nack.
    NackMissed,
    /// We had to refute a suspicion of ourselves.
    Refuted,
}

/// Lifeguard's local health multiplier: 0 is well, `max` is as bad as it is counted.
#[derive(Debug)]
pub(super) struct LocalHealth {
    score: u32,
    max: u32,
}

impl LocalHealth {
    pub(super) fn new(max: u32) -> LocalHealth {
        LocalHealth { score: 0, max }
    }

    pub(super) fn set_max(&mut self, max: u32) {
        self.max = max;
        self.score = self.score.min(max);
    }

    /// Lifeguard, section IV.A: +1 for each bad sign, -1 for a good one, within 0 and the maximum.
    pub(super) fn saw(&mut self, sign: Sign) {
        self.score = match sign {
            Sign::ProbeAnswered => self.score.saturating_sub(1),
            Sign::ProbeFailed | Sign::NackMissed | Sign::Refuted => (self.score + 1).min(self.max),
        };
    }

    pub(super) fn score(&self) -> u32 {
        self.score
    }

    /// Probe interval and timeout are multiplied by one more than the score.
    pub(super) fn scale(&self, duration: Duration) -> Duration {
        duration * (self.score + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_stays_within_its_bounds() {
        let mut health = LocalHealth::new(2);
        health.saw(Sign::ProbeAnswered);
        assert_eq!(health.score(), 0);
        for sign in [Sign::ProbeFailed, Sign::NackMissed, Sign::Refuted] {
            health.saw(sign);
        }
        assert_eq!(health.score(), 2);
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(3));
        health.saw(Sign::ProbeAnswered);
        assert_eq!(health.score(), 1);
    }
}
