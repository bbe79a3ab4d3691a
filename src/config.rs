//! Every knob: what it means, its unit, its default, and where the number comes from.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::role::MAX_ROLE_BYTES;

/// The protocol's tuning. Start from a preset and change what you must.
///
/// | preset | for | a pause is tolerated up to | a crash is known after about |
/// |---|---|---|---|
/// | [`Config::local`] | tests and demos on one machine | 1 s | 1.4 s |
/// | [`Config::lan`] (default) | one data centre | 1 s | 1.8 s |
/// | [`Config::wan`] | across continents | 5 s | 9 s |
///
/// Where to be on the way from quick to cautious is one knob,
/// [`pause_tolerance`](Config::pause_tolerance); how long answers are waited for follows from
/// measured round-trip times.
///
/// It deserialises from TOML (or any serde format); a missing key has its `lan` value, an unknown
/// key is an error, durations are text such as `"500ms"`.
///
/// ```
/// use rolecall::Config;
/// use std::time::Duration;
///
/// let config: Config = toml::from_str(r#"
///     probe_interval = "2s"
///     gossip_fanout = 5
/// "#).unwrap();
/// assert_eq!(config.probe_interval, Duration::from_secs(2));
/// assert_eq!(config.pull_interval, Config::lan().pull_interval);
/// config.validate().unwrap();
///
/// let mut quick = Config::lan();
/// quick.gossip_interval = Duration::from_millis(50);
/// quick.validate().unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(documented::DocumentedFields))]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Into how many parts a node splits those whom it has to tell; each part gets one datagram,
    /// and its receiver splits it again. Also to how many random members it gossips per round what
    /// could not be told so. 1 to 64; default 8 (by simulation: 1,000 nodes know a change after
    /// 8.7, 6.7, 5.6 and 4.3 ms with 3, 5, 8 and 12, for the same bytes). More sends more at once.
    pub gossip_fanout: usize,
    /// Pause between rounds of gossip, which tells what could not be told directly; the first round
    /// of a fresh update does not wait for it. 1 ms to 60 s; default 200 ms (memberlist's LAN
    /// default).
    #[serde(with = "duration_text")]
    pub gossip_interval: Duration,
    /// What a node may send in a second to spread news, in bytes (UDP payload); up to a second's
    /// worth is saved up. What it cannot send at once is left to gossip, and later gossip. 1,024
    /// to 2^30; default 262,144 (a guess: 2 Mbit/s, some 2,500 changes a second).
    pub gossip_bytes_per_second: usize,
    /// Each node probes one other per interval (SWIM, section 3.1), stretched by local health.
    /// 10 ms to 10 min; default 1 s (SWIM's and memberlist's). The time to detect a crash grows
    /// in proportion.
    #[serde(with = "duration_text")]
    pub probe_interval: Duration,
    /// A node that stops for less than this (a garbage collector, a virtual machine that moves) is
    /// never declared down: nobody is before somebody saw that much silence. The knob between
    /// quick and cautious: a crash is known about half a `probe_interval` and this later. 50 ms to
    /// 10 min; default 1 s.
    #[serde(with = "duration_text")]
    pub pause_tolerance: Duration,
    /// An update rides on `retransmit_mult * ceil(log10(n + 1))` datagrams of each node that hears
    /// it, where `n` nodes are to hear it (SWIM's lambda). 1 to 64; default 4 (memberlist's).
    pub retransmit_mult: u32,
    /// Each node compares what it knows with a random peer at least this often, and fetches what
    /// differs; probes do that too. 100 ms to 1 h; default 7 s (`ClusterHelper`'s).
    #[serde(with = "duration_text")]
    pub pull_interval: Duration,
    /// A pull that has not finished by then is given up; the next one starts over. Also bounds how
    /// long a new node's roles may hold its node-up back. 10 ms to 10 min; default 5 s
    /// (`ClusterHelper`'s).
    #[serde(with = "duration_text")]
    pub pull_timeout: Duration,
    /// No datagram that this node sends is larger (UDP payload). 512 to 65,507; default 1,400,
    /// which fits an Ethernet frame with room for tunnels.
    pub max_datagram_bytes: usize,
    /// How long the dead are remembered, so that old gossip cannot raise them, and tried again; of
    /// more than 4,096 the longest dead are forgotten sooner. 1 s to 30 days; default 24 h (serf's
    /// `reconnect_timeout`).
    #[serde(with = "duration_text")]
    pub dead_retention: Duration,
    /// How often one of the failed nodes, and one seed that is not a member, is tried again, so
    /// that a healed partition merges by itself. A node that is alone tries its seeds sooner at
    /// first: after a 32nd of it, then twice that, and so on. 10 ms to 1 h; default 10 s (a guess:
    /// serf has 30 s).
    #[serde(with = "duration_text")]
    pub reconnect_interval: Duration,
    /// `start()` waits this long for a seed to answer before the node runs alone and keeps trying.
    /// 10 ms to 10 min; default 3 s.
    #[serde(with = "duration_text")]
    pub join_timeout: Duration,
    /// To how many of the next members, in the order of their ids, a node holds a *tether*: an idle
    /// TCP connection on the port of its UDP socket, which says nothing and closes when the process
    /// at either end dies. So a crash is known within milliseconds where the host itself lives on.
    /// As many come in as go out, whatever the size of the cluster. 0 to 8; default 2; 0 opens no
    /// TCP socket at all. Where TCP is blocked there is no tether, and nothing else changes.
    pub tethers: usize,
    /// `leave()` waits this long for the goodbye to be acknowledged. 10 ms to 10 min; default 2 s.
    #[serde(with = "duration_text")]
    pub leave_timeout: Duration,
    /// The socket's receive buffer (`SO_RCVBUF`), as far as the system allows; a log line (debug)
    /// says when it is smaller. 8 KiB to 256 MiB; default 4 MiB. Read at start only.
    pub receive_buffer_bytes: usize,
    /// Events that one subscriber may have waiting before it misses some. 16 to 16,777,216; default
    /// 65,536. Read when a subscription starts.
    pub event_capacity: usize,
    /// Runs that this node keeps, the living and the remembered dead; past it the longest dead are
    /// forgotten, and when all are alive no other gets in. Each costs up to 5 KiB, most of it
    /// metadata, and 16 bytes a scope. 2 to 131,072; default 131,072 (a guess: ten times the
    /// largest cluster that was simulated). This and the limits that follow are quotas: what
    /// another node says past them is refused as a whole, with one
    /// [`Event::LimitReached`](crate::Event::LimitReached), and nothing of it is kept. All nodes of
    /// a cluster need the same: one with less does not see what the others see. Lowered at run
    /// time, they drop nothing that is there, and only refuse growth.
    pub max_nodes: usize,
    /// Scopes that a node can be in. 1 to 256; default 256 (the most that the wire format takes).
    pub max_scopes_per_node: usize,
    /// Roles of a node in one scope. 1 to 65,536; default 65,536 (the most that the wire format
    /// takes).
    pub max_roles_per_node: usize,
    /// Encoded bytes of one role. 16 to 4,096; default 4,096
    /// ([`MAX_ROLE_BYTES`](crate::MAX_ROLE_BYTES)).
    pub max_role_bytes: usize,
    /// Encoded bytes of all roles of a node in one scope. 1,024 to 4,194,304; default 4 MiB (the
    /// most that the wire format takes).
    pub max_node_role_bytes: usize,
    /// Bytes of all roles that living nodes hold in the scopes of this one, its own among them.
    /// Each counts its encoded bytes and 64 more for its place in the tables (a guess; the
    /// published maps, which come on top, are in proportion). Roles that were given up, and those
    /// of the dead, are remembered as long as they fit in beside, and a 64th of the limit in any
    /// case. 65,536 to 2^40; default 1 GiB (a guess: a million roles of a thousand bytes).
    pub max_total_role_bytes: u64,
}

