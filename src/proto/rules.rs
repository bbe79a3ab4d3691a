//! Which refinements over plain SWIM are in force.

#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "for the simulator"))]

/// The numbers that SWIM and Lifeguard leave to who runs them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Classic {
    /// A suspicion lasts at least `alpha * max(1, log10(n)) * probe_interval` in a cluster of `n`
    /// nodes (Lifeguard, section V).
    pub alpha: u32,
    /// An unconfirmed suspicion lasts at most this many times that.
    pub beta: u32,
    /// The ceiling of the local health multiplier; 0 switches it off.
    pub max_local_health: u32,
    /// How many members are asked to probe a silent one (SWIM's k).
    pub indirect_probes: usize,
}

#[cfg(feature = "sim")]
impl Classic {
    /// What the Lifeguard paper uses (sections IV and V).
    pub const LIFEGUARD: Classic =
        Classic { alpha: 5, beta: 6, max_local_health: 8, indirect_probes: 3 };
}

/// The refinements over plain SWIM, each by itself: all are in force, except where an experiment
/// asks what one of them is worth.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// A suspect is told first, by whatever is sent to it (Lifeguard, section IV.C).
    pub buddy: bool,
    /// A refutation also goes straight back to whoever told of the suspicion.
    pub direct_refutation: bool,
    /// The first gossip round of fresh news does not wait for its interval.
    pub eager_gossip: bool,
    /// Gossip also goes to the next member by id.
    pub successor_gossip: bool,
    /// A run that rises from the dead says which generations it has reached, and is compared with
    /// at once by a few.
    pub repair_on_rise: bool,
    /// What a node has to tell first-hand goes to everybody in a few acknowledged hops.
    pub fast_path: bool,
    /// Probes carry a digest of what both nodes should know, and what differs is found by a sketch.
    pub digests: bool,
    /// Probes and suspicions are as in the papers, instead of a ring, witnesses and measured round
    /// trips.
    pub classic: Option<Classic>,
    /// What has arrived is read before timers are looked at. The driver's rule, not the protocol's.
    pub drain_first: bool,
}

impl Rules {
    /// All of them: what runs outside of experiments.
    pub const ALL: Rules = Rules {
        buddy: true,
        direct_refutation: true,
        eager_gossip: true,
        successor_gossip: true,
        repair_on_rise: true,
        fast_path: true,
        digests: true,
        classic: None,
        drain_first: true,
    };
}

#[cfg(feature = "sim")]
impl Rules {
    /// None of them, as in SWIM (DSN 2002).
    pub const SWIM: Rules = Rules {
        buddy: false,
        direct_refutation: false,
        eager_gossip: false,
        successor_gossip: false,
        repair_on_rise: false,
        fast_path: false,
        digests: false,
        classic: Some(Classic { beta: 1, max_local_health: 0, ..Classic::LIFEGUARD }),
        drain_first: false,
    };

    /// Those of Lifeguard (2018), section V.
    pub const LIFEGUARD: Rules =
        Rules { buddy: true, classic: Some(Classic::LIFEGUARD), ..Rules::SWIM };
}
