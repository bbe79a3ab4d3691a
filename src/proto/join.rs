//! Becoming a member: the asking side, and the cookie of the answering side.
//!
//! ```text
//!   joiner            seed
//!     | -- Join ------> |
//!     | <-- Prove ----- |   a cookie that only the owner of the address gets to see
//!     | -- Join ------> |   with the cookie, and the profile after it
//!     | <-- Welcome --- |   or Wait, RaiseBoot, NameTaken
//!     | -- Pull ...     |
//! ```

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use siphasher::sip::SipHasher24;

use crate::node::NodeId;
use crate::time::Instant;

/// Addresses dialled at one time.
pub(super) const MAX_CONTACTS: usize = 256;

/// Datagrams to one address before it counts as silent; the caller tries again later.
const MAX_TRIES: u32 = 5;

/// Answers of "wait" that one contact takes: enough for a name to be decided.
const MAX_WAITS: u32 = 64;

/// Answers of "again" that one contact obeys at once: a cookie, a later start stamp, a cookie that
/// ran out meanwhile.
const MAX_REPEATS: u32 = 6;

/// How long a cookie is good for, at least: 30 s.
const COOKIE_EPOCH_MICROS: u64 = 30_000_000;

/// Makes and checks cookies: a keyed hash of who asks from where, and roughly when.
#[derive(Debug)]
pub(super) struct CookieJar {
    key: (u64, u64),
}

impl CookieJar {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> CookieJar {
        CookieJar { key: (rng.random(), rng.random()) }
    }

    /// The cookie for this asker now.
    pub(super) fn cookie(&self, now: Instant, from: SocketAddr, id: NodeId) -> u64 {
        self.at(epoch(now), from, id)
    }

    /// Whether the cookie was given to this asker in this epoch or the one before.
    pub(super) fn is_good(&self, now: Instant, from: SocketAddr, id: NodeId, cookie: u64) -> bool {
        let epoch = epoch(now);
        [epoch, epoch.wrapping_sub(1)].iter().any(|epoch| self.at(*epoch, from, id) == cookie)
    }

    fn at(&self, epoch: u64, from: SocketAddr, id: NodeId) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.key.0, self.key.1);
        match from.ip() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write(&from.port().to_le_bytes());
        hasher.write(&id.as_u64().to_le_bytes());
        hasher.write(&epoch.to_le_bytes());
        // Zero stands for "no cookie yet".
        hasher.finish().max(1)
    }
}

fn epoch(now: Instant) -> u64 {
    // One ahead of zero, so that there always is one before.
    now.as_micros() / COOKIE_EPOCH_MICROS + 1
}

/// A join request to be sent.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Dial {
    pub(super) addr: SocketAddr,
    pub(super) seq: u16,
    pub(super) cookie: u64,
}

#[derive(Debug)]
struct Contact {
    seq: u16,
    cookie: u64,
    tries: u32,
    waits: u32,
    repeats: u32,
    retry_at: Instant,
}

/// A call of `join` or `start` that waits for its contacts.
#[derive(Debug)]
struct Waiter {
    token: u64,
    waiting: Vec<SocketAddr>,
    answered: usize,
    deadline: Instant,
}

/// The addresses that this node is asking to let it in.
#[derive(Debug, Default)]
pub(super) struct Joins {
    contacts: BTreeMap<SocketAddr, Contact>,
    waiters: Vec<Waiter>,
}

impl Joins {
    /// Begins to ask at an address, unless that is under way. `seq` tells its answers apart.
    pub(super) fn dial(&mut self, now: Instant, addr: SocketAddr, seq: u16) {
        if self.contacts.len() < MAX_CONTACTS {
            let contact = Contact { seq, cookie: 0, tries: 0, waits: 0, repeats: 0, retry_at: now };
            self.contacts.entry(addr).or_insert(contact);
        }
    }

    /// From now on counts which of these addresses answer, for [`Joins::take_answered`] to tell.
    pub(super) fn expect(&mut self, token: u64, waiting: Vec<SocketAddr>, deadline: Instant) {
        self.waiters.push(Waiter { token, waiting, answered: 0, deadline });
    }

    /// The contact that an answer belongs to.
    pub(super) fn expects(&self, from: SocketAddr, seq: u16) -> bool {
        self.contacts.get(&from).is_some_and(|contact| contact.seq == seq)
    }

    /// Whether this address is being asked.
    pub(super) fn is_dialling(&self, addr: SocketAddr) -> bool {
        self.contacts.contains_key(&addr)
    }

