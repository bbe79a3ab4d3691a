//! A run that was declared down by mistake and is still there: at once back the first time; when
//! it happens again soon, only after a while without trouble, so that its state does not flap with
//! its links.
//!
//! Only the run itself can say that it lives, so this is its own to keep: others need not remember
//! anything of it.

use std::time::Duration;

use crate::time::Instant;

/// How long a run stays out, in probe intervals. Longer than the 20 s for which links fail in turn
/// in Rapid's experiments (ATC 2018, section 7), with a probe each second.
pub(crate) const PROBATION: u32 = 30;

/// A return is remembered for so many times that.
const MEMORY: u32 = 10;

/// How a run stands with the others.
#[derive(Debug, Default)]
pub(super) struct Standing {
    returned: Option<Instant>,
    out_until: Option<Instant>,
}

impl Standing {
    /// Somebody holds this run dead: whether it may say now that it lives.
    pub(super) fn may_return(&mut self, now: Instant, probe_interval: Duration) -> bool {
        let probation = probe_interval * PROBATION;
        let lately = self.returned.is_some_and(|at| now < at + probation * MEMORY);
        match self.out_until {
            Some(until) if now < until => return false,
            None if lately => {
                self.out_until = Some(now + probation);
                return false;
            }
            _ => {}
        }
        (self.returned, self.out_until) = (Some(now), None);
        true
    }

    /// This run's network does not work.
    pub(super) fn trouble(&mut self, now: Instant, probe_interval: Duration) {
        if let Some(until) = &mut self.out_until {
            *until = now + probe_interval * PROBATION;
        }
    }

    /// Whether it stays out, and others may rightly hold it dead.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.out_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_time_it_takes_a_while_without_trouble() {
        let second = Duration::from_secs(1);
        let at = |seconds: u64| Instant::ORIGIN + second * u32::try_from(seconds).unwrap();
        let mut standing = Standing::default();
        assert!(standing.may_return(at(100), second));
        assert!(!standing.may_return(at(140), second));
        assert!(standing.is_out(at(169)));
        standing.trouble(at(160), second);
        assert!(!standing.may_return(at(171), second), "trouble prolongs it");
        assert!(standing.may_return(at(190), second));
        assert!(!standing.is_out(at(190)));
        assert!(standing.may_return(at(190 + 301), second), "long ago is forgotten");
    }

    #[test]
    fn who_is_out_and_hears_no_more_of_it_is_forgiven_too() {
        let second = Duration::from_secs(1);
        let mut standing = Standing::default();
        let start = Instant::ORIGIN;
        assert!(standing.may_return(start, second));
        assert!(!standing.may_return(start + second, second));
        assert!(!standing.is_out(start + 32 * second));
    }
}
