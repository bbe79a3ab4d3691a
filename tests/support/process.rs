//! The `node` example as a process of a test: driven over its input, read over its output.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What has not happened by then does not happen; nothing here asserts how quick it is.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The example's executable. `cargo test` builds all examples, `cargo test --test processes` none:
/// where cargo is known, it is asked to see to it.
pub fn node_binary() -> &'static Path {
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

/// What a process told, and when that was read here.
#[derive(Clone, Debug)]
pub struct Line {
    pub at: Instant,
    pub value: Value,
}

/// A child process that is killed when this is dropped, whatever the test came to.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended by itself. SIGKILL ends a stopped process too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Reaped {
    /// Starts a node with a command that has its flags but for the name: the process, and both ends
    /// to talk to it.
    pub fn node(name: &str, mut command: Command) -> (Reaped, ChildStdin, BufReader<ChildStdout>) {
        command.args(["--json", "--name", name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the node example starts");
        let input = child.stdin.take().expect("its input is piped");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        (Reaped(child), input, output)
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().expect("there is kill");
        assert!(status.success(), "kill {signal} {pid}");
    }
}

/// A node, asked and heard.
pub struct Process {
    pub child: Reaped,
    pub input: Option<ChildStdin>,
    lines: Receiver<Line>,
    /// All events so far.
    pub events: Vec<Line>,
    pub name: String,
    pub addr: String,
}

impl Process {
    /// Starts a node with a command that has its other flags; waits until it is ready.
    pub fn start(name: &str, command: Command) -> Process {
        let (child, input, output) = Reaped::node(name, command);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let at = Instant::now();
                let value = serde_json::from_str(&line).expect("every line is JSON");
                if sender.send(Line { at, value }).is_err() {
                    return;
                }
            }
        });
        let (events, addr) = (Vec::new(), String::new());
        let mut process =
            Process { child, input: Some(input), lines, events, name: name.into(), addr };
        process.addr = text(&process.ready()["addr"]);
        process
    }

    /// The first event that it told.
    pub fn ready(&mut self) -> Value {
        self.event("it is ready", |event| event["event"] == "ready").value
    }

    fn next_line(&self, deadline: Instant) -> Option<Line> {
        self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// The first event of that kind, past or to come.
    pub fn event(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Line {
        if let Some(event) = self.events.iter().find(|event| is_it(&event.value)) {
            return event.clone();
        }
        let deadline = Instant::now() + LIMIT;
        while let Some(line) = self.next_line(deadline) {
            self.events.push(line.clone());
            if is_it(&line.value) {
                return line;
            }
        }
        let told: Vec<&Value> = self.events.iter().map(|event| &event.value).collect();
        panic!("{} did not tell that {what}; it told {told:#?}", self.name);
    }

    pub fn sees_down(&mut self, name: &str, reason: &str) {
        self.event(&format!("{name} is down: {reason}"), |event| {
            event["event"] == "node_down" && event["node"] == name && event["reason"] == reason
        });
    }

    /// Gives a command and returns its answer.
    pub fn ask(&mut self, command: &str) -> Value {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{command}").expect("it reads its input");
        let deadline = Instant::now() + LIMIT;
        while let Some(line) = self.next_line(deadline) {
            if line.value.get("event").is_none() {
                return line.value;
            }
            self.events.push(line);
        }
        panic!("{} did not answer {command}", self.name);
    }

    /// Gives a command that must not be refused.
    pub fn tell(&mut self, command: &str) {
        let answer = self.ask(command);
        assert!(answer.get("error").is_none(), "{command}: {answer}");
    }

    pub fn nodes(&mut self, role_and_scope: &str) -> Vec<String> {
        texts(&self.ask(&format!("nodes {role_and_scope}"))["nodes"])
    }

    pub fn members(&mut self) -> Vec<String> {
        let answer = self.ask("members");
        let members = answer["members"].as_array().expect("a list");
        members.iter().map(|node| text(&node["node"])).collect()
    }

    pub fn signal(&self, signal: &str) {
        self.child.signal(signal);
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.signal("-KILL");
        self.child.0.wait().expect("it was started here");
    }

    /// What it knows of a scope: every node there with its roles.
    pub fn picture(&mut self, scope: &str) -> Vec<(String, Vec<String>)> {
        let nodes = texts(&self.ask(&format!("all {scope}"))["nodes"]);
        let mut roles = |node: &str| texts(&self.ask(&format!("roles {node} {scope}"))["roles"]);
        nodes.iter().map(|node| (node.clone(), roles(node))).collect()
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is text")).into()
}

pub fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap_or_else(|| panic!("{value} is a list")).iter().map(text).collect()
}

/// Waits until it is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < deadline, "never so: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
