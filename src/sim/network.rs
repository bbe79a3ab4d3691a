//! The virtual network: takes datagrams, and delivers them later, or not.
//!
//! It knows addresses and bytes only, so that any state machine can be driven over it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::faults::{Faults, Loss, Partition, Uplink};
use crate::time::Instant;

/// Buffers that are kept for later datagrams.
const MAX_SPARE_BUFFERS: usize = 4096;

/// What a network did to the datagrams it was given.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
#[non_exhaustive]
pub struct Carried {
    /// Datagrams that were handed in.
    pub sent: u64,
    /// Their bytes (UDP payload).
    pub sent_bytes: u64,
    /// Datagrams that arrived, second copies among them.
    pub arrived: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost in a partition.
    pub cut: u64,
    /// Larger than the MTU.
    pub too_large: u64,
    /// Found no room in their sender's queue.
    pub queue_full: u64,
    /// Arrived twice.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
    /// Had bits flipped.
    pub corrupted: u64,
}

/// A datagram that has arrived; its bytes are in the buffer that was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// Who sent it.
    pub from: SocketAddr,
    /// Where it has arrived.
    pub to: SocketAddr,
}

/// Names a partition that may be healed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PartitionId(u64);

struct Flight {
    arrival: Arrival,
    bytes: Vec<u8>,
}

/// What a datagram meets on its way. All dice are thrown for each datagram, whatever faults there
/// are, so that changing one fault does not change the others.
struct Dice {
    loss: f64,
    state: f64,
    cut: f64,
    duplication: f64,
    reordering: f64,
    held_back: f64,
    corruption: f64,
    flips: u64,
    latency: [f64; 2],
    second: [f64; 2],
}

/// A network of any number of addresses with the same seeded faults between all of them.
///
/// ```
/// use rolecall::sim::{Faults, Network};
/// use rolecall::time::Instant;
///
/// let (a, b) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap());
/// let mut network = Network::new(7, Faults::default());
/// network.send(Instant::ORIGIN, a, b, b"hello");
///
/// let mut bytes = Vec::new();
/// let arrival = network.receive(&mut bytes).unwrap();
/// assert_eq!((arrival.from, arrival.to, &bytes[..]), (a, b, &b"hello"[..]));
/// assert!(arrival.at.as_micros() >= 500);
/// ```
pub struct Network {
    faults: Faults,
    /// Hosts whose uplink is not the one that all have.
    uplinks: BTreeMap<SocketAddr, Uplink>,
    /// When each host's uplink has sent what waits in it.
    busy_until: BTreeMap<SocketAddr, Instant>,
    /// Directed pairs that are ill just now.
    ill: BTreeSet<(SocketAddr, SocketAddr)>,
    partitions: BTreeMap<PartitionId, Partition>,
    partitions_made: u64,
    rng: ChaCha8Rng,
    /// By arrival, then in the order of sending; the last is the place in `flights`.
    queue: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    spare: Vec<Vec<u8>>,
    launched: u64,
    carried: Carried,
}

impl Network {
    /// A network whose chances are drawn from a seed.
    pub fn new(seed: u64, faults: Faults) -> Network {
        Network {
            faults,
            uplinks: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            ill: BTreeSet::new(),
            partitions: BTreeMap::new(),
            partitions_made: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            flights: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
            launched: 0,
            carried: Carried::default(),
        }
    }

