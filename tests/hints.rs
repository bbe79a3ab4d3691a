//! What the kernel notices of peers, on real sockets: datagrams that come back, and tethers. The
//! counters show what was noticed; what the protocol makes of it is tested elsewhere.

#[path = "support/cluster.rs"]
mod support;

#[cfg(target_os = "linux")]
#[path = "support/process.rs"]
mod process;

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rolecall::{Cluster, Config};
use support::{Puppet, eventually, joined, node, nodes, nodes_with, within};

fn tethers(cluster: &Cluster) -> (usize, usize) {
    let stats = cluster.stats();
    (stats.tethers_out, stats.tethers_in)
}

fn closed(clusters: &[&Cluster]) -> u64 {
    clusters.iter().map(|cluster| cluster.stats().hints_tether_closed).sum()
}

fn with_tethers(tethers: usize) -> Config {
    Config { tethers, ..Config::local() }
}

/// Whether there is no listener at an address.
fn is_refused(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn a_crash_is_noticed_at_both_ends_of_a_tether_and_by_datagrams_that_come_back() {
    let [a, b] = nodes().await;
    let c = Puppet::start(node("c").seed(support::seed(&a))).await;
    eventually(|| [&a, &b, &c.cluster].iter().all(|it| tethers(it) == (2, 2))).await;
    drop(c);
    for cluster in [&a, &b] {
        // One from here to there, and one from there to here: noticed at once, they are one hint.
        eventually(|| tethers(cluster) == (1, 1)).await;
        assert!((1..=2).contains(&cluster.stats().hints_tether_closed));
        #[cfg(target_os = "linux")]
        eventually(|| cluster.stats().hints_unreachable > 0).await;
        assert_eq!(cluster.stats().socket_errors, 0);
    }
}

#[tokio::test]
async fn a_node_that_is_dropped_is_a_crash_to_others() {
    let [a, b] = nodes().await;
    eventually(|| tethers(&a) == (1, 1) && tethers(&b) == (1, 1)).await;
    drop(b);
    eventually(|| closed(&[&a]) >= 1).await;
}

#[tokio::test]
async fn whoever_leaves_says_farewell() {
    let [a, b, c] = nodes().await;
    let all = [&a, &b, &c];
    eventually(|| all.iter().all(|it| tethers(it) == (2, 2))).await;
    within(c.leave()).await.unwrap();
    assert_eq!(tethers(&c), (0, 0));
    assert!(is_refused(c.local_addr()), "its listener is closed when it has left");
    eventually(|| a.members().len() == 2 && b.members().len() == 2).await;
    eventually(|| tethers(&a) == (1, 1) && tethers(&b) == (1, 1)).await;
    within(b.leave()).await.unwrap();
    eventually(|| tethers(&a) == (0, 0)).await;
    assert_eq!(closed(&all), 0);
}

/// Each newcomer comes between others on the ring, so that tethers are exchanged for others.
#[tokio::test]
async fn tethers_are_as_many_as_are_wanted_however_many_nodes_there_are() {
    let [a, b, c, d] = nodes().await;
    let mut all = vec![a, b, c, d];
    let steady = |all: &[Cluster]| {
        let sum: usize = all.iter().map(|cluster| tethers(cluster).1).sum();
        assert!(all.iter().all(|cluster| tethers(cluster).0 <= 2));
        sum == 2 * all.len() && all.iter().all(|cluster| tethers(cluster).0 == 2)
    };
    eventually(|| steady(&all)).await;
    for name in ["e", "f", "g", "h"] {
        let newcomer = joined(name, &all[0]).await;
        all.push(newcomer);
        eventually(|| all.iter().all(|it| it.members().len() == all.len())).await;
        eventually(|| steady(&all)).await;
    }
    assert_eq!(closed(&all.iter().collect::<Vec<_>>()), 0);
}

#[tokio::test]
async fn the_number_of_tethers_can_be_changed_while_nodes_run() {
    let [a, b, c] = nodes_with(with_tethers(0), |builder| builder).await;
    let all = [&a, &b, &c];
    for cluster in all {
        assert!(is_refused(cluster.local_addr()), "no tethers, no listener");
        assert_eq!(tethers(cluster), (0, 0));
    }
    for wanted in [1, 2] {
        for cluster in all {
            cluster.reconfigure(with_tethers(wanted)).unwrap();
        }
        eventually(|| all.iter().all(|it| tethers(it).0 == wanted)).await;
    }
    for cluster in all {
        cluster.reconfigure(with_tethers(0)).unwrap();
    }
    eventually(|| all.iter().all(|it| tethers(it) == (0, 0))).await;
    eventually(|| all.iter().all(|it| is_refused(it.local_addr()))).await;
    assert_eq!(closed(&all), 0);
    // And again, on the same ports.
    for cluster in all {
        cluster.reconfigure(with_tethers(1)).unwrap();
    }
    eventually(|| all.iter().all(|it| tethers(it).0 == 1)).await;
}

#[tokio::test]
async fn a_node_whose_port_is_taken_for_tcp_has_tethers_to_others_only() {
    let a = node("a").start().await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    let b = node("b").bind(bind).seed(support::seed(&a)).start().await.unwrap();
    eventually(|| a.members().len() == 2 && tethers(&b) == (1, 0)).await;
    // Whoever has the port is dialled, and does not know what to answer.
    let (mut stranger, _) = taken.accept().unwrap();
    let mut hello = [0; 23];
    stranger.read_exact(&mut hello).unwrap();
    assert!(hello.starts_with(b"rc"));
    drop(stranger);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(tethers(&a), (0, 1));
    assert_eq!(closed(&[&a, &b]), 0);
}

#[tokio::test]
async fn a_node_bound_to_every_address_has_tethers_too() {
    let any = |name: &str| node(name).bind("0.0.0.0:0").advertise("127.0.0.1:0");
    let a = any("a").start().await.unwrap();
    let b = any("b").seed(support::seed(&a)).start().await.unwrap();
    eventually(|| tethers(&a) == (1, 1) && tethers(&b) == (1, 1)).await;
}

/// Processes of their own, so that their descriptors can be counted and that they can be killed.
#[cfg(target_os = "linux")]
mod processes {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::process::Command;

    use rolecall::NodeId;
    use rolecall::wire::{ClusterId, Header, begin, finish};
    use serde_json::Value;

    use super::process::{Process, eventually, node_binary, text};

    /// Sockets and files of a node, those of its connections apart, are fewer; and its limits on
    /// connections add up to fewer too.
    const MAX_DESCRIPTORS: usize = 100;

    fn start(name: &str, seed: Option<&str>) -> Process {
        let mut command = Command::new(node_binary());
        command.args(["--preset", "local", "--bind", "127.0.0.1:0"]);
        if let Some(seed) = seed {
            command.args(["--seed", seed]);
        }
        Process::start(name, command)
    }

    /// Three nodes, all tethers between them up.
    fn three() -> [Process; 3] {
        let a = start("a", None);
        let [b, c] = ["b", "c"].map(|name| start(name, Some(&a.addr)));
        let mut all = [a, b, c];
        eventually("all tethers are up", || {
            all.iter_mut().all(|it| stat(it, "tethers_out") == 2 && stat(it, "tethers_in") == 2)
        });
        all
    }

    fn stat(process: &mut Process, name: &str) -> u64 {
        let answer = process.ask("stats");
        answer["stats"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {answer}"))
    }

    #[test]
    fn a_process_that_is_killed_is_noticed_by_its_neighbours() {
        let [mut a, mut b, mut c] = three();
        c.kill();
        // Who hears the verdict first looks no further.
        let either = |a: &mut Process, b: &mut Process, key| stat(a, key) + stat(b, key) >= 1;
        eventually("a tether has closed", || either(&mut a, &mut b, "hints_tether_closed"));
        eventually("datagrams come back", || either(&mut a, &mut b, "hints_unreachable"));
        for process in [&mut a, &mut b] {
            process.sees_down("c", "failed");
            assert_eq!(stat(process, "socket_errors"), 0);
        }
    }

    #[test]
    fn a_process_that_stands_still_keeps_its_tethers() {
        let [mut a, mut b, c] = three();
        c.signal("-STOP");
        std::thread::sleep(std::time::Duration::from_millis(500));
        for process in [&mut a, &mut b] {
            assert_eq!(stat(process, "hints_tether_closed"), 0);
        }
        c.signal("-CONT");
    }

    fn descriptors(process: &Process) -> usize {
        let path = format!("/proc/{}/fd", process.child.0.id());
        std::fs::read_dir(path).expect("procfs is there").count()
    }

    fn run_of(ready: &Value) -> NodeId {
        let bits = u64::from_str_radix(&text(&ready["id"]), 16).expect("ids are hexadecimal");
        NodeId::from_u64(bits).expect("ids are not zero")
    }

    /// A hello to a node, in the name of some run.
    fn hello(from: NodeId, to: &Value) -> Vec<u8> {
        let cluster = ClusterId::of(&text(&to["cluster"]));
        let mut hello = Vec::new();
        begin(Header { cluster, from, to: Some(run_of(to)) }, &mut hello);
        finish(&mut hello, cluster);
        hello
    }

    #[test]
    fn strangers_on_the_port_take_nothing_and_say_nothing() {
        let [mut a, mut b, mut c] = three();
        let unknown = NodeId::from_u64(0x5452_414e_4745_5221).expect("not zero");
        let hello = hello(unknown, &a.ready());
        let garbage = vec![b'x'; 100_000];
        let mut strangers = Vec::new();
        for n in 0..500 {
            let Ok(mut stream) = TcpStream::connect(&a.addr) else { continue };
            stream.set_nonblocking(true).expect("a socket can be told so");
            // What is refused already takes no more.
            let _ = match n % 4 {
                0 => Ok(0),
                1 => stream.write(&garbage),
                2 => stream.write(&hello),
                _ => stream.write(&hello[..7]),
            };
            strangers.push(stream);
            if n % 50 == 0 {
                let open = descriptors(&a);
                assert!(open < MAX_DESCRIPTORS, "{open} descriptors");
            }
        }
        a.tell("add busy");
        for process in [&mut b, &mut c] {
            eventually("the role is known", || process.nodes("busy") == ["a"]);
        }
        eventually("they are refused", || stat(&mut a, "tethers_refused") >= 450);
        assert!(descriptors(&a) < MAX_DESCRIPTORS);
        drop(strangers);
        for process in [&mut a, &mut b, &mut c] {
            assert_eq!(stat(process, "hints_tether_closed"), 0);
            assert_eq!(stat(process, "tethers_out"), 2);
            assert_eq!(stat(process, "tethers_in"), 2);
            assert_eq!(process.members(), ["a", "b", "c"]);
        }
        // The port serves members still.
        let mut d = start("d", Some(&a.addr));
        eventually("the newcomer is tethered", || {
            stat(&mut d, "tethers_out") == 2 && stat(&mut d, "tethers_in") > 0
        });
    }

    /// Whoever connects in the name of a member takes the place of that member's tether, each time.
    #[test]
    fn a_member_that_connects_again_and_again_has_one_tether() {
        let [mut a, mut b, mut c] = three();
        let hello = hello(run_of(&b.ready()), &a.ready());
        let mut tethers: Vec<TcpStream> = Vec::new();
        for _ in 0..100 {
            let mut tether = TcpStream::connect(&a.addr).expect("it listens");
            tether.write_all(&hello).expect("it listens");
            let mut byte = [0];
            tether.read_exact(&mut byte).expect("a member is welcome");
            assert_eq!(byte, *b"w");
            if let Some(former) = tethers.last_mut() {
                former.read_exact(&mut byte).expect("it is told");
                assert_eq!(byte, *b"f");
            }
            tethers.push(tether);
        }
        assert!(descriptors(&a) < MAX_DESCRIPTORS);
        assert!(stat(&mut a, "tethers_in") <= 2);
        // What is said on a tether is not listened to.
        let mut last = tethers.pop().expect("there are a hundred");
        let _ = last.write(&[0; 10_000]);
        eventually("it is closed", || stat(&mut a, "tethers_in") == 1);
        drop(tethers);
        for process in [&mut a, &mut b, &mut c] {
            assert_eq!(stat(process, "hints_tether_closed"), 0);
            assert_eq!(process.members(), ["a", "b", "c"]);
        }
        // Its own tether comes back by itself.
        eventually("all tethers are up", || {
            stat(&mut a, "tethers_in") == 2 && stat(&mut b, "tethers_out") == 2
        });
    }
}
