//! Plain counters, by value.

use serde::Serialize;

use crate::node::NodeName;

/// What a node has done and seen since it started, and what it holds now.
///
/// Counters only grow; `members` to `reclaim_pending_bytes` are of this moment.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let cluster = rolecall::Cluster::builder("a").bind("127.0.0.1:0").start().await.unwrap();
/// let stats = cluster.stats();
/// assert_eq!(stats.members, 1);
/// assert_eq!(stats.dropped.total(), 0);
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Datagrams received, before any check.
    pub datagrams_in: u64,
    /// Bytes received (UDP payload).
    pub bytes_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Bytes sent (UDP payload).
    pub bytes_out: u64,
    /// Datagrams and bytes received, by the kind of the first frame; kinds never seen are left out.
    pub received: Vec<Traffic>,
    /// Datagrams and bytes sent, by the kind of the first frame; kinds never sent are left out.
    pub sent: Vec<Traffic>,
    /// What was dropped, by reason.
    pub dropped: Dropped,
    /// Probes begun, by a round, a doubt or a hint.
    pub probes: u64,
    /// Suspicions begun by this node: a peer did not answer it, and witnesses were asked.
    pub suspicions: u64,
    /// Times that this node refuted a claim that it has failed.
    pub refutations: u64,
    /// Verdicts of failure that this node reached by itself.
    pub verdicts: u64,
    /// Parts of an audience that were given to others on the fast path.
    pub hops: u64,
    /// Those given to another member, or again, because no acknowledgement came in time.
    pub hops_repeated: u64,
    /// Those given up, and left to gossip.
    pub hops_given_up: u64,
    /// Those left to gossip because `gossip_bytes_per_second` were used up.
    pub hops_over_budget: u64,
    /// Comparisons begun, those by the digest on a probe among them, and pulls.
    pub pulls: u64,
    /// Those that did not complete.
    pub pulls_failed: u64,
    /// Deltas of roles taken in.
    pub deltas: u64,
    /// Deltas that began above what was known, so that the rest was fetched.
    pub gaps: u64,
    /// Objects asked for by name (gaps, unknown profiles, large ones).
    pub fetches: u64,
    /// Events dropped for slow subscribers, in all.
    pub events_missed: u64,
    /// Calls of the event handler that panicked.
    pub handler_panics: u64,
    /// Errors of the socket that were survived.
    pub socket_errors: u64,
    /// Times that the system said that nobody listens at an address (ICMP; Linux only).
    pub hints_unreachable: u64,
    /// Times that a [tether](crate::Config::tethers) to a live member closed without a farewell.
    pub hints_tether_closed: u64,
    /// Incoming connections that were closed because they were no tether from a member, or one too
    /// many.
    pub tethers_refused: u64,
    /// Live members, this node included.
    pub members: usize,
    /// Members that are suspected.
    pub suspects: usize,
    /// The names of peers that this node's probes reached only through others, three times in a row
    /// or more: a link that is blocked, or works one way only.
    pub reached_indirectly: Vec<NodeName>,
    /// Dead runs that are remembered.
    pub dead: usize,
    /// Scopes that this node is in.
    pub scopes: usize,
    /// What the roles of the living count for
    /// [`max_total_role_bytes`](crate::Config::max_total_role_bytes), in bytes.
    pub role_bytes: u64,
    /// Members that prefer another key than the one this node sends with, of those that it has
    /// heard; a node that changes its key tells all at once. 0 without a keyring, or with one key;
    /// also where the ids of both keys end with the same byte, as one pair in 256 does.
    pub members_on_other_keys: usize,
    /// Local health: 0 is well (Lifeguard, section IV.A).
    pub local_health: u32,
    /// Whether this node was declared down repeatedly, and stays out until it has been without
    /// trouble for 30 probe intervals.
    pub on_probation: bool,
    /// Updates that still ride on datagrams.
    pub piggyback_queue: usize,
    /// Objects asked for and not yet here.
    pub fetch_queue: usize,
    /// Pulls under way.
    pub pull_sessions: usize,
    /// Datagrams that wait for the socket.
    pub send_queue: usize,
    /// Tethers to others that hold.
    pub tethers_out: usize,
    /// Tethers from others that hold.
    pub tethers_in: usize,
    /// Memory that waits until no reader can see it, in bytes.
    pub reclaim_pending_bytes: usize,
}

/// Datagrams of one kind.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # let cluster = rolecall::Cluster::builder("a").bind("127.0.0.1:0").start().await.unwrap();
/// for traffic in cluster.stats().sent {
///     println!("{}: {} datagrams, {} bytes", traffic.kind, traffic.datagrams, traffic.bytes);
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Traffic {
    /// The kind of the first frame.
    pub kind: &'static str,
    /// How many datagrams.
    pub datagrams: u64,
    /// Their bytes (UDP payload).
    pub bytes: u64,
}

/// What was dropped, by reason.
///
/// ```
/// let dropped = rolecall::Dropped::default();
/// assert_eq!(dropped.total(), 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Dropped {
    /// Not a datagram of this protocol: length, magic, flags.
    pub foreign: u64,
    /// Of another major version of the protocol.
    pub other_version: u64,
    /// Of another cluster.
    pub other_cluster: u64,
    /// Changed on the way, or forged: the checksum or the seal is wrong.
    pub corrupt: u64,
    /// Not sealed, where this node has a keyring; or sealed, where it has none.
    pub no_key: u64,
    /// Sealed with a key that is not in this node's keyring.
    pub wrong_key: u64,
    /// Sealed and genuine, but seen before.
    pub replayed: u64,
    /// A malformed frame, or too many of them.
    pub malformed: u64,
    /// Meant for another run at this address.
    pub other_run: u64,
    /// A request that only a member may make, from somebody who is none.
    pub stranger: u64,
    /// A claim that contradicts itself, or cannot be: a number out of reach, a run that is not
    /// known.
    pub refused: u64,
    /// A profile, or a node's roles in a scope, that would exceed a limit of
    /// [`Config`](crate::Config).
    pub over_limit: u64,
    /// Outgoing datagrams, because the queue to the socket was full, or because the limit on their
    /// size was lowered while they waited in it.
    pub send_queue_full: u64,
}

impl Dropped {
    /// All of them together.
    pub fn total(&self) -> u64 {
        self.foreign
            + self.other_version
            + self.other_cluster
            + self.corrupt
            + self.no_key
            + self.wrong_key
            + self.replayed
            + self.malformed
            + self.other_run
            + self.stranger
            + self.refused
            + self.over_limit
            + self.send_queue_full
    }
}