impl Config {
    /// For nodes on one machine: tests, demos. Quick, at the price of more datagrams.
    pub fn local() -> Config {
        Config {
            gossip_interval: Duration::from_millis(50),
            probe_interval: Duration::from_millis(300),
            reconnect_interval: Duration::from_secs(2),
            ..Config::lan()
        }
    }

    /// For nodes in one data centre. The default.
    pub fn lan() -> Config {
        Config {
            gossip_fanout: 8,
            gossip_interval: Duration::from_millis(200),
            gossip_bytes_per_second: 256 << 10,
            probe_interval: Duration::from_secs(1),
            pause_tolerance: Duration::from_secs(1),
            retransmit_mult: 4,
            pull_interval: Duration::from_secs(7),
            pull_timeout: Duration::from_secs(5),
            max_datagram_bytes: 1400,
            dead_retention: Duration::from_hours(24),
            reconnect_interval: Duration::from_secs(10),
            join_timeout: Duration::from_secs(3),
            tethers: 2,
            leave_timeout: Duration::from_secs(2),
            receive_buffer_bytes: 4 << 20,
            event_capacity: 65_536,
            max_nodes: 131_072,
            max_scopes_per_node: 256,
            max_roles_per_node: 65_536,
            max_role_bytes: MAX_ROLE_BYTES,
            max_node_role_bytes: 4 << 20,
            max_total_role_bytes: 1 << 30,
        }
    }