    /// The seed wants the request repeated, with this cookie from now on if there is one. It can
    /// want that only so often: nobody makes this node ask for ever.
    pub(super) fn again(&mut self, now: Instant, from: SocketAddr, cookie: Option<u64>) {
        if let Some(contact) = self.contacts.get_mut(&from) {
            contact.cookie = cookie.unwrap_or(contact.cookie);
            contact.repeats += 1;
            if contact.repeats <= MAX_REPEATS {
                contact.tries = 0;
                contact.retry_at = now;
            }
        }
    }

    /// The seed wants the request repeated after a while.
    pub(super) fn wait(&mut self, now: Instant, from: SocketAddr, pause: Duration) {
        if let Some(contact) = self.contacts.get_mut(&from) {
            contact.tries = 0;
            contact.waits += 1;
            contact.retry_at = now + pause;
        }
    }

    /// The address has answered for good, or is of no use (`answered` false).
    pub(super) fn finish(&mut self, addr: SocketAddr, answered: bool) {
        self.contacts.remove(&addr);
        for waiter in &mut self.waiters {
            let before = waiter.waiting.len();
            waiter.waiting.retain(|other| *other != addr);
            waiter.answered += usize::from(answered && waiter.waiting.len() < before);
        }
    }

    /// Requests that are due; contacts that stayed silent are given up.
    pub(super) fn handle_timeout(&mut self, now: Instant, retry: Duration) -> Vec<Dial> {
        let silent = self.contacts.iter().filter(|(_, contact)| {
            let out = contact.tries >= MAX_TRIES || contact.waits > MAX_WAITS;
            out && contact.retry_at <= now
        });
        let silent: Vec<SocketAddr> = silent.map(|(addr, _)| *addr).collect();
        for addr in silent {
            self.finish(addr, false);
        }
        let mut dials = Vec::new();
        for (&addr, contact) in &mut self.contacts {
            if contact.retry_at <= now {
                contact.tries += 1;
                contact.retry_at = now + retry * (1 << (contact.tries - 1).min(MAX_TRIES));
                dials.push(Dial { addr, seq: contact.seq, cookie: contact.cookie });
            }
        }
        dials
    }

    /// A call whose contacts have all answered or failed, or whose time is up: its token, and how
    /// many answered.
    pub(super) fn take_answered(&mut self, now: Instant) -> Option<(u64, usize)> {
        let over = |waiter: &Waiter| waiter.waiting.is_empty() || waiter.deadline <= now;
        let at = self.waiters.iter().position(over)?;
        let waiter = self.waiters.swap_remove(at);
        Some((waiter.token, waiter.answered))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let contacts = self.contacts.values().map(|contact| contact.retry_at);
        contacts.chain(self.waiters.iter().map(|waiter| waiter.deadline)).min()
    }

    #[cfg(feature = "sim")]
    pub(super) fn len(&self) -> usize {
        self.contacts.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.contacts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_cookie_is_good_for_its_asker_and_for_a_while() {
        let jar = CookieJar::new(&mut ChaCha8Rng::seed_from_u64(1));
        let (now, id) = (Instant::ORIGIN, NodeId::MIN);
        let cookie = jar.cookie(now, addr(1), id);
        assert!(jar.is_good(now + Duration::from_secs(29), addr(1), id, cookie));
        assert!(!jar.is_good(now + Duration::from_secs(61), addr(1), id, cookie));
        assert!(!jar.is_good(now, addr(2), id, cookie));
        assert!(!jar.is_good(now, addr(1), NodeId::MAX, cookie));
        assert!(!jar.is_good(now, addr(1), id, 0));
    }

    #[test]
    fn contacts_are_asked_again_and_counted() {
        let mut joins = Joins::default();
        let (mut now, retry) = (Instant::ORIGIN, Duration::from_millis(100));
        joins.expect(7, vec![addr(1), addr(2)], now + Duration::from_mins(1));
        joins.dial(now, addr(1), 5);
        joins.dial(now, addr(2), 5);
        assert_eq!(joins.handle_timeout(now, retry).len(), 2);
        assert!(joins.handle_timeout(now, retry).is_empty());
        assert!(joins.expects(addr(1), 5) && !joins.expects(addr(1), 6));
        joins.again(now, addr(1), Some(99));
        let again = joins.handle_timeout(now, retry);
        assert_eq!(again, vec![Dial { addr: addr(1), seq: 5, cookie: 99 }]);
        joins.finish(addr(1), true);
        assert_eq!(joins.take_answered(now), None);
        for _ in 0..MAX_TRIES {
            now = joins.next_deadline().unwrap();
            let _ = joins.handle_timeout(now, retry);
        }
        assert!(joins.is_idle());
        assert_eq!(joins.take_answered(now), Some((7, 1)));
    }
}
