//! What can go wrong on the way, as data: given by hand or drawn from a seed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rand::{Rng, RngExt};

use crate::time::Instant;

/// How long a datagram is under way, one way.
///
/// ```
/// use rolecall::sim::Latency;
/// use std::time::Duration;
///
/// let lan = Latency::default();
/// assert_eq!(lan.floor(), Duration::from_micros(500));
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Anything between the two, each equally likely.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// Mostly about the median, sometimes much more: what a busy network looks like. Never more
    /// than 100 times the median.
    LogNormal {
        /// Half are quicker.
        median: Duration,
        /// Standard deviation of the logarithm; 0.5 puts the 99th percentile at 3.2 medians.
        sigma: f64,
    },
    /// Two zones, hosts with an even last byte of their IP address and those with an odd one: near
    /// within a zone, far between them. Each is spread by a tenth either way.
    TwoZones {
        /// Within a zone.
        near: Duration,
        /// Between the zones.
        far: Duration,
    },
}

impl Latency {
    /// The shortest that it ever is.
    pub fn floor(self) -> Duration {
        match self {
            Latency::Fixed(always) => always,
            Latency::Uniform { min, .. } => min,
            Latency::LogNormal { .. } => Duration::ZERO,
            Latency::TwoZones { near, .. } => near.mul_f64(0.9),
        }
    }

    /// The latency of one datagram, from two dice in `0..1`.
    pub(super) fn of(self, from: SocketAddr, to: SocketAddr, dice: [f64; 2]) -> Duration {
        match self {
            Latency::Fixed(always) => always,
            Latency::Uniform { min, max } => min + max.saturating_sub(min).mul_f64(dice[0]),
            Latency::LogNormal { median, sigma } => {
                // Box and Muller 1958; one die must not be zero.
                let radius = (-2.0 * (1.0 - dice[0]).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * dice[1]).cos();
                median.mul_f64((sigma * normal).exp().min(100.0))
            }
            Latency::TwoZones { near, far } => {
                let base = if zone(from) == zone(to) { near } else { far };
                base.mul_f64(0.9 + 0.2 * dice[0])
            }
        }
    }
}

impl Default for Latency {
    /// A data centre's network: 0.5 to 1.5 ms.
    fn default() -> Latency {
        Latency::Uniform { min: Duration::from_micros(500), max: Duration::from_micros(1500) }
    }
}

fn zone(addr: SocketAddr) -> u8 {
    let last = match addr {
        SocketAddr::V4(addr) => addr.ip().octets()[3],
        SocketAddr::V6(addr) => addr.ip().octets()[15],
    };
    last & 1
}

/// Which datagrams never arrive.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Loss {
    /// This share of all, each for itself.
    Random(f64),
    /// In bursts: each directed pair of addresses is either well or ill, and changes from one to
    /// the other with every datagram by chance (Gilbert 1960, Elliott 1963).
    Bursts {
        /// The share lost while the pair is well.
        well: f64,
        /// The share lost while it is ill.
        ill: f64,
        /// The chance to fall ill, per datagram.
        fall_ill: f64,
        /// The chance to get well, per datagram.
        get_well: f64,
    },
}

impl Loss {
    /// The share lost in the long run.
    pub fn mean(self) -> f64 {
        match self {
            Loss::Random(share) => share,
            Loss::Bursts { well, ill, fall_ill, get_well } => {
                let both = fall_ill + get_well;
                let share_ill = if both == 0.0 { 0.0 } else { fall_ill / both };
                ill * share_ill + well * (1.0 - share_ill)
            }
        }
    }
}

/// What a host can send and keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// Bytes of UDP payload that leave per second.
    pub bytes_per_second: u64,
    /// Bytes that may wait for that; a datagram that finds no room is lost.
    pub queue_bytes: u64,
}