    /// For nodes far apart: memberlist's WAN figures.
    pub fn wan() -> Config {
        Config {
            gossip_interval: Duration::from_millis(500),
            probe_interval: Duration::from_secs(5),
            pause_tolerance: Duration::from_secs(5),
            pull_interval: Duration::from_secs(30),
            pull_timeout: Duration::from_secs(20),
            reconnect_interval: Duration::from_secs(30),
            join_timeout: Duration::from_secs(10),
            leave_timeout: Duration::from_secs(5),
            ..Config::lan()
        }
    }

    /// The longest wait for an answer; measured round-trip times make most waits much shorter.
    pub(crate) fn probe_timeout(&self) -> Duration {
        self.probe_interval / 2
    }

    /// Silence of a peer that is long enough to say so: the tolerance, and a tenth for what a
    /// datagram takes and a scheduler adds.
    pub(crate) fn silence(&self) -> Duration {
        self.pause_tolerance + self.pause_tolerance / 10
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first field that is out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const MS: Duration = Duration::from_millis(1);
        const S: Duration = Duration::from_secs(1);
        number("gossip_fanout", self.gossip_fanout, 1..=64)?;
        duration("gossip_interval", self.gossip_interval, MS..=60 * S)?;
        number("gossip_bytes_per_second", self.gossip_bytes_per_second, 1 << 10..=1 << 30)?;
        duration("probe_interval", self.probe_interval, 10 * MS..=600 * S)?;
        duration("pause_tolerance", self.pause_tolerance, 50 * MS..=600 * S)?;
        number("retransmit_mult", self.retransmit_mult, 1..=64)?;
        duration("pull_interval", self.pull_interval, 100 * MS..=3600 * S)?;
        duration("pull_timeout", self.pull_timeout, 10 * MS..=600 * S)?;
        number("max_datagram_bytes", self.max_datagram_bytes, 512..=65_507)?;
        duration("dead_retention", self.dead_retention, S..=30 * 24 * 3600 * S)?;
        duration("reconnect_interval", self.reconnect_interval, 10 * MS..=3600 * S)?;
        duration("join_timeout", self.join_timeout, 10 * MS..=600 * S)?;
        number("tethers", self.tethers, 0..=8)?;
        duration("leave_timeout", self.leave_timeout, 10 * MS..=600 * S)?;
        number("receive_buffer_bytes", self.receive_buffer_bytes, 8 << 10..=256 << 20)?;
        number("event_capacity", self.event_capacity, 16..=1 << 24)?;
        self.validate_quotas()
    }

