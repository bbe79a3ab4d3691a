//! Real processes on real sockets: the `node` example, killed, stopped, restarted and told to go.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What has not happened by then does not happen; nothing here asserts how quick it is.
const LIMIT: Duration = Duration::from_secs(30);

/// The example's executable. `cargo test` builds all examples, `cargo test --test processes` none:
/// where cargo is known, it is asked to see to it.
fn node_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its executable");
        let profile = test.ancestors().nth(2).expect("it is in <profile>/deps");
        let binary = profile.join("examples").join("node");
        if let Some(cargo) = std::env::var_os("CARGO") {
            let target = profile.parent().expect("a profile is in the target directory");
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--example", "node", "--target-dir"]).arg(target);
            if profile.ends_with("release") {
                build.arg("--release");
            }
            build.current_dir(env!("CARGO_MANIFEST_DIR"));
            assert!(build.status().expect("cargo runs").success(), "the node example builds");
        }
        assert!(binary.exists(), "no {}: run `cargo build --example node`", binary.display());
        binary
    })
}

/// A process of this test. Dropped, it is killed, whatever the test came to.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// All events so far.
    events: Vec<Value>,
    name: String,
    addr: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself. SIGKILL ends a stopped process too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts a node on a port that the kernel chooses, unless `flags` bind it; waits until it is
    /// ready.
    fn start(name: &str, seeds: &[&str], flags: &[&str]) -> Process {
        let mut command = Command::new(node_binary());
        command.args(["--json", "--preset", "local", "--name", name]);
        if !flags.contains(&"--bind") {
            command.args(["--bind", "127.0.0.1:0"]);
        }
        for seed in seeds {
            command.args(["--seed", seed]);
        }
        command.args(flags).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the node example starts");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("every line is JSON");
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        let (events, addr) = (Vec::new(), String::new());
        let mut process = Process { child, input, lines, events, name: name.into(), addr };
        let ready = process.event("it is ready", |event| event["event"] == "ready");
        process.addr = ready["addr"].as_str().expect("an address").into();
        process
    }

    fn next_line(&self, deadline: Instant) -> Option<Value> {
        self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// The first event of that kind, past or to come.
    fn event(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(event) = self.events.iter().find(|event| is_it(event)) {
            return event.clone();
        }
        let deadline = Instant::now() + LIMIT;
        while let Some(line) = self.next_line(deadline) {
            self.events.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
        panic!("{} did not tell that {what}; it told {:#?}", self.name, self.events);
    }

    fn sees_down(&mut self, name: &str, reason: &str) {
        self.event(&format!("{name} is down: {reason}"), |event| {
            event["event"] == "node_down" && event["node"] == name && event["reason"] == reason
        });
    }

    /// Gives a command and returns its answer.
    fn ask(&mut self, command: &str) -> Value {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{command}").expect("it reads its input");
        let deadline = Instant::now() + LIMIT;
        while let Some(line) = self.next_line(deadline) {
            if line.get("event").is_none() {
                return line;
            }
            self.events.push(line);
        }
        panic!("{} did not answer {command}", self.name);
    }

    /// Gives a command that must not be refused.
    fn tell(&mut self, command: &str) {
        let answer = self.ask(command);
        assert!(answer.get("error").is_none(), "{command}: {answer}");
    }

    fn nodes(&mut self, role_and_scope: &str) -> Vec<String> {
        texts(&self.ask(&format!("nodes {role_and_scope}"))["nodes"])
    }

    fn members(&mut self) -> Vec<String> {
        let answer = self.ask("members");
        let members = answer["members"].as_array().expect("a list");
        members.iter().map(|node| text(&node["node"])).collect()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("there is kill");
        assert!(status.success(), "kill {signal} {pid}");
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.signal("-KILL");
        self.child.wait().expect("it was started here");
    }

    /// What it knows of a scope: every node there with its roles.
    fn picture(&mut self, scope: &str) -> Vec<(String, Vec<String>)> {
        let nodes = texts(&self.ask(&format!("all {scope}"))["nodes"]);
        let mut roles = |node: &str| texts(&self.ask(&format!("roles {node} {scope}"))["roles"]);
        nodes.iter().map(|node| (node.clone(), roles(node))).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is text")).into()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap_or_else(|| panic!("{value} is a list")).iter().map(text).collect()
}

/// Waits until it is so.
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < deadline, "never so: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn all_see(processes: &mut [Process], names: &[&str]) {
    eventually(&format!("all see {names:?}"), || {
        processes.iter_mut().all(|process| process.members() == names)
    });
}

/// `names` on ports of their own, the first as everybody's seed, each with the role `web` and, in
/// `jobs`, `worker`.
fn cluster(names: &[&str]) -> Vec<Process> {
    let flags = ["--role", "web", "--scope-role", "jobs=worker"];
    let mut processes: Vec<Process> = Vec::new();
    for name in names {
        let seed = processes.first().map(|first| first.addr.clone());
        let seeds: Vec<&str> = seed.as_deref().into_iter().collect();
        processes.push(Process::start(name, &seeds, &flags));
    }
    all_see(&mut processes, names);
    for role in ["web", "worker jobs"] {
        eventually(role, || processes.iter_mut().all(|process| process.nodes(role) == names));
    }
    processes
}

#[test]
fn a_killed_process_is_down_for_all_others_and_its_roles_are_gone() {
    let mut processes = cluster(&["a", "b", "c", "d", "e"]);
    let mut killed = processes.remove(2);
    killed.kill();
    for process in &mut processes {
        process.sees_down("c", "failed");
        assert_eq!(process.nodes("web"), ["a", "b", "d", "e"]);
        assert_eq!(process.nodes("worker jobs"), ["a", "b", "d", "e"]);
        assert_eq!(process.members(), ["a", "b", "d", "e"]);
    }
}

#[test]
fn a_stopped_process_catches_up_when_it_goes_on() {
    let mut processes = cluster(&["a", "b", "c", "d"]);
    processes[3].tell("add old");
    processes[3].signal("-STOP");
    let stopped = Instant::now();
    for round in 0..10 {
        for process in &mut processes[..3] {
            process.tell(&format!("add round-{round}"));
            process.tell(&format!("remove round-{}", round % 3));
            process.tell(&format!("add job-{round} jobs"));
        }
        processes[0].tell("remove web");
        processes[0].tell("add web");
        std::thread::sleep(Duration::from_millis(300));
    }
    std::thread::sleep(Duration::from_secs(5).saturating_sub(stopped.elapsed()));
    processes[3].signal("-CONT");
    processes[3].tell("add new");
    all_see(&mut processes, &["a", "b", "c", "d"]);
    for scope in ["default", "jobs"] {
        let mut pictures = Vec::new();
        eventually(&format!("all views of {scope} are equal"), || {
            pictures = processes.iter_mut().map(|process| process.picture(scope)).collect();
            pictures.windows(2).all(|pair| pair[0] == pair[1]) && pictures[0].len() == 4
        });
        let expected = if scope == "jobs" { "job-9" } else { "round-9" };
        assert!(pictures[0][0].1.contains(&expected.to_string()), "{:?}", pictures[0]);
    }
    assert!(processes[0].picture("default")[3].1.contains(&"new".to_string()));
}

/// 1,000 quick changes in each of ten processes, one of which stands still for 5 s in the middle.
#[test]
fn nothing_is_lost_when_all_change_and_one_stands_still() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut processes = cluster(&names);
    let change = |process: &mut Process, n: u32| {
        if n.is_multiple_of(2) {
            process.tell(&format!("add role-{}", n % 40));
        } else {
            process.tell(&format!("remove role-{}", (n * 7 + 13) % 40));
        }
    };
    for n in 0..500 {
        processes.iter_mut().for_each(|process| change(process, n));
    }
    processes[9].signal("-STOP");
    let stopped = Instant::now();
    for n in 500..1000 {
        processes[..9].iter_mut().for_each(|process| change(process, n));
    }
    std::thread::sleep(Duration::from_secs(5).saturating_sub(stopped.elapsed()));
    processes[9].signal("-CONT");
    let went_on = Instant::now();
    for n in 500..1000 {
        change(&mut processes[9], n);
    }
    for process in &mut processes {
        process.tell("add last");
    }
    let mut pictures = Vec::new();
    eventually("all views are equal, with every last change", || {
        pictures = processes.iter_mut().map(|process| process.picture("default")).collect();
        let last = |(_, roles): &(String, Vec<String>)| roles.contains(&"last".to_string());
        pictures.windows(2).all(|pair| pair[0] == pair[1])
            && pictures[0].len() == 10
            && pictures[0].iter().all(last)
    });
    println!("all views equal {:.1?} after the stopped one went on", went_on.elapsed());
}