/// The faults of a network, for all its links alike.
///
/// ```
/// use rolecall::sim::{Faults, Loss};
///
/// let faults = Faults { loss: Loss::Random(0.05), duplication: 0.01, ..Faults::default() };
/// assert_eq!(faults.loss.mean(), 0.05);
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Faults {
    /// How long datagrams are under way.
    pub latency: Latency,
    /// Which never arrive.
    pub loss: Loss,
    /// The share that arrives twice.
    pub duplication: f64,
    /// The share that is held back by up to [`reorder_by`](Faults::reorder_by), so that later ones
    /// overtake it.
    pub reordering: f64,
    /// How long those are held back at most.
    pub reorder_by: Duration,
    /// The share in which some bits flip.
    pub corruption: f64,
    /// Larger datagrams vanish, as where ICMP is filtered; `None` for no limit.
    pub mtu: Option<usize>,
    /// What each host can send; `None` for no limit.
    pub uplink: Option<Uplink>,
}

impl Default for Faults {
    /// None at all, and a data centre's latency.
    fn default() -> Faults {
        Faults {
            latency: Latency::default(),
            loss: Loss::Random(0.0),
            duplication: 0.0,
            reordering: 0.0,
            reorder_by: Duration::from_millis(20),
            corruption: 0.0,
            mtu: None,
            uplink: None,
        }
    }
}

/// Some of the hosts, by address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Side {
    /// Whoever there is.
    All,
    /// These.
    Only(BTreeSet<SocketAddr>),
    /// Whoever is not one of these.
    AllBut(BTreeSet<SocketAddr>),
}

impl Side {
    /// One host.
    pub fn one(addr: SocketAddr) -> Side {
        Side::Only(BTreeSet::from([addr]))
    }

    fn holds(&self, addr: SocketAddr) -> bool {
        match self {
            Side::All => true,
            Side::Only(some) => some.contains(&addr),
            Side::AllBut(some) => !some.contains(&addr),
        }
    }
}

/// A fault that comes and goes: `bad` for so long, then `good` for so long, and over again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flapping {
    /// The fault is there.
    pub bad: Duration,
    /// It is not.
    pub good: Duration,
    /// When the first `bad` begins.
    pub from: Instant,
}

/// Datagrams from one side to the other are lost: all or some, one way or both, always or flapping.
///
/// ```
/// use rolecall::sim::Partition;
///
/// let addr = |text: &str| text.parse().unwrap();
/// let whole = Partition::between([addr("10.0.0.1:1")], [addr("10.0.0.2:1"), addr("10.0.0.3:1")]);
/// assert!(whole.both_ways);
/// let deaf = Partition::towards(addr("10.0.0.1:1"));
/// let sick = Partition { loss: 0.8, ..deaf };
/// assert!(!sick.both_ways);
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Partition {
    /// Who sends.
    pub from: Side,
    /// Who does not receive.
    pub to: Side,
    /// Whether it holds in the other direction too.
    pub both_ways: bool,
    /// The share that is lost.
    pub loss: f64,
    /// When it is there; `None` for always.
    pub flapping: Option<Flapping>,
}

impl Partition {
    /// Neither side hears the other.
    pub fn between(
        left: impl IntoIterator<Item = SocketAddr>,
        right: impl IntoIterator<Item = SocketAddr>,
    ) -> Partition {
        let (from, to) = (left.into_iter().collect(), right.into_iter().collect());
        Partition {
            from: Side::Only(from),
            to: Side::Only(to),
            both_ways: true,
            loss: 1.0,
            flapping: None,
        }
    }

    /// A host hears nobody and nobody hears it.
    pub fn around(addr: SocketAddr) -> Partition {
        Partition { both_ways: true, ..Partition::towards(addr) }
    }

    /// A host hears nobody; the others hear it.
    pub fn towards(addr: SocketAddr) -> Partition {
        Partition {
            from: Side::All,
            to: Side::one(addr),
            both_ways: false,
            loss: 1.0,
            flapping: None,
        }
    }

    /// Nobody hears a host; it hears the others.
    pub fn away_from(addr: SocketAddr) -> Partition {
        let towards = Partition::towards(addr);
        Partition { from: towards.to, to: towards.from, ..towards }
    }

    /// What share it swallows of what goes from here to there now.
    pub(super) fn swallows(&self, now: Instant, from: SocketAddr, to: SocketAddr) -> f64 {
        let concerns = (self.from.holds(from) && self.to.holds(to))
            || (self.both_ways && self.from.holds(to) && self.to.holds(from));
        let active = self.flapping.is_none_or(|flapping| {
            let cycle = (flapping.bad + flapping.good).as_micros().max(1);
            now >= flapping.from
                && (now - flapping.from).as_micros() % cycle < flapping.bad.as_micros()
        });
        if concerns && active { self.loss } else { 0.0 }
    }
}

