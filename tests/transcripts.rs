//! Conversations of nodes as text, to be read and reviewed as a diff.
//! `UPDATE_TRANSCRIPTS=1 cargo test --test transcripts` writes them anew.

#[path = "support/net.rs"]
mod net;
#[path = "support/transcript.rs"]
mod transcript;

use std::time::Duration;

use net::{Net, addr};
use rolecall::proto::Command;
use rolecall::{Config, Event};
use transcript::Transcript;

const SECOND: Duration = Duration::from_secs(1);

/// `count` nodes that know each other and have nothing left to tell.
fn cluster(config: Config, count: u16) -> (Net, Transcript) {
    let mut net = Net::new(7, config);
    let mut transcript = Transcript::default();
    for n in 0..count {
        net.start(&format!("n{n}"), addr(n), &[addr(0)]);
        transcript.know(&net, addr(n), &format!("n{n}"));
    }
    net.run_until(20 * SECOND, Net::agrees);
    net.run(3 * SECOND);
    transcript.begin(&mut net);
    (net, transcript)
}

fn heard(net: &Net, at: u16, wanted: impl Fn(&Event) -> bool) -> bool {
    net.hosts[&addr(at)].events.iter().any(|(_, event)| wanted(event))
}

#[test]
fn join() {
    let mut net = Net::new(7, Config::lan());
    let mut transcript = Transcript::default();
    net.log = Some(Vec::new());
    net.start_with("n0", addr(0), &[], &[("default", &["web"])]);
    net.start_with("n1", addr(1), &[addr(0)], &[("default", &["api"])]);
    transcript.know(&net, addr(0), "n0");
    transcript.know(&net, addr(1), "n1");
    net.run_until(SECOND, Net::agrees);
    transcript.check(&mut net, "join");
}

#[test]
fn role_change() {
    let (mut net, mut transcript) = cluster(Config::lan(), 2);
    net.add(addr(0), "default", "web");
    net.run_until(SECOND, Net::agrees);
    net.remove(addr(0), "default", "web");
    net.run_until(SECOND, Net::agrees);
    transcript.check(&mut net, "role_change");
}

#[test]
fn indirect_probe() {
    let (mut net, mut transcript) = cluster(Config::lan(), 3);
    net.kill(addr(2));
    let is_nack = |bytes: &[u8]| bytes[rolecall::wire::HEADER_BYTES] == 3;
    net.run_until(5 * SECOND, |net| {
        net.log.iter().flatten().any(|(_, _, _, bytes)| is_nack(bytes))
    });
    net.run(SECOND / 100);
    transcript.check(&mut net, "indirect_probe");
}

#[test]
fn refutation() {
    let (mut net, mut transcript) = cluster(Config::lan(), 3);
    net.hosts.get_mut(&addr(2)).unwrap().paused = true;
    net.run_until(9 * SECOND, |net| [0, 1].iter().all(|n| net.node(addr(*n)).members().len() == 2));
    net.resume(addr(2));
    net.run_until(9 * SECOND, Net::agrees);
    transcript.check(&mut net, "refutation");
}

#[test]
fn crash() {
    let (mut net, mut transcript) = cluster(Config::lan(), 3);
    net.add(addr(2), "default", "db");
    net.run_until(SECOND, Net::agrees);
    net.kill(addr(2));
    net.run_until(60 * SECOND, Net::agrees);
    transcript.check(&mut net, "crash");
}

#[test]
fn leave() {
    let (mut net, mut transcript) = cluster(Config::lan(), 3);
    net.command(addr(2), Command::Leave);
    net.run(SECOND / 10);
    transcript.check(&mut net, "leave");
}

#[test]
fn restart() {
    let (mut net, mut transcript) = cluster(Config::lan(), 3);
    net.add(addr(2), "default", "old");
    net.run_until(SECOND, Net::agrees);
    net.kill(addr(2));
    net.start_with("n2", addr(2), &[addr(0)], &[("default", &["new"])]);
    transcript.know(&net, addr(2), "n2'");
    net.run_until(5 * SECOND, Net::agrees);
    transcript.check(&mut net, "restart");
}

#[test]
fn name_clash() {
    let (mut net, mut transcript) = cluster(Config::lan(), 3);
    net.start("n2", addr(3), &[addr(0)]);
    transcript.know(&net, addr(3), "n2'");
    net.run_until(5 * SECOND, |net| !net.hosts[&addr(3)].outcomes.is_empty());
    net.run(SECOND / 2);
    transcript.check(&mut net, "name_clash");
}

#[test]
fn pull() {
    // No probes meanwhile: it is the pull that repairs what all gossip lost.
    let rare = Config { probe_interval: 600 * SECOND, ..Config::lan() };
    let (mut net, mut transcript) = cluster(rare, 2);
    net.loss = 1.0;
    net.add(addr(0), "default", "web");
    net.run(2 * SECOND);
    net.loss = 0.0;
    net.run_until(20 * SECOND, |net| {
        heard(net, 1, |event| matches!(event, Event::RoleAdded { .. }))
    });
    transcript.check(&mut net, "pull");
}
