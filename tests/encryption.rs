//! Clusters with a keyring: who is let in, what a replay does, and how keys are replaced while the
//! cluster runs.

#[path = "support/net.rs"]
mod net;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use net::{Net, addr, scope};
use rolecall::proto::Command;
use rolecall::wire::sealed::is_sealed;
use rolecall::{Config, Event, Key, Keyring};

const NODES: u16 = 8;

/// Every datagram that travelled: from, to, bytes.
type Recorded = Rc<RefCell<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>>;

fn key(n: u8) -> Key {
    Key::from_bytes([n; 32])
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// So many nodes with these keys, which know each other.
fn cluster(seed: u64, nodes: u16, keyring: &Keyring) -> Net {
    let mut net = Net::new(seed, Config::lan());
    net.keyring = Some(keyring.clone());
    net.refuses = true;
    for n in 0..nodes {
        net.start_with(&format!("n{n}"), addr(n), &[addr(0)], &[("default", &["web"])]);
        net.run(Duration::from_millis(50));
    }
    net.run(secs(5));
    net
}

fn assert_all_know_all(net: &Net, nodes: u16) {
    for (at, host) in &net.hosts {
        assert_eq!(host.node.members().len(), usize::from(nodes), "at {at}");
        for member in &host.node.members() {
            let roles = host.node.roles("default", member.id());
            assert!(!roles.is_empty(), "{at} knows no role of {member}");
        }
    }
}

/// What all nodes have dropped for reasons of keys: without one, of another one, broken, replayed.
fn dropped(net: &Net) -> [u64; 4] {
    let mut sums = [0; 4];
    for host in net.hosts.values() {
        let dropped = host.node.stats().dropped;
        let each = [dropped.no_key, dropped.wrong_key, dropped.corrupt, dropped.replayed];
        for (sum, one) in sums.iter_mut().zip(each) {
            *sum += one;
        }
    }
    sums
}

fn node_downs(net: &Net) -> usize {
    let of = |(_, event): &&(_, Event)| matches!(event, Event::NodeDown { .. });
    net.hosts.values().map(|host| host.events.iter().filter(of).count()).sum()
}

fn record(net: &mut Net) -> Recorded {
    let recorded = Recorded::default();
    let tap = recorded.clone();
    net.tap = Some(Box::new(move |from, to, bytes| {
        tap.borrow_mut().push((from, to, bytes.to_vec()));
    }));
    recorded
}

/// The state that a peer must not be able to change.
fn fingerprint(net: &Net) -> BTreeMap<SocketAddr, (Vec<String>, Vec<String>)> {
    let of = |(at, host): (&SocketAddr, &net::Host)| {
        let members = host.node.members();
        let names = members.iter().map(|node| format!("{node:?}")).collect();
        let roles =
            members.iter().map(|node| format!("{:?}", host.node.roles("default", node.id())));
        (*at, (names, roles.collect()))
    };
    net.hosts.iter().map(of).collect()
}

#[test]
fn everything_that_leaves_a_node_with_a_keyring_is_sealed() {
    let mut net = cluster(1, NODES, &Keyring::new(key(1)));
    let recorded = record(&mut net);
    let secret = "a-role-that-nobody-may-read";
    net.add(addr(3), "default", secret);
    net.command(addr(2), Command::SetMeta("metadata-that-nobody-may-read".into()));
    net.run(secs(10));
    assert_all_know_all(&net, NODES);
    assert_eq!(dropped(&net), [0; 4]);
    let recorded = recorded.borrow();
    assert!(recorded.len() > 100);
    for (_, _, bytes) in recorded.iter() {
        assert!(is_sealed(bytes));
        for text in [secret, "metadata-that", "web", "default"] {
            assert!(!bytes.windows(text.len()).any(|part| part == text.as_bytes()), "{text}");
        }
    }
}

#[test]
fn who_has_no_key_or_another_is_not_let_in_and_is_counted() {
    let mut net = cluster(2, NODES, &Keyring::new(key(1)));
    let strangers = [(100, None), (101, Some(Keyring::new(key(2))))];
    for (at, keyring) in &strangers {
        net.keyring.clone_from(keyring);
        net.start("stranger", addr(*at), &[addr(0), addr(1)]);
    }
    net.run(secs(60));
    for (at, _) in strangers {
        assert_eq!(net.kill(addr(at)).node.members().len(), 1, "it is alone");
    }
    assert_all_know_all(&net, NODES);
    assert_eq!(node_downs(&net), 0);
    let [no_key, wrong_key, corrupt, replayed] = dropped(&net);
    assert!(no_key > 5 && wrong_key > 5, "{no_key} {wrong_key}");
    assert_eq!((corrupt, replayed), (0, 0));
}

#[test]
fn what_is_replayed_hours_later_changes_nothing() {
    let mut net = cluster(3, NODES, &Keyring::new(key(1)));
    let recorded = record(&mut net);
    net.add(addr(3), "default", "soon gone");
    // One goes for good, another is replaced by a new run at another address.
    net.kill(addr(7));
    net.run(secs(20));
    net.kill(addr(6));
    net.start_with("n6", addr(60), &[addr(0)], &[("default", &["web"])]);
    net.run(secs(20));
    let remove = Command::RemoveRoles { scope: scope("default"), roles: vec!["soon gone".into()] };
    net.command(addr(3), remove);
    net.run(secs(20));
    net.tap = None;
    net.run(secs(4 * 3600));
    let (before, downs) = (fingerprint(&net), node_downs(&net));
    let recorded = recorded.take();
    assert!(recorded.len() > 500);
    for (from, to, bytes) in &recorded {
        if net.hosts.contains_key(to) {
            net.deliver(*from, *to, bytes.clone());
        }
    }
    let [_, _, corrupt, replayed] = dropped(&net);
    net.run(secs(120));
    assert_eq!(fingerprint(&net), before);
    assert_eq!(node_downs(&net), downs);
    // All that had come before was told from the rest; nothing else was like a broken seal.
    assert!(replayed > 500 && corrupt == 0, "{replayed} {corrupt}");
    // Also to a node that was not there when they were recorded.
    net.keyring = Some(Keyring::new(key(1)));
    net.kill(addr(5));
    net.start_with("n5", addr(5), &[addr(0)], &[("default", &["web"])]);
    net.run(secs(20));
    let before = fingerprint(&net);
    for (from, to, bytes) in recorded.iter().filter(|(_, to, _)| *to == addr(5)) {
        net.deliver(*from, *to, bytes.clone());
    }
    net.run(secs(120));
    assert_eq!(fingerprint(&net), before);
}

#[test]
fn keys_are_replaced_without_losing_a_datagram() {
    let mut net = cluster(4, NODES, &Keyring::new(key(1)));
    let all: Vec<SocketAddr> = net.hosts.keys().copied().collect();
    let steps: [fn() -> Command; 3] = [
        || Command::InstallKey(key(2)),
        || Command::UseKey(key(2).id()),
        || Command::RemoveKey(key(1).id()),
    ];
    for (number, step) in steps.iter().enumerate() {
        for at in &all {
            net.command(*at, step());
            net.add(*at, "default", format!("during {number}"));
            net.run(Duration::from_millis(300));
            let behind = |at: &SocketAddr| net.hosts[at].node.stats().members_on_other_keys;
            if number == 1 && at == &all[2] {
                // Three of them have the new key in use.
                let others = usize::from(NODES) - 3;
                assert_eq!((behind(&all[0]), behind(&all[5])), (others, 3));
            }
        }
        net.run(secs(5));
        let behind = all.iter().map(|at| net.hosts[at].node.stats().members_on_other_keys);
        assert_eq!(behind.sum::<usize>(), 0, "all have made the step");
    }
    for at in &all {
        assert_eq!(net.hosts[at].node.keys(), [key(2).id()]);
    }
    assert_all_know_all(&net, NODES);
    assert_eq!((dropped(&net), node_downs(&net)), ([0; 4], 0));
}

#[test]
fn a_node_that_was_away_during_the_rotation_takes_part_again() {
    let mut net = cluster(5, NODES, &Keyring::new(key(1)));
    let away = addr(4);
    let others: Vec<SocketAddr> = net.hosts.keys().copied().filter(|at| *at != away).collect();
    for other in &others {
        net.cut.insert((away, *other));
        net.cut.insert((*other, away));
    }
    for command in [Command::InstallKey(key(2)), Command::UseKey(key(2).id())] {
        for at in &others {
            net.command(*at, command.clone());
        }
        net.run(secs(15));
    }
    net.cut.clear();
    net.run(secs(60));
    // It has only the old key, and is a member all the same.
    assert_eq!(net.hosts[&away].node.keys(), [key(1).id()]);
    assert_all_know_all(&net, NODES);
    let downs = node_downs(&net);
    net.add(away, "default", "back");
    net.run(secs(60));
    assert_eq!(node_downs(&net), downs, "nobody goes down because of keys");
    // Then it gets the new one, and the old one goes.
    for command in [Command::InstallKey(key(2)), Command::UseKey(key(2).id())] {
        net.command(away, command);
    }
    net.run(secs(10));
    let before = dropped(&net);
    for at in others.iter().chain([&away]) {
        net.command(*at, Command::RemoveKey(key(1).id()));
    }
    net.run(secs(60));
    assert_all_know_all(&net, NODES);
    assert_eq!((dropped(&net), node_downs(&net)), (before, downs));
}

#[test]
fn steps_in_any_order_are_healed_as_long_as_a_key_is_shared() {
    let mut net = cluster(6, NODES, &Keyring::new(key(1)));
    let all: Vec<SocketAddr> = net.hosts.keys().copied().collect();
    // Half of them use the new key before the others have it.
    let (first, rest) = all.split_at(4);
    for at in first {
        net.command(*at, Command::InstallKey(key(2)));
        net.command(*at, Command::UseKey(key(2).id()));
    }
    net.run(secs(60));
    assert_eq!(node_downs(&net), 0);
    for at in rest {
        net.command(*at, Command::InstallKey(key(2)));
    }
    net.run(secs(20));
    // They remove the old one while some others still use it.
    for at in first {
        net.command(*at, Command::RemoveKey(key(1).id()));
    }
    net.run(secs(60));
    assert_all_know_all(&net, NODES);
    assert_eq!(node_downs(&net), 0);
}

#[test]
fn a_node_joins_with_a_ring_of_which_the_seed_has_one_key() {
    let mut net = cluster(7, 3, &Keyring::new(key(1)));
    net.keyring = Some(Keyring::new(key(2)).with(key(1)));
    net.start_with("new", addr(9), &[addr(0)], &[("default", &["web"])]);
    net.run(secs(20));
    assert_all_know_all(&net, 4);
    assert_eq!(node_downs(&net), 0);
}

#[test]
fn a_node_without_a_keyring_cannot_be_given_one() {
    let mut net = Net::new(8, Config::lan());
    net.start("plain", addr(0), &[]);
    let node = &mut net.hosts.get_mut(&addr(0)).unwrap().node;
    let error = node.handle_command(net.now, Command::InstallKey(key(1))).unwrap_err();
    assert_eq!(error.to_string(), "this node was started without a keyring");
    assert!(node.keys().is_empty());
}