    fn validate_quotas(&self) -> Result<(), ConfigError> {
        number("max_nodes", self.max_nodes, 2..=131_072)?;
        number("max_scopes_per_node", self.max_scopes_per_node, 1..=256)?;
        number("max_roles_per_node", self.max_roles_per_node, 1..=65_536)?;
        number("max_role_bytes", self.max_role_bytes, 16..=MAX_ROLE_BYTES)?;
        number("max_node_role_bytes", self.max_node_role_bytes, 1 << 10..=4 << 20)?;
        number("max_total_role_bytes", self.max_total_role_bytes, 1 << 16..=1 << 40)
    }
}

impl Default for Config {
    /// The `lan` preset.
    fn default() -> Config {
        Config::lan()
    }
}

fn number<T: PartialOrd + Display + Copy>(
    field: &'static str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (low, high) = allowed.into_inner();
    Err(ConfigError { field, value: value.to_string(), allowed: format!("{low} to {high}") })
}

fn duration(
    field: &'static str,
    value: Duration,
    allowed: RangeInclusive<Duration>,
) -> Result<(), ConfigError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (low, high) = allowed.into_inner();
    let text = |duration| humantime::format_duration(duration).to_string();
    Err(ConfigError {
        field,
        value: text(value),
        allowed: format!("{} to {}", text(low), text(high)),
    })
}

/// Durations as people write them: `"500ms"`, `"1m 30s"`.
mod duration_text {
    use std::borrow::Cow;
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        humantime::parse_duration(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::limits::{
        MAX_NODES, MAX_ROLE_SET_BYTES, MAX_ROLES_PER_NODE, MAX_SCOPES_PER_NODE,
    };

    #[test]
    fn presets_are_valid_and_survive_toml() {
        for preset in [Config::local(), Config::lan(), Config::wan()] {
            preset.validate().unwrap();
            let text = toml::to_string(&preset).unwrap();
            assert_eq!(toml::from_str::<Config>(&text).unwrap(), preset, "{text}");
        }
    }

    #[test]
    fn quotas_end_where_the_wire_format_does() {
        let most = Config::lan();
        assert_eq!(most.max_nodes, MAX_NODES);
        assert_eq!(most.max_scopes_per_node, MAX_SCOPES_PER_NODE);
        assert_eq!(most.max_roles_per_node, MAX_ROLES_PER_NODE);
        assert_eq!(most.max_node_role_bytes, MAX_ROLE_SET_BYTES);
        for more in [
            Config { max_nodes: MAX_NODES + 1, ..Config::lan() },
            Config { max_scopes_per_node: MAX_SCOPES_PER_NODE + 1, ..Config::lan() },
            Config { max_roles_per_node: MAX_ROLES_PER_NODE + 1, ..Config::lan() },
            Config { max_role_bytes: MAX_ROLE_BYTES + 1, ..Config::lan() },
            Config { max_node_role_bytes: MAX_ROLE_SET_BYTES + 1, ..Config::lan() },
            Config { max_total_role_bytes: (1 << 40) + 1, ..Config::lan() },
        ] {
            assert!(more.validate().is_err(), "{more:?}");
        }
    }

    #[test]
    fn errors_name_the_field_the_value_and_what_is_allowed() {
        let hasty = Config { pause_tolerance: Duration::from_millis(2), ..Config::lan() };
        assert_eq!(
            hasty.validate().unwrap_err().to_string(),
            "pause_tolerance = 2ms is not allowed: it must be 50ms to 10m"
        );
        let small = Config { max_datagram_bytes: 100, ..Config::lan() };
        assert_eq!(
            small.validate().unwrap_err().to_string(),
            "max_datagram_bytes = 100 is not allowed: it must be 512 to 65507"
        );
        let never = Config { gossip_interval: Duration::ZERO, ..Config::lan() };
        assert_eq!(
            never.validate().unwrap_err().to_string(),
            "gossip_interval = 0s is not allowed: it must be 1ms to 1m"
        );
        let unknown = toml::from_str::<Config>("gossip_fan = 3").unwrap_err().to_string();
        assert!(unknown.contains("gossip_fan"), "{unknown}");
    }
}
