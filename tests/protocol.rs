//! The protocol on a virtual network: what every cluster must do, in virtual time.

#[path = "support/net.rs"]
mod net;

use std::time::Duration;

use net::{Net, addr, scope};
use rolecall::proto::{Command, Outcome};
use rolecall::wire::frame::{Boot, Incarnation, Profile};
use rolecall::wire::{ClusterId, Frame, Header, begin, finish};
use rolecall::{Config, Event, Generation, NodeId, NodeName, Role};

const SECOND: Duration = Duration::from_secs(1);

/// `count` nodes that all join through the first, converged.
fn cluster(seed: u64, count: u16) -> Net {
    cluster_with(seed, count, Config::lan())
}

/// In which a node that stops is not taken for dead.
fn patient(seed: u64, count: u16) -> Net {
    cluster_with(seed, count, Config { pause_tolerance: 60 * SECOND, ..Config::lan() })
}

fn cluster_with(seed: u64, count: u16, config: Config) -> Net {
    let mut net = Net::new(seed, config);
    for n in 0..count {
        net.start(&format!("n{n}"), addr(n), &[addr(0)]);
    }
    net.run_until(20 * SECOND, Net::agrees);
    net
}

#[test]
fn three_nodes_meet_and_see_each_others_roles() {
    let mut net = Net::new(1, Config::lan());
    net.start_with("a", addr(0), &[], &[("default", &["web"])]);
    net.start_with("b", addr(1), &[addr(0)], &[("default", &["api"]), ("jobs", &["worker"])]);
    net.start_with("c", addr(2), &[addr(0)], &[("jobs", &["boss"])]);
    let took = net.run_until(5 * SECOND, Net::agrees);
    assert!(took < SECOND, "{took:?}");
    assert_eq!(net.told(addr(0)), [r#"+ default a "web""#, "up c", "up b", r#"+ default b "api""#]);
    assert_eq!(net.told(addr(2))[0], r#"+ jobs c "boss""#);
    net.run(SECOND);
    assert!(net.hosts[&addr(2)].outcomes.contains(&Outcome::Synced));
}

#[test]
fn a_crash_is_noticed_by_all_and_roles_go_first() {
    let mut net = cluster(2, 8);
    net.add(addr(3), "default", "db");
    net.run_until(SECOND, Net::agrees);
    net.forget_events();
    net.kill(addr(3));
    net.run_until(30 * SECOND, Net::agrees);
    for n in [0, 1, 2, 4, 5, 6, 7] {
        assert_eq!(net.told(addr(n)), [r#"- default n3 "db""#, "down n3 failed"]);
    }
}

#[test]
fn leaving_is_known_at_once_and_acknowledged() {
    let mut net = cluster(3, 8);
    net.forget_events();
    net.command(addr(5), Command::Leave);
    net.run(SECOND / 10);
    let left = net.kill(addr(5));
    assert!(left.outcomes.contains(&Outcome::Left { unheard: 0 }));
    assert!(net.agrees());
    assert_eq!(net.told(addr(0)), ["down n5 left"]);
}

#[test]
fn a_restart_at_the_same_address_replaces_the_old_run_at_once() {
    let mut net = cluster(4, 6);
    net.add(addr(2), "default", "old");
    net.run_until(SECOND, Net::agrees);
    net.forget_events();
    net.kill(addr(2));
    net.start_with("n2", addr(2), &[addr(0)], &[("default", &["new"])]);
    let took = net.run_until(5 * SECOND, Net::agrees);
    assert!(took < SECOND, "{took:?}");
    assert_eq!(
        net.told(addr(4)),
        [r#"- default n2 "old""#, "down n2 replaced", "up n2", r#"+ default n2 "new""#]
    );
}

#[test]
fn a_restarted_seed_that_knows_nobody_is_found_again() {
    let mut net = cluster(5, 4);
    net.kill(addr(0));
    net.start_with("n0", addr(0), &[], &[("default", &["back"])]);
    net.run_until(10 * SECOND, Net::agrees);
}

#[test]
fn a_rescheduled_node_replaces_its_silent_run_within_about_a_second() {
    let mut net = cluster(6, 6);
    net.kill(addr(2));
    net.start_with("n2", addr(20), &[addr(0)], &[("default", &["moved"])]);
    let took = net.run_until(10 * SECOND, Net::agrees);
    assert!(took < 3 * SECOND, "{took:?}");
}

#[test]
fn a_live_nodes_name_is_not_given_away() {
    let mut net = cluster(7, 5);
    net.forget_events();
    net.start("n2", addr(20), &[addr(0)]);
    net.run(3 * SECOND);
    let impostor = net.kill(addr(20));
    let taken = Outcome::NameTaken { holder: addr(2), stopped: false };
    assert!(impostor.outcomes.contains(&taken), "{:?}", impostor.outcomes);
    assert!(net.agrees());
    assert!(net.hosts.values().all(|host| {
        host.events.iter().all(|(_, event)| matches!(event, Event::NameConflict { .. }))
    }));
}

#[test]
fn a_clock_that_jumped_back_does_not_keep_a_restarted_node_out() {
    let mut net = cluster(8, 4);
    net.kill(addr(1));
    net.set_clock(1);
    net.start("n1", addr(1), &[addr(0)]);
    net.run_until(10 * SECOND, Net::agrees);
    assert!(net.node(addr(1)).boot() > 1000, "its stamp was raised above the last run's");
}

#[test]
fn another_node_at_a_dead_ones_address_confuses_nobody() {
    let mut net = cluster(9, 5);
    net.kill(addr(3));
    net.start_with("other", addr(3), &[addr(0)], &[("default", &["x"])]);
    net.run_until(40 * SECOND, Net::agrees);
    assert!(!net.names(addr(0)).contains(&"n3".to_string()));
}

#[test]
fn scopes_are_isolated_and_their_data_goes_to_members_only() {
    let mut net = Net::new(10, Config::lan());
    net.start_with("a", addr(0), &[], &[("x", &["role-of-x"])]);
    net.start_with("b", addr(1), &[addr(0)], &[("x", &["role-of-x"]), ("y", &["role-of-y"])]);
    net.start_with("c", addr(2), &[addr(0)], &[("y", &["role-of-y"])]);
    for n in 3..8 {
        net.start_with(&format!("z{n}"), addr(n), &[addr(0)], &[("z", &["role-of-z"])]);
    }
    let seen = std::rc::Rc::new(std::cell::RefCell::new(std::collections::BTreeMap::new()));
    let tap = seen.clone();
    net.tap = Some(Box::new(move |_, to, bytes| {
        for role in ["role-of-x", "role-of-y", "role-of-z"] {
            if bytes.windows(role.len()).any(|window| window == role.as_bytes()) {
                *tap.borrow_mut().entry((role, to)).or_insert(0) += 1;
            }
        }
    }));
    net.run_until(10 * SECOND, Net::agrees);
    net.add(addr(0), "x", "role-of-x-2");
    net.add(addr(2), "y", "role-of-y-2");
    net.run(20 * SECOND);
    assert!(net.agrees());
    let seen = seen.borrow();
    assert!(seen.len() >= 3, "the capture saw traffic: {seen:?}");
    for (role, to) in seen.keys() {
        let members: &[u16] = match *role {
            "role-of-x" => &[0, 1],
            "role-of-y" => &[1, 2],
            _ => &[3, 4, 5, 6, 7],
        };
        assert!(members.iter().any(|n| addr(*n) == *to), "{role} went to {to}");
    }
}

#[test]
fn joining_and_leaving_a_scope_at_run_time() {
    let mut net = cluster(11, 5);
    net.add(addr(0), "jobs", "worker");
    net.add(addr(1), "jobs", "boss");
    net.run_until(2 * SECOND, Net::agrees);
    net.forget_events();
    net.command(addr(2), Command::JoinScope(scope("jobs")));
    let took = net.run_until(2 * SECOND, |net| {
        net.node(addr(2)).roles("jobs", net.id(addr(0))).len() == 1
            && net.node(addr(2)).roles("jobs", net.id(addr(1))).len() == 1
    });
    assert!(took < SECOND / 10, "{took:?}");
    net.command(addr(0), Command::LeaveScope(scope("jobs")));
    assert_eq!(
        net.told(addr(0)),
        [r#"- jobs n1 "boss""#, r#"- jobs n0 "worker""#],
        "the own view of the scope is dropped"
    );
    net.run_until(2 * SECOND, Net::agrees);
    assert_eq!(net.told(addr(1)), [r#"- jobs n0 "worker""#]);
    let before = net.node(addr(0)).generation("jobs", net.id(addr(0)));
    net.add(addr(0), "jobs", "worker");
    assert!(net.node(addr(0)).generation("jobs", net.id(addr(0))) > before);
    net.run_until(2 * SECOND, Net::agrees);
    assert_eq!(net.told(addr(1)), [r#"- jobs n0 "worker""#, r#"+ jobs n0 "worker""#]);
}

#[test]
fn a_role_added_in_a_scope_that_is_left_at_once_does_not_stay() {
    // ClusterHelper's D1.
    let mut net = cluster(12, 4);
    net.add(addr(0), "jobs", "worker");
    net.add(addr(1), "jobs", "worker");
    net.command(addr(0), Command::LeaveScope(scope("jobs")));
    net.run_until(3 * SECOND, Net::agrees);
    assert!(net.node(addr(1)).roles("jobs", net.id(addr(0))).is_empty());
}

#[test]
fn ten_thousand_roles_in_one_call_arrive_whole() {
    let mut net = cluster(13, 4);
    net.forget_events();
    let roles: Vec<Role> = (0..10_000).map(|n| Role::from(("shard", n))).collect();
    net.command(addr(0), Command::AddRoles { scope: scope("default"), roles });
    let id = net.id(addr(0));
    let mut seen = std::collections::BTreeSet::new();
    net.run_until(10 * SECOND, |net| {
        let counts = (1..4).map(|n| net.node(addr(n)).roles("default", id).len());
        seen.extend(counts);
        net.agrees()
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 10_000], "never seen in part");
    assert_eq!(net.told(addr(1)).len(), 10_000);
    net.remove(addr(0), "default", ("shard", 77));
    net.run_until(2 * SECOND, Net::agrees);
    assert_eq!(net.told(addr(1)).last().unwrap(), r#"- default n0 ("shard", 77)"#);
}

#[test]
fn a_partition_heals_by_itself_and_nothing_is_lost() {
    for seed in 0..5 {
        let mut net = cluster(100 + seed, 10);
        let all: Vec<_> = (0..10).map(addr).collect();
        net.add(addr(1), "default", "before");
        net.run_until(SECOND, Net::agrees);
        net.partition(&all[..5], &all[5..]);
        net.run(60 * SECOND);
        assert_eq!(net.names(addr(0)).len(), 5);
        assert_eq!(net.names(addr(9)).len(), 5);
        net.add(addr(1), "default", "left");
        net.remove(addr(1), "default", "before");
        net.add(addr(8), "default", "right");
        net.cut.clear();
        net.run_until(40 * SECOND, Net::agrees);
    }
}

#[test]
fn nobody_hears_of_it_when_a_node_that_was_cut_off_held_all_others_dead() {
    for seed in 0..5 {
        let mut net = cluster(200 + seed, 8);
        let all: Vec<_> = (0..8).map(addr).collect();
        net.partition(&all[..1], &all[1..]);
        net.run_until(30 * SECOND, |net| net.names(addr(0)).len() == 1);
        net.forget_events();
        net.cut.clear();
        net.run_until(40 * SECOND, Net::agrees);
        net.run(20 * SECOND);
        for others in &all[1..] {
            assert!(net.told(*others).iter().all(|event| event == "up n0"), "seed {seed}");
            assert_eq!(net.node(*others).stats().refutations, 0, "seed {seed}");
        }
    }
}

#[test]
fn who_was_cut_off_probes_others_as_often_as_before_once_it_is_back() {
    for seed in 0..8 {
        let mut net = cluster(300 + seed, 16);
        let all: Vec<_> = (0..16).map(addr).collect();
        net.partition(&all[..1], &all[1..]);
        net.run_until(10 * SECOND, |net| net.node(addr(0)).stats().local_health == 8);
        net.run(SECOND / 4 * u32::try_from(seed).unwrap());
        net.cut.clear();
        net.run_until(20 * SECOND, |net| {
            net.agrees() && net.node(addr(0)).stats().local_health == 0
        });
        let probes = net.node(addr(0)).stats().probes;
        net.run(4 * SECOND);
        let probes = net.node(addr(0)).stats().probes - probes;
        assert!(probes >= 3, "seed {seed}: {probes} in four seconds");
    }
}

#[test]
fn a_paused_node_that_was_given_up_comes_back() {
    let mut net = cluster(14, 6);
    net.hosts.get_mut(&addr(2)).unwrap().paused = true;
    net.run_until(40 * SECOND, |net| !net.names(addr(0)).contains(&"n2".to_string()));
    for n in [0, 1, 3] {
        net.add(addr(n), "default", format!("while-away-{n}"));
    }
    net.run(5 * SECOND);
    net.resume(addr(2));
    net.run_until(20 * SECOND, Net::agrees);
}

#[test]
fn a_healthy_cluster_with_loss_declares_nobody_down() {
    let mut net = Net::new(15, Config::lan());
    net.loss = 0.05;
    for n in 0..32 {
        net.start(&format!("n{n}"), addr(n), &[addr(0)]);
    }
    net.run_until(30 * SECOND, Net::agrees);
    net.forget_events();
    net.run(120 * SECOND);
    for n in 0..32 {
        assert_eq!(net.told(addr(n)), Vec::<String>::new(), "n{n}");
    }
    assert!(net.agrees());
}

#[test]
fn role_churn_under_loss_loses_nothing() {
    let mut net = Net::new(16, Config::lan());
    net.loss = 0.2;
    for n in 0..10 {
        net.start(&format!("n{n}"), addr(n), &[addr(0), addr(1)]);
    }
    net.run_until(30 * SECOND, Net::agrees);
    for step in 0..200u16 {
        let at = addr(step % 10);
        net.add(at, "default", u64::from(step));
        if step >= 20 {
            net.remove(at, "default", u64::from(step - 20));
        }
        net.run(Duration::from_millis(20));
    }
    net.run_until(60 * SECOND, Net::agrees);
}

#[test]
fn a_receipt_says_who_has_a_change() {
    let mut net = patient(17, 5);
    net.add(addr(0), "default", "x");
    let generation = net.node(addr(0)).generation("default", net.id(addr(0)));
    assert_eq!(generation, Generation::from_u64(1));
    let deliver = Command::Deliver { token: 5, scope: scope("default"), generation };
    net.hosts.get_mut(&addr(4)).unwrap().paused = true;
    net.command(addr(0), deliver);
    net.run_until(10 * SECOND, |net| {
        net.hosts[&addr(0)].outcomes.iter().any(|it| matches!(it, Outcome::Delivered { .. }))
    });
    let last = net.hosts[&addr(0)].outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Delivered { token: 5, reached, missing } => Some((reached, missing)),
        _ => None,
    });
    let (reached, missing) = last.unwrap();
    assert_eq!(reached.names(), ["n1", "n2", "n3"]);
    assert_eq!(missing.names(), ["n4"]);
}

#[test]
fn nodes_that_start_before_their_seed_find_it() {
    let mut net = Net::new(18, Config::lan());
    for n in 1..4 {
        net.start(&format!("n{n}"), addr(n), &[addr(0)]);
    }
    net.run(20 * SECOND);
    net.start("n0", addr(0), &[]);
    net.run_until(30 * SECOND, Net::agrees);
}

#[test]
fn large_metadata_travels_in_small_datagrams() {
    let mut config = Config::lan();
    config.max_datagram_bytes = 512;
    let mut net = Net::new(19, config);
    for n in 0..6 {
        net.start(&format!("n{n}"), addr(n), &[addr(0)]);
    }
    net.run_until(20 * SECOND, Net::agrees);
    let meta = bytes::Bytes::from(vec![7; 4096]);
    net.tap = Some(Box::new(|_, _, bytes| assert!(bytes.len() <= 512)));
    net.command(addr(2), Command::SetMeta(meta.clone()));
    net.run_until(10 * SECOND, |net| {
        (0..6).all(|n| net.node(addr(n)).members().iter().any(|node| node.meta() == meta))
    });
    net.start("late", addr(9), &[addr(2)]);
    net.run_until(20 * SECOND, Net::agrees);
    let members = net.node(addr(9)).members();
    assert!(members.iter().any(|node| node.meta() == meta));
}

#[test]
fn hundreds_of_nodes_join_by_pages() {
    let mut net = Net::new(20, Config::lan());
    for n in 0..300 {
        let scopes: [(&str, &[&str]); 2] = [("default", &["web"]), ("jobs", &["worker"])];
        net.start_with(&format!("n{n}"), addr(n), &[addr(0), addr(1)], &scopes);
        net.run(Duration::from_millis(10));
    }
    let start = net.now;
    while !net.agrees() {
        net.run(SECOND);
        assert!(net.now - start < 60 * SECOND);
    }
    let took = net.now - start;
    println!("300 nodes agree {took:?} after the last start");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut net = Net::new(seed, Config::lan());
        net.loss = 0.1;
        for n in 0..12u16 {
            let scopes: [(&str, &[&str]); 2] =
                [("default", &["web"]), (["x", "y", "z"][usize::from(n) % 3], &["r"])];
            net.start_with(&format!("n{n}"), addr(n), &[addr(0)], &scopes);
        }
        net.run(20 * SECOND);
        net.kill(addr(4));
        net.run(20 * SECOND);
        net.trace
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Others have the name of a live run, one of them at its very address, as somebody says: the run
/// itself is asked, and keeps it.
#[test]
fn hearsay_costs_no_live_run_its_name() {
    for second in [77, 78] {
        let mut net = cluster(3, 2);
        let own = net.id(addr(1));
        let header = Header { cluster: ClusterId::of("test"), from: net.id(addr(1)), to: None };
        let claims = [(77, addr(5)), (second, addr(1))];
        for (id, at) in claims {
            let profile = Profile {
                id: NodeId::from_u64(id).unwrap(),
                boot: Boot(u64::MAX / 2 + id),
                version: 1,
                incarnation: Incarnation(0),
                name: NodeName::new("n1").unwrap(),
                addr: at,
                meta: bytes::Bytes::new(),
                scopes: [].into(),
            };
            let mut datagram = Vec::new();
            begin(header, &mut datagram);
            Frame::from(profile).encode(&mut datagram);
            finish(&mut datagram, header.cluster);
            let host = net.hosts.get_mut(&addr(0)).unwrap();
            host.node.handle_datagram(net.now, addr(1), &datagram).unwrap();
            host.node.check();
        }
        let members = net.node(addr(0)).members();
        assert_eq!(members.names(), ["n0", "n1"]);
        assert_eq!(members[1].id(), own);
        net.run(5 * SECOND);
        assert_eq!(net.node(addr(0)).members()[1].id(), own);
        assert!(!net.node(addr(1)).is_stopped());
    }
}
