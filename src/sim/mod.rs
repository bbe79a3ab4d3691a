//! A deterministic simulator: the very same state machines that run on sockets, in virtual time,
//! over a network whose faults are data.
//!
//! Feature `sim`. A [`Simulation`] is one thread's work and depends on nothing but its seed: the
//! same seed and the same calls give the same trace, to the byte. With it a user finds out how a
//! service sees a partition, before the network does; and every decision about the protocol is
//! taken with it.
//!
//! ```
//! use rolecall::sim::{HostSpec, Partition, Simulation};
//! use rolecall::{Config, ScopeName};
//! use std::time::Duration;
//!
//! let mut sim = Simulation::new(42, Config::lan());
//! let seed = sim.start(HostSpec::new("a").scope("default", ["web"]));
//! let spec = |name| HostSpec::new(name).seeds([sim.addr(seed)]).scope("default", ["web"]);
//! let (b, c) = (spec("b"), spec("c"));
//! let (b, c) = (sim.start(b), sim.start(c));
//! sim.run(Duration::from_secs(5));
//!
//! // What the service on `a` reads: the same maps as behind `Scope::nodes`.
//! let web = sim.view(seed).scope(&ScopeName::new("default").unwrap());
//! assert_eq!(web.nodes("web").names(), ["a", "b", "c"]);
//!
//! // For 40 seconds `c` is cut off; then it is back without an operator.
//! let cut = sim.partition(Partition::around(sim.addr(c)));
//! sim.run(Duration::from_secs(40));
//! assert_eq!(web.nodes("web").names(), ["a", "b"]);
//! sim.heal(cut);
//! sim.run(Duration::from_secs(40));
//! assert_eq!(web.nodes("web").names(), ["a", "b", "c"]);
//! ```
//!
//! # Reading order
//! `faults` (what can go wrong), `network` (which does it to datagrams), `host` (what runs, and its
//! clock), `simulation` (what its user holds), `turns` (the loop), [`scenario`] (experiments),
//! [`lifeguard`] (a paper's), [`checks`] (what must hold), [`weather`] (chaos drawn from a seed),
//! [`swarm`] (many seeds of it).

pub mod checks;
mod faults;
mod host;
pub mod lifeguard;
mod network;
pub mod scenario;
mod simulation;
pub mod swarm;
mod turns;
pub mod weather;

pub use faults::{Faults, Flapping, Latency, Loss, Partition, Side, Uplink};
pub use host::{Activity, HostId, HostSpec};
pub use network::{Arrival, Carried, Network, PartitionId};
pub use simulation::{Heard, Simulation};
