//! Which refinements over plain SWIM are in force.

#![cfg_attr(not(feature = "sim"), allow(unreachable_pub, reason = "for the simulator"))]

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
    /// The direct ping is repeated together with the indirect ones.
    pub repeated_ping: bool,
    /// A node whose probe round ended late judges nobody.
    pub self_doubt: bool,
    /// A run that rises from the dead says which generations it has reached, and is compared with
    /// at once by a few.
    pub repair_on_rise: bool,
    /// What a node has to tell first-hand goes to everybody in a few acknowledged hops.
    pub fast_path: bool,
    /// Probes carry a digest of what both nodes should know, and what differs is found by a sketch.
    pub digests: bool,
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
        repeated_ping: true,
        self_doubt: true,
        repair_on_rise: true,
        fast_path: true,
        digests: true,
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
        repeated_ping: false,
        self_doubt: false,
        repair_on_rise: false,
        fast_path: false,
        digests: false,
        drain_first: false,
    };

    /// Those of Lifeguard (2018). Its other parts follow from the configuration: local health from
    /// `max_local_health`, shrinking suspicions from `suspicion_max_mult`.
    pub const LIFEGUARD: Rules = Rules { buddy: true, ..Rules::SWIM };
}