/// Kills `b` of three, starts it again with another role and the given flags, and watches that
/// nobody ever shows both runs.
fn restart_of_b(flags: impl Fn(&str) -> Vec<String>) {
    let mut processes = cluster(&["a", "b", "c"]);
    let mut old = processes.remove(1);
    let mut flags = flags(&old.addr);
    flags.extend(["--role".into(), "api".into()]);
    old.kill();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut new = Process::start("b", &[&processes[0].addr.clone()], &flags);
    let deadline = Instant::now() + LIMIT;
    let mut settled = false;
    while !settled {
        assert!(Instant::now() < deadline, "the new run is not seen by all");
        settled = true;
        for process in &mut processes {
            let roles = texts(&process.ask("roles b")["roles"]);
            assert!(roles == ["web"] || roles == ["api"] || roles.is_empty(), "{roles:?}");
            assert!(process.members().iter().filter(|name| *name == "b").count() <= 1);
            settled &= roles == ["api"];
        }
    }
    let id = text(&new.events[0]["id"]);
    for process in &mut processes {
        let answer = process.ask("members");
        let b = &answer["members"][1];
        assert_eq!((&b["id"], &b["addr"]), (&Value::from(id.as_str()), &new.addr.clone().into()));
        assert_eq!(process.nodes("web"), ["a", "c"]);
        assert_eq!(process.nodes("worker jobs"), ["a", "c"]);
    }
    assert_eq!(new.members(), ["a", "b", "c"]);
    assert_eq!(new.nodes("web"), ["a", "c"]);
}

