//! A node whose threads are stuck in their sends and receives, as in Lifeguard's experiments. This
//! state machine has no threads; what they would do is told by its timers.

use super::super::Protocol;
use super::super::timer::Timer;
use crate::time::Instant;

/// What is stuck in a node since it was blocked: each of its loops goes on until it sends, and then
/// waits for the end.
#[derive(Clone, Debug, Default)]
pub struct Blocked {
    stuck: Vec<Timer>,
}

impl Blocked {
    fn holds(&self, timer: Timer) -> bool {
        self.stuck.contains(&timer)
    }

    /// The loop behind a timer has sent something.
    fn hold(&mut self, timer: Timer, classic: bool) {
        match timer {
            // These send nothing by themselves.
            Timer::Announce | Timer::Deaths | Timer::Purge => {}
            Timer::Suspicion if classic => {}
            // One loop: it pings, waits, asks others, waits, and judges.
            Timer::Probe | Timer::Answer | Timer::Suspicion => {
                self.stuck.extend([Timer::Probe, Timer::Answer]);
                self.stuck.extend((!classic).then_some(Timer::Suspicion));
            }
            other => self.stuck.push(other),
        }
    }
}

impl Protocol {
    /// Does what is due and not stuck.
    pub fn handle_timeout_blocked(&mut self, now: Instant, blocked: &mut Blocked) {
        self.advance(now);
        let mut due = Vec::new();
        while let Some(timer) = self.timers.take_due(self.now) {
            due.push((timer, self.now));
        }
        for (timer, at) in due {
            if blocked.holds(timer) {
                self.timers.set(timer, Some(at));
            } else {
                self.run_timer(timer);
                blocked.hold(timer, self.rules.classic.is_some());
            }
        }
        self.settle();
    }

    /// When [`handle_timeout_blocked`](Protocol::handle_timeout_blocked) is to be called next.
    pub fn poll_timeout_blocked(&self, blocked: &Blocked) -> Option<Instant> {
        self.timers.next_of(|timer| !blocked.holds(timer))
    }
}
