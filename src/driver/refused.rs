//! Who sends what this node may not believe: logged, seldom.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::Level;

use super::log::log;
use crate::time::Instant;
use crate::wire::DecodeError;

/// Each reason is logged this often at most, whatever arrives.
const PAUSE: Duration = Duration::from_mins(1);

/// Reasons that an operator can do something about.
const REASONS: usize = 4;

/// When each reason was logged last.
#[derive(Default)]
pub(super) struct Refusals {
    logged: [Option<Instant>; REASONS],
}

impl Refusals {
    /// Logs that a datagram was refused, if that was not done lately.
    pub(super) fn note(&mut self, now: Instant, from: SocketAddr, error: DecodeError) {
        log(Level::TRACE, move || tracing::trace!(%from, %error, "datagram refused"));
        if let Some(reason) = self.due(now, error) {
            log(Level::WARN, move || {
                tracing::warn!(
                    %from,
                    %error,
                    "datagrams {reason} arrive here and are dropped (said once a minute)"
                );
            });
        }
    }

    /// What is to be said now of this error.
    fn due(&mut self, now: Instant, error: DecodeError) -> Option<&'static str> {
        let (index, reason) = match error {
            DecodeError::OtherCluster => (0, "of another cluster"),
            DecodeError::Version { .. } => (1, "of another version of the protocol"),
            DecodeError::Plain | DecodeError::Sealed => (2, "with a key or without, unlike here,"),
            DecodeError::WrongKey => (3, "of another key"),
            _ => return None,
        };
        let logged = &mut self.logged[index];
        if logged.is_some_and(|at| now < at + PAUSE) {
            return None;
        }
        *logged = Some(now);
        Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_logged_once_a_minute() {
        let mut refusals = Refusals::default();
        let mut due = |seconds: u64, error| {
            refusals.due(Instant::from_micros(seconds * 1_000_000), error).is_some()
        };
        assert!(due(0, DecodeError::OtherCluster) && due(1, DecodeError::WrongKey));
        assert!(!due(59, DecodeError::OtherCluster) && due(60, DecodeError::OtherCluster));
        assert!(due(60, DecodeError::Plain) && !due(60, DecodeError::Sealed));
        assert!(due(60, DecodeError::Version { version: 2 }));
        assert!(!due(300, DecodeError::Checksum) && !due(300, DecodeError::Magic));
    }
}
