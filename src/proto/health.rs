//! Local health: a node that nobody answers doubts itself before it doubts others
//! (Lifeguard, section IV.A). Deviation: a peer that does not answer is no sign by itself, as long
//! as witnesses answer. Among many dead a healthy node does not slow down.

use std::time::Duration;

/// The worst that is counted (Lifeguard, section V).
const MAX_SCORE: u32 = 8;

/// What a node saw of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    /// A probe of ours was answered.
    ProbeAnswered,
    /// A probe of ours was not, nor did any witness answer us: not a good sign of our network.
    Unheard,
    /// In SWIM and Lifeguard: a probe of ours was not answered.
    #[cfg(feature = "sim")]
    ProbeFailed,
    /// In Lifeguard: a helper sent neither an ack nor a nack.
    #[cfg(feature = "sim")]
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
    pub(super) fn new() -> LocalHealth {
        LocalHealth { score: 0, max: MAX_SCORE }
    }

    #[cfg(feature = "sim")]
    pub(super) fn set_max(&mut self, max: u32) {
        self.max = max;
        self.score = self.score.min(max);
    }

    /// Lifeguard, section IV.A: +1 for each bad sign, -1 for a good one, within 0 and the maximum.
    pub(super) fn saw(&mut self, sign: Sign) {
        self.score = match sign {
            Sign::ProbeAnswered => self.score.saturating_sub(1),
            _ => (self.score + 1).min(self.max),
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
        let mut health = LocalHealth { score: 0, max: 2 };
        health.saw(Sign::ProbeAnswered);
        assert_eq!(health.score(), 0);
        for sign in [Sign::Unheard, Sign::Refuted, Sign::Refuted] {
            health.saw(sign);
        }
        assert_eq!(health.score(), 2);
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(3));
        health.saw(Sign::ProbeAnswered);
        assert_eq!(health.score(), 1);
    }
}
