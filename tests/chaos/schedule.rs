//! What goes wrong and when, drawn from a seed before anything is done. It knows nothing of the
//! processes, so that a seed means the same faults however they fare.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Slots that are never killed and never told to leave: what they hold at the end shows what a long
/// life costs. All else befalls them too.
pub const ELDERS: usize = 2;

/// How often a kind of fault is in a deck. Whole decks are dealt: a short run has all kinds.
const DECK: [(Kind, usize); 11] = [
    (Kind::Restart, 3),
    (Kind::Move, 2),
    (Kind::TakeOver, 1),
    (Kind::Leave, 2),
    (Kind::Stop, 2),
    (Kind::Nap, 2),
    (Kind::Unplug, 2),
    (Kind::Mute, 1),
    (Kind::Deafen, 1),
    (Kind::Partition, 1),
    (Kind::Loss, 1),
];

/// A phase of faults lasts for so many seconds.
const PHASE_SECONDS: std::ops::Range<u64> = 15..32;
/// One in so many that are killed stays down until the calm is over.
const STAYS_DOWN: u32 = 4;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Killed; started again at the same address, with the same name.
    Restart,
    /// Killed; started again at another address, with the same name.
    Move,
    /// Killed for good; a node with another name starts at its address.
    TakeOver,
    /// Told to leave; started again.
    Leave,
    /// Stopped for longer than is tolerated.
    Stop,
    /// Stopped for less.
    Nap,
    /// The link is down.
    Unplug,
    /// What it sends is lost.
    Mute,
    /// What is sent to it is lost.
    Deafen,
    /// Several nodes are cut off from the others, in both directions.
    Partition,
    /// Any datagram may be lost.
    Loss,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Restart => "killed, restarted",
            Kind::Move => "killed, restarted elsewhere",
            Kind::TakeOver => "killed, address taken over",
            Kind::Leave => "left, rejoined",
            Kind::Stop => "stopped",
            Kind::Nap => "stopped for less than is tolerated",
            Kind::Unplug => "link down",
            Kind::Mute => "outgoing datagrams dropped",
            Kind::Deafen => "incoming datagrams dropped",
            Kind::Partition => "partition of several",
            Kind::Loss => "loss everywhere",
        }
    }

    /// How long it may last, in milliseconds.
    fn milliseconds(self) -> std::ops::Range<u64> {
        match self {
            Kind::Restart | Kind::TakeOver => 0..8_000,
            Kind::Move => 100..8_000,
            Kind::Leave => 500..8_000,
            Kind::Stop => 1_500..30_000,
            Kind::Nap => 100..600,
            Kind::Unplug | Kind::Mute | Kind::Deafen => 500..20_000,
            Kind::Partition | Kind::Loss => 3_000..20_000,
        }
    }

    fn ends_the_process(self) -> bool {
        matches!(self, Kind::Restart | Kind::Move | Kind::TakeOver | Kind::Leave)
    }
}

/// A fault of a phase.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// From the start of the phase.
    pub at: Duration,
    /// When it is mended; never, for what stays down over the calm.
    pub until: Option<Duration>,
    /// Whom it befalls; nobody for loss, which befalls all.
    pub slots: Vec<usize>,
    /// Of loss.
    pub percent: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.2} s to ", self.at.as_secs_f64())?;
        match self.until {
            Some(until) => write!(f, "{:6.2} s: ", until.as_secs_f64())?,
            None => f.write_str("the next: ")?,
        }
        f.write_str(self.kind.name())?;
        if self.kind == Kind::Loss {
            write!(f, ", {} %", self.percent)?;
        }
        let slots: Vec<String> = self.slots.iter().map(ToString::to_string).collect();
        write!(f, " {}", slots.join(" "))
    }
}

/// Faults, several at once, and then the calm.
#[derive(Clone, Debug)]
pub struct Phase {
    pub length: Duration,
    pub faults: Vec<Fault>,
    /// Who was left down by the phase before, and when they are started again.
    pub back: Vec<(Duration, usize)>,
}

/// All phases of a seed, one after the other.
pub struct Schedule {
    rng: ChaCha8Rng,
    slots: usize,
    deck: Vec<Kind>,
    down: BTreeSet<usize>,
}

impl Schedule {
    pub fn new(seed: u64, slots: usize) -> Schedule {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Schedule { rng, slots, deck: Vec::new(), down: BTreeSet::new() }
    }

    pub fn next_phase(&mut self) -> Phase {
        let length = Duration::from_secs(self.rng.random_range(PHASE_SECONDS));
        let moment =
            |rng: &mut ChaCha8Rng, share: f64| length.mul_f64(rng.random_range(0.0..share));
        let down = std::mem::take(&mut self.down);
        let mut back = Vec::new();
        // Until when something befalls a slot; the two last are for partitions and loss.
        let mut busy = vec![Duration::ZERO; self.slots + 2];
        for slot in down {
            let at = moment(&mut self.rng, 0.3);
            busy[slot] = at + Duration::from_secs(1);
            back.push((at, slot));
        }
        let count = self.rng.random_range(self.slots / 2..=self.slots).max(6);
        let mut times: Vec<Duration> = (0..count).map(|_| moment(&mut self.rng, 0.9)).collect();
        times.sort_unstable();
        let faults = times.into_iter().filter_map(|at| self.draw(at, length, &mut busy)).collect();
        Phase { length, faults, back }
    }

    /// A fault, unless there is nobody whom it could befall then.
    fn draw(&mut self, at: Duration, length: Duration, busy: &mut [Duration]) -> Option<Fault> {
        let kind = self.deal();
        let milliseconds = self.rng.random_range(kind.milliseconds());
        let until = (at + Duration::from_millis(milliseconds)).min(length);
        let stays_down = kind == Kind::Restart && self.rng.random_ratio(1, STAYS_DOWN);
        let (percent, size) = (self.rng.random_range(5..=30), self.rng.random_range(0.0..1.0));
        let first = if kind.ends_the_process() { ELDERS } else { 0 };
        let mut slots: Vec<usize> = (first..self.slots).collect();
        slots.shuffle(&mut self.rng);
        match kind {
            Kind::Partition | Kind::Loss => {
                let place = self.slots + usize::from(kind == Kind::Loss);
                if busy[place] > at {
                    return None;
                }
                busy[place] = until;
                slots.truncate(if kind == Kind::Loss { 0 } else { side(size, self.slots) });
            }
            _ => {
                slots.retain(|slot| busy[*slot] <= at);
                slots.truncate(1);
                let slot = *slots.first()?;
                busy[slot] = until + Duration::from_millis(500);
                if stays_down {
                    busy[slot] = Duration::MAX;
                    self.down.insert(slot);
                }
            }
        }
        slots.sort_unstable();
        let until = (!stays_down).then_some(until);
        Some(Fault { kind, at, until, slots, percent })
    }

    fn deal(&mut self) -> Kind {
        if self.deck.is_empty() {
            for (kind, count) in DECK {
                self.deck.extend(std::iter::repeat_n(kind, count));
            }
            self.deck.shuffle(&mut self.rng);
        }
        self.deck.pop().expect("it was filled")
    }
}

/// How many are on the smaller side of a partition: two at least, less than half.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn side(size: f64, slots: usize) -> usize {
    let most = ((slots - 1) / 2).max(2);
    2 + (size * (most - 1) as f64) as usize
}
