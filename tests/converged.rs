//! Nodes that are acquainted from the start are as good as nodes that met each other.
#![cfg(feature = "sim")]

#[path = "support/net.rs"]
mod net;

use std::time::Duration;

use net::{Net, addr};
use rolecall::Config;

const SECOND: Duration = Duration::from_secs(1);
const SCOPES: [&str; 4] = ["a", "b", "c", "d"];

/// Nodes in two of four scopes each, all acquainted with each other.
fn acquainted(count: u16) -> Net {
    let mut net = Net::new(5, Config::lan());
    for n in 0..count {
        let of = |n: u16| SCOPES[usize::from(n) % SCOPES.len()];
        let (one, other) = (of(n), of(n + 1 + n / 4 % 3));
        let roles = &["web", "api", "db"][..usize::from(n % 4)];
        net.start_with(&format!("n{n}"), addr(n), &[], &[(one, roles), (other, roles)]);
    }
    net.forget_events();
    let mut everybody: Vec<_> = net.hosts.values().map(|host| host.node.introduction()).collect();
    everybody.sort_unstable_by_key(|it| it.node().id());
    for host in net.hosts.values_mut() {
        host.node.acquaint(net.now, &everybody);
    }
    net
}

#[test]
fn acquainted_nodes_agree_and_have_nothing_to_tell_each_other() {
    let mut net = acquainted(50);
    for host in net.hosts.values_mut() {
        #[cfg(debug_assertions)]
        host.node.check();
        assert!(host.node.is_synced());
        assert_eq!(host.node.poll_event(), None);
        assert_eq!(host.node.poll_outcome(), None);
        assert_eq!(host.node.poll_transmit(&mut Vec::new()), None);
        let stats = host.node.stats();
        let waiting = [stats.piggyback_queue, stats.fetch_queue, stats.pull_sessions];
        assert_eq!((stats.members, waiting), (50, [0; 3]));
    }
    assert!(net.agrees());
    net.run(60 * SECOND);
    assert!(net.agrees());
    let (mut probes, mut pulls) = (0, 0);
    for host in net.hosts.values() {
        #[cfg(debug_assertions)]
        host.node.check();
        assert!(host.events.is_empty(), "{:?}", host.events);
        let stats = host.node.stats();
        assert_eq!((stats.suspicions, stats.deltas, stats.fetches), (0, 0, 0));
        // Every probe compared, and none found a difference.
        let sent: Vec<_> = stats.sent.iter().map(|it| it.kind).collect();
        assert!(sent.contains(&"Probe") && sent.contains(&"Ack"), "{sent:?}");
        assert!(!["Symbols", "Buckets", "Pull", "Page"].iter().any(|kind| sent.contains(kind)));
        (probes, pulls) = (probes + stats.probes, pulls + stats.pulls);
    }
    assert!(probes > 50 * 50, "{probes} probes");
    assert!(pulls >= probes, "{pulls} comparisons");
}

#[test]
fn acquainted_nodes_are_not_in_lock_step() {
    let net = acquainted(50);
    let mut due: Vec<_> = net.hosts.values().map(|host| host.node.poll_timeout()).collect();
    due.sort_unstable();
    due.dedup();
    assert_eq!(due.len(), 50);
}

#[test]
fn a_change_among_acquainted_nodes_spreads_and_a_crash_is_noticed() {
    let mut net = acquainted(50);
    net.run(SECOND);
    net.add(addr(7), "d", "late");
    let took = net.run_until(5 * SECOND, Net::agrees);
    assert!(took < SECOND, "{took:?}");
    net.remove(addr(9), "b", "web");
    net.run_until(5 * SECOND, Net::agrees);
    net.kill(addr(3));
    net.run_until(30 * SECOND, Net::agrees);
}
