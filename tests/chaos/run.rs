//! A run of a node: its process, what it was asked and has not answered, what it told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::Reaped;

/// The roles of a node, by scope; a scope that it is in and has no role in is there too.
pub type Roles = BTreeMap<String, BTreeSet<String>>;

/// A line that a process printed, or its end.
pub struct Told {
    pub run: usize,
    pub at: Instant,
    pub line: Option<Value>,
}

/// What an answer is to be checked against, or used for.
#[derive(Clone, Debug)]
pub enum Question {
    Add { role: String, scope: String },
    Remove { role: String, scope: String },
    Join { scope: String },
    LeaveScope { scope: String },
    Members,
    All { scope: String },
    Nodes { role: String, scope: String },
    Roles { node: String, scope: String },
    Picture,
    Stats,
}

impl Question {
    /// The command, and the key of its answer, which is the first word of both.
    pub fn command(&self) -> String {
        match self {
            Question::Add { role, scope } => format!("add {role} {scope}"),
            Question::Remove { role, scope } => format!("remove {role} {scope}"),
            Question::Join { scope } => format!("join {scope}"),
            Question::LeaveScope { scope } => format!("leave {scope}"),
            Question::Members => "members".into(),
            Question::All { scope } => format!("all {scope}"),
            Question::Nodes { role, scope } => format!("nodes {role} {scope}"),
            Question::Roles { node, scope } => format!("roles {node} {scope}"),
            Question::Picture => "picture".into(),
            Question::Stats => "stats".into(),
        }
    }

    pub fn is_change(&self) -> bool {
        use Question::{Add, Join, LeaveScope, Remove};
        matches!(self, Add { .. } | Remove { .. } | Join { .. } | LeaveScope { .. })
    }
}

pub struct Asked {
    pub question: Question,
    pub at: Instant,
}

pub struct Run {
    /// No other run of this test has it.
    pub number: usize,
    pub name: String,
    /// Empty until it is ready.
    pub id: String,
    pub addr: String,
    child: Reaped,
    input: ChildStdin,
    pub asked: VecDeque<Asked>,
    /// What it has acknowledged.
    pub roles: Roles,
    pub stopped: Option<Instant>,
    /// Answers are late from then on at the earliest.
    pub went_on: Instant,
    /// It was told to end.
    pub leaving: bool,
    /// It was said that it does not answer.
    pub is_silent: bool,
}

impl Run {
    /// Starts a process with a command that has its flags but for the name; what it prints goes to
    /// the sender, what it says beside to the log.
    pub fn start(
        number: usize,
        name: &str,
        mut command: Command,
        log: &Path,
        told: Sender<Told>,
    ) -> Run {
        let log = File::create(log).expect("a file can be made");
        command.stderr(log);
        let (child, input, output) = Reaped::node(name, command);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let at = Instant::now();
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if told.send(Told { run: number, at, line: Some(line) }).is_err() {
                    return;
                }
            }
            let _ = told.send(Told { run: number, at: Instant::now(), line: None });
        });
        Run {
            number,
            name: name.into(),
            id: String::new(),
            addr: String::new(),
            child,
            input,
            asked: VecDeque::new(),
            roles: Roles::new(),
            stopped: None,
            went_on: Instant::now(),
            leaving: false,
            is_silent: false,
        }
    }

    pub fn is_ready(&self) -> bool {
        !self.id.is_empty()
    }

    /// Whether it can be asked now.
    pub fn is_awake(&self) -> bool {
        self.is_ready() && self.stopped.is_none() && !self.leaving
    }

    /// Asks; the answer comes with what it tells. A process that has just died answers nothing.
    pub fn ask(&mut self, question: Question) {
        let _ = writeln!(self.input, "{}", question.command());
        self.asked.push_back(Asked { question, at: Instant::now() });
    }

    pub fn is_asked(&self, which: impl Fn(&Question) -> bool) -> bool {
        self.asked.iter().any(|it| which(&it.question))
    }

    /// How long it has owed an answer; what it stood still does not count.
    pub fn owing(&self, now: Instant) -> Option<Duration> {
        let first = self.asked.front().filter(|_| self.stopped.is_none())?;
        Some(now.saturating_duration_since(first.at.max(self.went_on)))
    }

    pub fn signal(&self, signal: &str) {
        self.child.signal(signal);
    }

    pub fn say_goodbye(&mut self) {
        self.leaving = true;
        self.asked.clear();
        let _ = writeln!(self.input, "quit");
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.0.try_wait().expect("it was started here")
    }

    /// Resident memory in KiB, and open file descriptors.
    pub fn holds(&self) -> (u64, u64) {
        let proc = PathBuf::from(format!("/proc/{}", self.child.0.id()));
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|it| it.split_whitespace().next()?.parse().ok());
        let files = std::fs::read_dir(proc.join("fd")).map_or(0, Iterator::count);
        (resident.unwrap_or(0), files as u64)
    }
}