#[test]
fn a_restart_at_the_same_address_replaces_the_old_run() {
    restart_of_b(|addr| vec!["--bind".into(), addr.into()]);
}

#[test]
fn a_restart_at_another_address_replaces_the_old_run() {
    restart_of_b(|_| Vec::new());
}

#[test]
fn a_whole_cluster_restarts() {
    let mut processes = cluster(&["a", "b", "c"]);
    let addrs: Vec<String> = processes.iter().map(|process| process.addr.clone()).collect();
    for process in &mut processes {
        process.kill();
    }
    drop(processes);
    let seeds: Vec<&str> = addrs.iter().map(String::as_str).collect();
    // Each waits a while for the others before it is ready: all are started at once.
    let mut processes: Vec<Process> = std::thread::scope(|scope| {
        let start = |(name, addr)| Process::start(name, &seeds, &["--bind", addr, "--role", "new"]);
        let pairs = ["a", "b", "c"].into_iter().zip(seeds.iter().copied());
        let started: Vec<_> = pairs.map(|pair| scope.spawn(move || start(pair))).collect();
        started.into_iter().map(|thread| thread.join().expect("it starts")).collect()
    });
    all_see(&mut processes, &["a", "b", "c"]);
    eventually("all have the new roles only", || {
        let new = |process: &mut Process| process.nodes("new").len() == 3;
        processes.iter_mut().all(new)
    });
    for process in &mut processes {
        assert!(process.nodes("web").is_empty(), "a role of the last life is shown");
    }
}

#[test]
fn a_terminated_process_says_goodbye() {
    let mut processes = cluster(&["a", "b", "c", "d"]);
    let mut gone = processes.remove(1);
    gone.signal("-TERM");
    gone.event("it has left", |event| event["event"] == "left");
    assert!(gone.child.wait().expect("it was started here").success());
    let mut ends = processes.remove(2);
    ends.input = None;
    assert!(ends.child.wait().expect("it was started here").success());
    for process in &mut processes {
        process.sees_down("b", "left");
        process.sees_down("d", "left");
        assert_eq!(process.nodes("web"), ["a", "c"]);
        assert_eq!(process.members(), ["a", "c"]);
    }
}

#[test]
fn clusters_of_different_names_never_merge() {
    let mut red = Process::start("r1", &[], &["--cluster", "red", "--role", "web"]);
    let blue = ["--cluster", "blue", "--role", "web"];
    let mut blue1 = Process::start("b1", &[&red.addr], &blue);
    let red2 = ["--cluster", "red", "--role", "web"];
    let mut red2 = Process::start("r2", &[&blue1.addr, &red.addr], &red2);
    let mut blue2 = Process::start("b2", &[&red.addr, &red2.addr, &blue1.addr], &blue);
    let start = Instant::now();
    // Seeds are tried again every two seconds: they have met more than once by then.
    eventually("each cluster has met, and some time has passed", || {
        for (process, initial) in [(&mut red, 'r'), (&mut red2, 'r'), (&mut blue1, 'b')] {
            let nodes = [process.members(), process.nodes("web")].concat();
            assert!(nodes.iter().all(|name| name.starts_with(initial)), "{nodes:?}");
        }
        start.elapsed() > Duration::from_secs(5)
            && red.members() == ["r1", "r2"]
            && blue2.members() == ["b1", "b2"]
    });
    assert_eq!(blue2.nodes("web"), ["b1", "b2"]);
    assert_eq!(red2.nodes("web"), ["r1", "r2"]);
}

#[test]
fn what_is_not_understood_is_refused_with_words() {
    let mut node = Process::start("a", &[], &[]);
    for (command, part) in [
        ("fly", "\"fly\" is not a command"),
        ("add", "not a command"),
        ("leave nowhere", "not in that scope"),
        ("join default", "already in that scope"),
    ] {
        let answer = node.ask(command);
        assert!(text(&answer["error"]).contains(part), "{answer}");
    }
    for (flags, part) in [
        (&["--fly"][..], "no flag --fly"),
        (&["--role", "web"], "--name is missing"),
        (&["--name", "a", "--preset", "moon"], "--preset moon"),
        (&["--name", "a", "--scope-role", "jobs"], "SCOPE=ROLE"),
        (&["--name", "a", "stray"], "stray"),
    ] {
        let output = Command::new(node_binary()).args(flags).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(part), "{errors}");
    }
}
