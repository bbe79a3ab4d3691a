//! Properties of the wire and of what rides on it: every frame survives the journey, and whatever
//! the network does to deltas, followers end where their writers are.

#[path = "support/frames.rs"]
mod frames;
#[path = "support/net.rs"]
mod net;

use std::time::Duration;

use arbitrary::Unstructured;
use net::{Net, addr};
use proptest::prelude::*;
use rolecall::Config;
use rolecall::wire::{ClusterId, Frame, Header, begin, decode_frames, decode_header, finish};

const SCOPES: [&str; 3] = ["x", "y", "z"];
const NODES: u16 = 5;

/// What befalls a cluster.
#[derive(Clone, Debug)]
enum Step {
    Add { node: u16, scope: usize, role: u8 },
    Remove { node: u16, scope: usize, role: u8 },
    Leave { node: u16, scope: usize },
    Wait { ms: u64 },
    Loss { percent: u32 },
    Cut { a: u16, b: u16 },
    Mend,
}

fn step() -> impl Strategy<Value = Step> {
    let (node, scope, role) = (0..NODES, 0..SCOPES.len(), 0..6_u8);
    prop_oneof![
        6 => (node.clone(), scope.clone(), role.clone())
            .prop_map(|(node, scope, role)| Step::Add { node, scope, role }),
        4 => (node.clone(), scope.clone(), role)
            .prop_map(|(node, scope, role)| Step::Remove { node, scope, role }),
        1 => (node.clone(), scope).prop_map(|(node, scope)| Step::Leave { node, scope }),
        4 => (0..600_u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..=60_u32).prop_map(|percent| Step::Loss { percent }),
        1 => (node.clone(), node).prop_map(|(a, b)| Step::Cut { a, b }),
        1 => Just(Step::Mend),
    ]
}

fn apply(net: &mut Net, step: &Step) {
    match *step {
        Step::Add { node, scope, role } => net.add(addr(node), SCOPES[scope], role),
        Step::Remove { node, scope, role } => net.remove(addr(node), SCOPES[scope], role),
        Step::Leave { node, scope } => {
            let name = net::scope(SCOPES[scope]);
            if net.node(addr(node)).scopes().contains(&name) {
                net.command(addr(node), rolecall::proto::Command::LeaveScope(name));
            }
        }
        Step::Wait { ms } => net.run(Duration::from_millis(ms)),
        Step::Loss { percent } => net.loss = f64::from(percent) / 100.0,
        Step::Cut { a, b } => {
            net.cut.insert((addr(a), addr(b)));
        }
        Step::Mend => net.cut.clear(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn followers_end_where_their_writers_are(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut net = Net::new(seed, Config::lan());
        net.duplication = 0.2;
        for n in 0..NODES {
            // Each in two scopes of three.
            let scopes = [SCOPES[usize::from(n) % 3], SCOPES[usize::from(n + 1) % 3]];
            let scopes = scopes.map(|name| (name, &["first"][..]));
            net.start_with(&format!("n{n}"), addr(n), &[addr(0)], &scopes);
        }
        net.run_until(Duration::from_secs(30), Net::agrees);
        for step in &steps {
            apply(&mut net, step);
        }
        net.loss = 0.0;
        net.cut.clear();
        net.run_until(Duration::from_secs(120), Net::agrees);
    }
}

proptest! {
    #[test]
    fn frames_survive_the_journey(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let mut u = Unstructured::new(&bytes);
        let pools = frames::Pools::new(&[]);
        let to = Some(pools.id(&mut u));
        let header = Header { cluster: ClusterId::of("test"), from: pools.id(&mut u), to };
        let mut sent: Vec<Frame> = Vec::new();
        while !u.is_empty() {
            sent.push(pools.frame(&mut u));
        }
        let mut datagram = Vec::new();
        begin(header, &mut datagram);
        for frame in &sent {
            let len = datagram.len();
            prop_assert!(!frame.encode_within(len + 1, &mut datagram), "no frame has one byte");
            prop_assert_eq!(datagram.len(), len);
            frame.encode(&mut datagram);
        }
        finish(&mut datagram, header.cluster);
        prop_assert_eq!(decode_header(&datagram, header.cluster), Ok(header.into()));
        let mut received = Vec::new();
        prop_assert_eq!(decode_frames(&datagram, &mut received), Ok(()));
        prop_assert_eq!(received, sent);
    }
}
