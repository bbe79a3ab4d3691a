//! More than a node can want: floods of datagrams, valid and not, beside a subscriber that reads
//! nothing and a handler that panics. It stays a member, and is as before when it is over.

#[path = "support/cluster.rs"]
mod support;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rolecall::wire::frame::Ping;
use rolecall::wire::{ClusterId, Frame, Header, begin, finish};
use rolecall::{Cluster, Config, Event, EventHandler, Keyring, Node, NodeId};
use support::{eventually, node, nodes_with, seed};

/// Datagrams per second, at one node.
const RATE: u32 = 100_000;
const FLOOD: Duration = Duration::from_secs(4);

/// Sends these in turn at the rate, until it is told to stop; says how many it sent.
struct Flood {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Flood {
    fn start(at: &Cluster, datagrams: Vec<Vec<u8>>) -> Flood {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(at.local_addr()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, count) = (over.clone(), sent.clone());
        let thread = thread::spawn(move || {
            let start = Instant::now();
            let mut all = datagrams.iter().cycle();
            while !stop.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() * u128::from(RATE) / 1_000_000;
                while u128::from(count.load(Ordering::Relaxed)) < due {
                    // A full buffer is what a flood makes.
                    let _ = socket.send(all.next().expect("there is one"));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_micros(500));
            }
        });
        Flood { over, sent, thread }
    }

    fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

/// Whatever it is told, it panics.
struct Panics;

impl EventHandler for Panics {
    fn on_node_added(&self, node: &Node) {
        panic!("a handler's fault, as it has to do with {node}");
    }
}

/// What strangers can send: noise, headers with noise, and pings, which are answered.
fn of_strangers() -> Vec<Vec<u8>> {
    let cluster = ClusterId::of("default");
    let mut datagrams = Vec::new();
    for n in 1..200_u64 {
        let from = NodeId::from_u64(n << 32 | n).unwrap();
        let mut datagram = Vec::new();
        begin(Header { cluster, from, to: None }, &mut datagram);
        match n % 4 {
            0 => Frame::from(Ping { seq: 1 }).encode(&mut datagram),
            1 => datagram.extend((0..n).map(|byte| (byte * 37).to_le_bytes()[0])),
            2 => datagram.truncate(usize::try_from(n % 23).unwrap()),
            _ => {}
        }
        if n % 4 != 2 && n % 8 != 3 {
            finish(&mut datagram, cluster);
        }
        datagrams.push(datagram);
    }
    datagrams
}

async fn withstands(nodes: &[Cluster; 5], datagrams: Vec<Vec<u8>>) {
    let victim = &nodes[2];
    let mut watchers: Vec<_> = nodes.iter().map(Cluster::events).collect();
    let unread = victim.events();
    let before = victim.stats();
    let flood = Flood::start(victim, datagrams);
    let start = Instant::now();
    let mut changes = 0;
    while start.elapsed() < FLOOD {
        // Life goes on: others change, and so does the node under the flood.
        nodes[changes % 5].add_role(format!("role {changes}")).unwrap();
        changes += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = flood.stop();
    victim.add_role("over").unwrap();
    for node in nodes {
        eventually(|| node.nodes("over").names() == ["c"]).await;
        for number in 0..changes {
            eventually(|| node.nodes(format!("role {number}").as_str()).len() == 1).await;
        }
        assert_eq!(node.members().len(), 5);
    }
    for events in &mut watchers {
        while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
            assert!(!matches!(event, Event::NodeDown { .. }), "{event:?}");
        }
    }
    let after = victim.stats();
    let came = after.datagrams_in - before.datagrams_in;
    println!("{sent} datagrams in {FLOOD:?}, of which {came} came in; {:?}", after.dropped);
    assert!(came > 10_000, "it was no flood: {came}");
    drop(unread);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_take_a_node_down() {
    let nodes = nodes_with::<5>(Config::lan(), |builder| builder.event_handler(Panics)).await;
    withstands(&nodes, of_strangers()).await;
    assert!(nodes[0].stats().handler_panics > 0, "the handler did not panic");
    // It takes in others as before.
    let late = node("late").seed(seed(&nodes[2])).start().await.unwrap();
    eventually(|| late.members().len() == 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_take_a_node_with_a_keyring_down() {
    let keyring = || Keyring::new([7; 32]);
    let nodes = nodes_with::<5>(Config::lan(), |builder| builder.keyring(keyring())).await;
    withstands(&nodes, of_strangers()).await;
    let dropped = nodes[2].stats().dropped;
    assert!(dropped.no_key > 1_000, "{dropped:?}");
}
