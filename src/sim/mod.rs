//! The deterministic simulator.

mod faults;
mod network;

pub use faults::{Faults, Flapping, Latency, Loss, Partition, Side, Uplink};
pub use network::{Arrival, Carried, Network, PartitionId};