    /// Takes a datagram.
    pub fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let dice = self.throw();
        self.carried.sent += 1;
        self.carried.sent_bytes += bytes.len() as u64;
        if self.faults.mtu.is_some_and(|mtu| bytes.len() > mtu) {
            self.carried.too_large += 1;
            return;
        }
        let Some(leaves) = self.leaves_at(now, from, bytes.len()) else {
            self.carried.queue_full += 1;
            return;
        };
        if self.is_lost((from, to), &dice) {
            self.carried.lost += 1;
            return;
        }
        let passes = |partition: &Partition| 1.0 - partition.swallows(now, from, to);
        if dice.cut >= self.partitions.values().map(passes).product::<f64>() {
            self.carried.cut += 1;
            return;
        }
        let mut at = leaves + self.faults.latency.of(from, to, dice.latency);
        if dice.reordering < self.faults.reordering {
            self.carried.reordered += 1;
            at += self.faults.reorder_by.mul_f64(dice.held_back);
        }
        let flips = if dice.corruption < self.faults.corruption {
            self.carried.corrupted += 1;
            dice.flips
        } else {
            0
        };
        self.launch(Arrival { at, from, to }, bytes, flips);
        if dice.duplication < self.faults.duplication {
            self.carried.duplicated += 1;
            let at = leaves + self.faults.latency.of(from, to, dice.second);
            self.launch(Arrival { at, from, to }, bytes, 0);
        }
    }

    /// The next datagram to arrive, its bytes put into `bytes` (whose old contents are lost).
    pub fn receive(&mut self, bytes: &mut Vec<u8>) -> Option<Arrival> {
        let Reverse((_, _, place)) = self.queue.pop()?;
        let flight = self.flights[place as usize].take().expect("what is queued is in flight");
        self.free.push(place);
        let mut buffer = std::mem::replace(bytes, flight.bytes);
        if self.spare.len() < MAX_SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
        self.carried.arrived += 1;
        Some(flight.arrival)
    }

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Replaces the faults; what is under way is not touched.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// The faults in force.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Gives a host an uplink of its own; `None` takes it away again.
    pub fn set_uplink(&mut self, addr: SocketAddr, uplink: Option<Uplink>) {
        match uplink {
            Some(uplink) => self.uplinks.insert(addr, uplink),
            None => self.uplinks.remove(&addr),
        };
    }

    /// Cuts some from others.
    pub fn partition(&mut self, partition: Partition) -> PartitionId {
        self.partitions_made += 1;
        let id = PartitionId(self.partitions_made);
        self.partitions.insert(id, partition);
        id
    }

    /// Ends a partition; nothing happens if it has ended before.
    pub fn heal(&mut self, id: PartitionId) {
        self.partitions.remove(&id);
    }

    /// Ends all partitions.
    pub fn heal_all(&mut self) {
        self.partitions.clear();
    }

    /// What has happened so far.
    pub fn carried(&self) -> Carried {
        self.carried
    }

    fn throw(&mut self) -> Dice {
        let mut die = || self.rng.random::<f64>();
        Dice {
            loss: die(),
            state: die(),
            cut: die(),
            duplication: die(),
            reordering: die(),
            held_back: die(),
            corruption: die(),
            latency: [die(), die()],
            second: [die(), die()],
            flips: self.rng.random::<u64>() | 1,
        }
    }

    /// When a datagram has left its host; `None` when there is no room for it.
    fn leaves_at(&mut self, now: Instant, from: SocketAddr, len: usize) -> Option<Instant> {
        let own = self.uplinks.get(&from);
        let Some(uplink) = own.or(self.faults.uplink.as_ref()) else { return Some(now) };
        let bytes_per_second = uplink.bytes_per_second.max(1);
        let takes = |bytes: u64| bytes.saturating_mul(1_000_000) / bytes_per_second;
        let busy_until = self.busy_until.entry(from).or_default();
        let starts = now.max(*busy_until);
        let waiting = starts.as_micros() - now.as_micros();
        if waiting > takes(uplink.queue_bytes) {
            return None;
        }
        *busy_until = Instant::from_micros(starts.as_micros() + takes(len as u64));
        Some(*busy_until)
    }

    fn is_lost(&mut self, link: (SocketAddr, SocketAddr), dice: &Dice) -> bool {
        match self.faults.loss {
            Loss::Random(share) => dice.loss < share,
            Loss::Bursts { well, ill, fall_ill, get_well } => {
                let was_ill = self.ill.contains(&link);
                if was_ill && dice.state < get_well {
                    self.ill.remove(&link);
                } else if !was_ill && dice.state < fall_ill {
                    self.ill.insert(link);
                }
                dice.loss < if was_ill { ill } else { well }
            }
        }
    }

    /// Sends bytes on their way; `flips` are the bits that change, repeated over some places.
    fn launch(&mut self, arrival: Arrival, bytes: &[u8], flips: u64) {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.extend_from_slice(bytes);
        if flips != 0 && !copy.is_empty() {
            for byte in 0..=(flips >> 61) {
                let word = flips.rotate_right(u32::try_from(byte * 16).expect("at most 128"));
                let place = usize::try_from((word >> 8) % copy.len() as u64).expect("it is less");
                copy[place] ^= 1 << (word & 7);
            }
        }
        let flight = Flight { arrival, bytes: copy };
        let place = if let Some(place) = self.free.pop() {
            self.flights[place as usize] = Some(flight);
            place
        } else {
            self.flights.push(Some(flight));
            u32::try_from(self.flights.len() - 1).expect("fewer than 2^32 datagrams fly at once")
        };
        self.launched += 1;
        self.queue.push(Reverse((arrival.at, self.launched, place)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::faults::Latency;
    use std::time::Duration;

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7946))
    }

    fn flood(faults: Faults, count: u32) -> (Carried, Vec<(Arrival, Vec<u8>)>) {
        let mut network = Network::new(3, faults);
        for n in 0..count {
            let now = Instant::from_micros(u64::from(n) * 100);
            network.send(now, addr(1), addr(2), &n.to_le_bytes());
        }
        let mut arrived = Vec::new();
        let mut bytes = Vec::new();
        while let Some(arrival) = network.receive(&mut bytes) {
            arrived.push((arrival, bytes.clone()));
        }
        (network.carried(), arrived)
    }

    #[test]
    fn nothing_goes_wrong_without_faults() {
        let latency = Latency::Fixed(Duration::from_millis(1));
        let (carried, arrived) = flood(Faults { latency, ..Faults::default() }, 1000);
        assert_eq!((carried.sent, carried.arrived), (1000, 1000));
        for (n, (arrival, bytes)) in arrived.iter().enumerate() {
            assert_eq!(arrival.at.as_micros(), n as u64 * 100 + 1000);
            assert_eq!(*bytes, u32::try_from(n).unwrap().to_le_bytes());
        }
    }

    #[test]
    fn each_fault_happens_as_often_as_it_says() {
        let near = |count: u64, share: f64| {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let found = count as f64 / 20_000.0;
            assert!((found - share).abs() < 0.015, "{found} and not {share}");
        };
        let faults = Faults {
            loss: Loss::Random(0.2),
            duplication: 0.1,
            reordering: 0.15,
            corruption: 0.05,
            ..Faults::default()
        };
        let (carried, arrived) = flood(faults, 20_000);
        near(carried.lost, 0.2);
        near(carried.duplicated, 0.8 * 0.1);
        near(carried.reordered, 0.8 * 0.15);
        near(carried.corrupted, 0.8 * 0.05);
        assert_eq!(arrived.len() as u64, 20_000 - carried.lost + carried.duplicated);
        let bursts = Loss::Bursts { well: 0.0, ill: 1.0, fall_ill: 0.02, get_well: 0.18 };
        assert!((bursts.mean() - 0.1).abs() < 1e-9);
        let (carried, arrived) = flood(Faults { loss: bursts, ..Faults::default() }, 20_000);
        near(carried.lost, 0.1);
        // In bursts: the losses lie together.
        let mut seen = vec![false; 20_000];
        for (_, bytes) in arrived {
            seen[u32::from_le_bytes(bytes.try_into().unwrap()) as usize] = true;
        }
        let gaps = seen.windows(2).filter(|pair| pair[0] && !pair[1]).count() as u64;
        assert!(gaps * 4 < carried.lost, "{gaps} gaps of {} lost", carried.lost);
    }

    #[test]
    fn uplinks_and_mtus_limit() {
        let uplink = Some(Uplink { bytes_per_second: 4000, queue_bytes: 40 });
        let (carried, arrived) = flood(Faults { uplink, ..Faults::default() }, 1000);
        // A tenth of a second at 1,000 datagrams of 4 bytes a second, and what waits.
        assert!((100..125).contains(&arrived.len()), "{}", arrived.len());
        assert_eq!(carried.queue_full + arrived.len() as u64, 1000);
        let (carried, arrived) = flood(Faults { mtu: Some(3), ..Faults::default() }, 10);
        assert_eq!((carried.too_large, arrived.len()), (10, 0));
    }

    #[test]
    fn a_masked_fault_does_not_shift_the_others() {
        let lossy = Faults { loss: Loss::Random(0.3), ..Faults::default() };
        let (_, some) = flood(lossy.clone(), 500);
        let (_, others) = flood(Faults { corruption: 0.5, ..lossy }, 500);
        let when = |all: &[(Arrival, Vec<u8>)]| -> Vec<Arrival> {
            all.iter().map(|(arrival, _)| *arrival).collect()
        };
        assert_eq!(when(&some), when(&others));
    }

    #[test]
    fn partitions_cut_until_they_are_healed() {
        let mut network = Network::new(1, Faults::default());
        let id = network.partition(Partition::between([addr(1)], [addr(2)]));
        let half = network.partition(Partition { loss: 0.5, ..Partition::towards(addr(3)) });
        network.send(Instant::ORIGIN, addr(2), addr(1), b"x");
        assert_eq!(network.next_arrival(), None);
        for _ in 0..1000 {
            network.send(Instant::ORIGIN, addr(1), addr(3), b"x");
        }
        assert!((450..550).contains(&(network.carried().cut - 1)));
        network.heal(half);
        network.heal(id);
        let before = network.carried().cut;
        network.send(Instant::ORIGIN, addr(2), addr(1), b"x");
        assert_eq!(network.carried().cut, before);
    }
}
