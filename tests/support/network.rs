//! Hosts of a test: network namespaces, one each, joined by a bridge that can lose datagrams.
//!
//! Needs root, `ip` (iproute2) and `nft` (nftables).

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The drops and, before them, how many datagrams came by.
const LOSS_TABLE: &str = "loss";

/// Runs a command, its words apart by blanks: what it printed, or why it did not work.
fn run(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command has a name");
    let output = Command::new(program).args(words).output();
    let output = output.map_err(|error| format!("`{line}`: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// For what works wherever the first commands did.
fn must(line: &str) -> String {
    run(line).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command that reads this script.
fn feed(mut command: Command, script: &str) {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it ran before");
    let mut input = child.stdin.take().expect("its input is piped");
    input.write_all(script.as_bytes()).expect("it reads its input");
    drop(input);
    assert!(child.wait().is_ok_and(|status| status.success()), "{command:?} takes {script}");
}

/// A namespace with a bridge, and one for each host that is plugged into it. Dropped, they are
/// deleted, and all that is in them; in the namespace of the test itself there is nothing of it.
pub struct Network {
    namespaces: Vec<String>,
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            if let Err(error) = run(&format!("ip netns delete {namespace}")) {
                eprintln!("{error}");
            }
        }
    }
}

impl Network {
    /// The bridge; where there can be none, it is said why, and that the test is skipped.
    pub fn new(test: &str) -> Option<Network> {
        let network = Network::try_new(test);
        let skipped = |why: &String| {
            // Past the capture of what tests print: that it was skipped is always said.
            let _ = writeln!(std::io::stderr(), "skipped, no network namespaces here: {why}");
        };
        network.inspect_err(skipped).ok()
    }

    fn try_new(test: &str) -> Result<Network, String> {
        let mut network = Network { namespaces: Vec::new() };
        // Names hold the id of this process, so that tests beside each other do not meet.
        let hub = network.add_namespace(&format!("rolecall-{}-{test}", std::process::id()))?;
        let nft = format!("ip netns exec {hub} nft add");
        run(&format!("{nft} table bridge {LOSS_TABLE}"))?;
        // Before the bridge's own hooks, at 0, which let others at 0 be passed over.
        let hook = "{ type filter hook forward priority filter ; }";
        run(&format!("{nft} chain bridge {LOSS_TABLE} passing {hook}"))?;
        must(&format!("ip -n {hub} link add hub type bridge"));
        must(&format!("ip -n {hub} link set hub up"));
        Ok(network)
    }

    fn add_namespace(&mut self, name: &str) -> Result<String, String> {
        run(&format!("ip netns add {name}"))?;
        self.namespaces.push(name.into());
        Ok(name.into())
    }

    fn hub(&self) -> &str {
        &self.namespaces[0]
    }

    /// One more host, with an address of its own.
    pub fn add_host(&mut self, number: usize) -> Host {
        let name = format!("{}-{number}", self.hub());
        let namespace = self.add_namespace(&name).expect("there can be another");
        let (hub, port) = (self.hub(), format!("port{number}"));
        let plug = format!("link add {port} netns {hub} type veth");
        must(&format!("ip {plug} peer name eth0 netns {namespace}"));
        must(&format!("ip -n {hub} link set {port} master hub up"));
        let address = format!("10.77.0.{}", number + 1);
        let hardware = format!("02:77:00:00:00:{:02x}", number + 1);
        must(&format!("ip -n {namespace} link set eth0 address {hardware}"));
        must(&format!("ip -n {namespace} address add {address}/24 dev eth0"));
        must(&format!("ip -n {namespace} link set lo up"));
        must(&format!("ip -n {namespace} link set eth0 up"));
        Host { namespace, port, address, hardware }
    }

    /// All know each other's hardware address from now on. What they would find out themselves
    /// goes into one table of the kernel, for all namespaces, with room for 1,024: with some thirty
    /// hosts that is full at times, and then they cannot send (`ENOBUFS`).
    pub fn introduce(hosts: &[Host]) {
        for host in hosts {
            let mut script = String::new();
            for Host { address, hardware, .. } in hosts.iter().filter(|it| it.port != host.port) {
                let entry = format!("{address} lladdr {hardware} dev eth0 nud permanent");
                let _ = writeln!(script, "neighbor add {entry}");
            }
            let mut ip = Command::new("ip");
            ip.args(["-n", &host.namespace, "-batch", "-"]);
            feed(ip, &script);
        }
    }

    /// From now on a host hears nobody, and nobody hears it.
    pub fn unplug(&self, host: &Host) {
        must(&format!("ip -n {} link set {} down", self.hub(), host.port));
    }

    /// A host that was unplugged is there again.
    pub fn plug_in(&self, host: &Host) {
        must(&format!("ip -n {} link set {} up", self.hub(), host.port));
    }

    /// From now on so many of a hundred datagrams are lost.
    pub fn lose(&self, percent: u32) {
        let nft = format!("ip netns exec {} nft", self.hub());
        let dropped = format!("numgen random mod 100 < {percent} counter drop");
        let rule = format!("{LOSS_TABLE} passing meta l4proto udp counter {dropped}");
        must(&format!("{nft} add rule bridge {rule}"));
    }

    /// Datagrams that came by since some are lost, and those of them that were.
    pub fn counts(&self) -> (u64, u64) {
        let hub = self.hub();
        let rules = must(&format!("ip netns exec {hub} nft list table bridge {LOSS_TABLE}"));
        let words: Vec<&str> = rules.split_whitespace().collect();
        let counts = words.windows(2).filter(|pair| pair[0] == "packets");
        let mut counts = counts.map(|pair| pair[1].parse().expect("a count"));
        let mut next = || counts.next().expect("two counters");
        (next(), next())
    }

    /// From now on the bridge does what these rules say, and nothing else. No datagram meets half
    /// of them.
    pub fn set_rules(&self, rules: &[String]) {
        let mut script = format!("flush chain bridge {LOSS_TABLE} passing\n");
        for rule in rules {
            let _ = writeln!(script, "add rule bridge {LOSS_TABLE} passing {rule}");
        }
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", self.hub(), "nft", "-f", "-"]);
        feed(nft, &script);
    }

    /// From now on all datagrams arrive.
    pub fn heal(&self) {
        must(&format!("ip netns exec {} nft flush ruleset", self.hub()));
    }
}

/// Where a process can run alone.
pub struct Host {
    namespace: String,
    /// Its end of the cable on the bridge.
    pub port: String,
    pub address: String,
    hardware: String,
}

impl Host {
    /// Runs a program there. It becomes that program: there is no process between.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }
}