/// Faults as a seed draws them: mostly mild, sometimes harsh, each kind sometimes absent.
pub(super) fn draw(rng: &mut impl Rng) -> Faults {
    let mut sometimes = |chance: f64, upto: f64| {
        let (there, value) = (rng.random_bool(chance), rng.random_range(0.0..upto));
        if there { value } else { 0.0 }
    };
    let loss = sometimes(0.6, 0.25);
    let mut faults = Faults {
        loss: Loss::Random(loss),
        duplication: sometimes(0.4, 0.2),
        reordering: sometimes(0.4, 0.2),
        corruption: sometimes(0.3, 0.05),
        ..Faults::default()
    };
    let micros = |rng: &mut _, from: u64, to: u64| {
        Duration::from_micros(RngExt::random_range(rng, from..to))
    };
    faults.reorder_by = micros(rng, 1000, 300_000);
    faults.latency = match rng.random_range(0..5) {
        4 => Latency::Uniform { min: micros(rng, 100, 5000), max: micros(rng, 5000, 200_000) },
        0 => Latency::Fixed(micros(rng, 100, 5000)),
        1 => Latency::LogNormal { median: micros(rng, 300, 5000), sigma: 0.6 },
        2 => Latency::TwoZones { near: micros(rng, 200, 2000), far: micros(rng, 2000, 40_000) },
        _ => Latency::default(),
    };
    if rng.random_bool(0.2) {
        faults.loss = Loss::Bursts { well: loss / 4.0, ill: 0.8, fall_ill: 0.02, get_well: 0.2 };
    }
    if rng.random_bool(0.15) {
        let bytes_per_second = rng.random_range(20_000..1_000_000);
        faults.uplink = Some(Uplink { bytes_per_second, queue_bytes: 64 << 10 });
    }
    faults
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "shares that are all or nothing")]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7946))
    }

    fn latencies(latency: Latency, to: SocketAddr) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut all: Vec<f64> = (0..10_000)
            .map(|_| latency.of(addr(0), to, [rng.random(), rng.random()]).as_secs_f64() * 1e3)
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn latencies_are_distributed_as_they_say() {
        let ms = Duration::from_millis;
        let uniform = latencies(Latency::Uniform { min: ms(2), max: ms(4) }, addr(1));
        assert!(uniform[0] >= 2.0 && uniform[9999] <= 4.0);
        assert!((uniform[5000] - 3.0).abs() < 0.05, "{}", uniform[5000]);
        let busy = latencies(Latency::LogNormal { median: ms(2), sigma: 0.5 }, addr(1));
        assert!((busy[5000] - 2.0).abs() < 0.06, "{}", busy[5000]);
        assert!((busy[9900] / busy[5000] - 3.2).abs() < 0.25, "{}", busy[9900]);
        let zones = Latency::TwoZones { near: ms(1), far: ms(50) };
        assert!(latencies(zones, addr(2))[9999] <= 1.1);
        assert!(latencies(zones, addr(1))[0] >= 45.0);
    }

    #[test]
    fn partitions_hold_in_their_direction_and_in_their_time() {
        let now = Instant::ORIGIN;
        let deaf = Partition::towards(addr(1));
        assert_eq!(deaf.swallows(now, addr(2), addr(1)), 1.0);
        assert_eq!(deaf.swallows(now, addr(1), addr(2)), 0.0);
        let mute = Partition::away_from(addr(1));
        assert_eq!(mute.swallows(now, addr(2), addr(1)), 0.0);
        assert_eq!(mute.swallows(now, addr(1), addr(2)), 1.0);
        let second = Duration::from_secs(1);
        let flapping = Some(Flapping { bad: second, good: 2 * second, from: now + second });
        let flapping = Partition { flapping, ..Partition::around(addr(1)) };
        let share = |after: u32| flapping.swallows(now + second * after, addr(1), addr(2));
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(share), [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    }
}
