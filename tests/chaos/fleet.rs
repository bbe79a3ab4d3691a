//! Processes in network namespaces, whose roles change all the time and which are read all the
//! time; every answer and every event is checked as it comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::check;
use crate::faults::Cuts;
use crate::fold::Fold;
use crate::network::{Host, Network};
use crate::process::{node_binary, text};
use crate::report::{Down, Report};
use crate::run::{Question, Roles, Run, Told};
use crate::schedule::ELDERS;

/// The scopes; every node is in the first, and enters and leaves the others.
pub const SCOPES: [&str; 3] = ["default", "jobs", "logs"];
/// The roles that nodes take and give up, in each scope.
pub const ROLES: usize = 12;
/// Of a node that has just started, in the default scope.
const FIRST_ROLE: &str = "first";
/// Every answer comes within this time, on a busy machine too.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Questions of a client that wait for an answer.
const ASKED_AT_MOST: usize = 4;
const READ_EVERY: Duration = Duration::from_millis(150);

/// One of the nodes, over all its runs, and over all names at its place.
pub struct Slot {
    pub name: String,
    pub host: usize,
    pub run: Option<Run>,
    /// What it answered last, and when it was asked.
    pub picture: Option<(Instant, Value)>,
    pub stats: Option<Value>,
    rng: ChaCha8Rng,
    next_change: Instant,
    next_read: Instant,
}

/// What outlives a run.
pub struct Past {
    pub slot: usize,
    pub name: String,
    pub log: PathBuf,
    pub fold: Fold,
    pub was_ready: bool,
    fold_is_broken: bool,
}

/// Who has a role in a scope.
pub type Holders = BTreeMap<(String, String), Vec<String>>;

pub struct Fleet {
    pub slots: Vec<Slot>,
    pub pasts: Vec<Past>,
    /// The runs by their ids.
    pub ids: BTreeMap<String, usize>,
    pub names: BTreeSet<String>,
    pub hosts: Vec<Host>,
    /// Hosts where no node is; who has waited longest is next.
    pub free: VecDeque<usize>,
    pub cuts: Cuts,
    pub report: Report,
    /// While it is calm.
    pub truth: Option<Holders>,
    pub changes_go_on: bool,
    pub folder: PathBuf,
    change_every: Duration,
    key: Option<PathBuf>,
    told: Receiver<Told>,
    tell: Sender<Told>,
    pub network: Network,
}

impl Fleet {
    /// All processes are started; they need not be ready. Nothing, where there can be no network.
    pub fn start(test: &str, slots: usize, seed: u64, change_every: Duration) -> Option<Fleet> {
        let mut network = Network::new(test)?;
        // It may have to be built.
        node_binary();
        let spare = slots / 4 + 2;
        let hosts: Vec<_> = (0..slots + spare).map(|number| network.add_host(number)).collect();
        Network::introduce(&hosts);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{test}-{seed}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let now = Instant::now();
        let new_slot = |number: usize| Slot {
            name: format!("n{number:02}"),
            host: number,
            run: None,
            picture: None,
            stats: None,
            rng: ChaCha8Rng::seed_from_u64(seed << 8 | number as u64),
            next_change: now,
            next_read: now,
        };
        let (tell, told) = channel();
        let mut fleet = Fleet {
            slots: (0..slots).map(new_slot).collect(),
            pasts: Vec::new(),
            ids: BTreeMap::new(),
            names: BTreeSet::new(),
            hosts,
            free: (slots..slots + spare).collect(),
            cuts: Cuts::default(),
            report: Report::new(),
            truth: None,
            changes_go_on: true,
            key: write_key(seed, &folder),
            folder,
            change_every,
            told,
            tell,
            network,
        };
        (0..slots).for_each(|slot| fleet.start_run(slot));
        Some(fleet)
    }

    pub fn address(&self, slot: usize) -> String {
        format!("{}:7946", self.hosts[self.slots[slot].host].address)
    }

    /// Starts the process of a slot where the slot is now; does not wait until it is ready.
    pub fn start_run(&mut self, slot: usize) {
        let number = self.pasts.len();
        let (name, host) = (self.slots[slot].name.clone(), self.slots[slot].host);
        let mut command = self.hosts[host].command(node_binary());
        command.args(["--preset", "lan", "--bind", &self.address(slot), "--role", FIRST_ROLE]);
        // The elders do not move. Another one, in case that they are cut off.
        let count = self.slots.len();
        let other = self.slots[slot].rng.random_range(0..count);
        for seed in (0..ELDERS).chain([other]).filter(|seed| *seed != slot) {
            command.args(["--seed", &self.address(seed)]);
        }
        for scope in scopes_at_start(slot) {
            command.args(["--scope", scope]);
        }
        if let Some(key) = &self.key {
            command.arg("--key").arg(key);
        }
        let log = self.folder.join(format!("{number:04}-{name}.log"));
        let run = Run::start(number, &name, command, &log, self.tell.clone());
        self.names.insert(name.clone());
        let fold = Fold::default();
        self.pasts.push(Past { slot, name, log, fold, was_ready: false, fold_is_broken: false });
        let now = Instant::now();
        let slot = &mut self.slots[slot];
        slot.picture = None;
        slot.next_change = now + self.change_every;
        slot.run = Some(run);
    }

    /// Until then roles change and clients read, and what comes of it is checked.
    pub fn pump(&mut self, until: Instant) {
        loop {
            let now = Instant::now();
            for slot in 0..self.slots.len() {
                self.ask_what_is_due(slot, now);
            }
            let wait = until.saturating_duration_since(now).min(Duration::from_millis(5));
            match self.told.recv_timeout(wait) {
                Ok(told) => self.hear(told),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is kept"),
            }
            while let Ok(told) = self.told.try_recv() {
                self.hear(told);
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    /// Pumps until it is so: whether it was, within that time.
    pub fn pump_until(&mut self, within: Duration, so: impl Fn(&Fleet) -> bool) -> bool {
        let deadline = Instant::now() + within;
        while !so(self) {
            if Instant::now() >= deadline {
                return false;
            }
            self.pump(Instant::now() + Duration::from_millis(20));
        }
        true
    }

    /// The runs that can be asked, with their slots.
    pub fn awake(&mut self) -> impl Iterator<Item = (usize, &mut Run)> {
        let runs = self.slots.iter_mut().enumerate();
        let runs = runs.filter_map(|(slot, it)| Some((slot, it.run.as_mut()?)));
        runs.filter(|(_, run)| run.is_awake())
    }

    fn ask_what_is_due(&mut self, number: usize, now: Instant) {
        let slot = &mut self.slots[number];
        let Some(run) = &mut slot.run else { return };
        if let Some(owing) = run.owing(now).filter(|it| *it > ANSWER_WITHIN && !run.is_silent) {
            run.is_silent = true;
            self.report.problem(&format!("{} has not answered for {owing:.1?}", run.name));
        }
        if !run.is_awake() || run.asked.len() >= ASKED_AT_MOST {
            return;
        }
        if self.changes_go_on && slot.next_change <= now && !run.is_asked(Question::is_change) {
            // Behind time it makes up for what it missed, but not for a long stop.
            let long_ago = now.checked_sub(self.change_every * 4);
            let due = long_ago.map_or(slot.next_change, |it| it.max(slot.next_change));
            slot.next_change = due + self.change_every.mul_f64(slot.rng.random_range(0.5..1.5));
            run.ask(draw_change(&mut slot.rng, &run.roles));
        }
        if slot.next_read <= now {
            slot.next_read = now + READ_EVERY.mul_f64(slot.rng.random_range(0.5..1.5));
            let rng = &mut slot.rng;
            let scope = SCOPES[rng.random_range(0..SCOPES.len())].to_string();
            let question = match rng.random_range(0..6) {
                0 => Question::Members,
                1 => Question::All { scope },
                2 | 3 => Question::Nodes { role: draw_role(rng), scope },
                4 => Question::Roles { node: run.name.clone(), scope },
                _ => {
                    let other = rng.random_range(0..self.names.len());
                    let node = self.names.iter().nth(other).expect("it is that long").clone();
                    Question::Roles { node, scope }
                }
            };
            run.ask(question);
        }
    }

    fn hear(&mut self, told: Told) {
        let Told { run: number, at, line } = told;
        let slot = self.pasts[number].slot;
        let is_current = self.slots[slot].run.as_ref().is_some_and(|it| it.number == number);
        match line {
            None if is_current => self.hear_the_end(slot),
            Some(line) if line.get("event").is_some() => {
                self.hear_event(number, at, line, is_current);
            }
            Some(answer) if is_current => self.hear_answer(slot, at, answer),
            None | Some(_) => {}
        }
    }

    /// A process has ended, and was not killed.
    fn hear_the_end(&mut self, slot: usize) {
        let mut run = self.slots[slot].run.take().expect("it is the current one");
        let ended = || run.ended();
        let status = std::iter::repeat_with(ended).take(200).find_map(|status| {
            if status.is_none() {
                std::thread::sleep(Duration::from_millis(10));
            }
            status
        });
        if !run.leaving || !status.is_some_and(|it| it.success()) {
            let log = self.pasts[run.number].log.display();
            let what = if run.leaving { "after its goodbye" } else { "by itself" };
            let what = format!("{} ended {what}: {status:?}; {log}", run.name);
            self.report.unexpected_ends += 1;
            self.report.problem(&what);
        }
    }

    fn hear_event(&mut self, number: usize, at: Instant, event: Value, is_current: bool) {
        let past = &mut self.pasts[number];
        if !past.fold_is_broken
            && let Err(error) = past.fold.hear(&event)
        {
            past.fold_is_broken = true;
            self.report.problem(&format!("{} (run {number}): {error}", past.name));
        }
        self.report.events += 1;
        match event["event"].as_str().unwrap_or_default() {
            "ready" => {
                past.was_ready = true;
                self.ids.insert(text(&event["id"]), number);
                if let Some(run) = &mut self.slots[past.slot].run
                    && is_current
                {
                    run.id = text(&event["id"]);
                    run.addr = text(&event["addr"]);
                    run.roles = roles_at_start(past.slot);
                }
            }
            "node_down" => self.report.downs.push(Down { at, observer: number, event }),
            "name_conflict" => self.report.name_conflict(&past.name, &event),
            "lagged" => self.report.problem(&format!("{} {event}", past.name)),
            _ => {}
        }
    }

    fn hear_answer(&mut self, number: usize, at: Instant, answer: Value) {
        let slot = &mut self.slots[number];
        let run = slot.run.as_mut().expect("it is the current one");
        let Some(asked) = run.asked.pop_front() else {
            // It was told to go meanwhile.
            return;
        };
        let since = asked.at.max(run.went_on);
        self.report.answered(at.saturating_duration_since(since), &asked.question);
        let checked = check::answer(&asked.question, &answer, run, &self.names);
        let checked = checked.and_then(|()| match (&self.truth, &asked.question) {
            (Some(truth), question) => check::truth(question, &answer, run, truth),
            _ => Ok(()),
        });
        if let Err(error) = checked {
            let what = asked.question.command();
            self.report.problem(&format!("{}: {what}: {error}: {answer}", run.name));
        }
        match asked.question {
            Question::Picture => slot.picture = Some((asked.at, answer)),
            Question::Stats => slot.stats = Some(answer),
            question => acknowledge(question, &mut run.roles),
        }
    }
}

/// Takes in a change that was made.
fn acknowledge(question: Question, roles: &mut Roles) {
    match question {
        Question::Add { role, scope } => {
            roles.entry(scope).or_default().insert(role);
        }
        Question::Remove { role, scope } => {
            roles.entry(scope).or_default().remove(&role);
        }
        Question::Join { scope } => {
            roles.entry(scope).or_default();
        }
        Question::LeaveScope { scope } => {
            roles.remove(&scope);
        }
        _ => {}
    }
}

/// With every odd seed all datagrams are sealed.
fn write_key(seed: u64, folder: &Path) -> Option<PathBuf> {
    let digits: String = ChaCha8Rng::seed_from_u64(seed)
        .random_iter::<u8>()
        .take(32)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = folder.join("key");
    std::fs::write(&path, digits).expect("a file can be written");
    (!seed.is_multiple_of(2)).then_some(path)
}

/// Beside the default scope.
fn scopes_at_start(slot: usize) -> impl Iterator<Item = &'static str> {
    let nth = move |(number, _): &(usize, &str)| slot.is_multiple_of(number + 2);
    SCOPES[1..].iter().copied().enumerate().filter(nth).map(|(_, scope)| scope)
}

fn roles_at_start(slot: usize) -> Roles {
    let mut roles = Roles::from([(SCOPES[0].into(), BTreeSet::from([FIRST_ROLE.into()]))]);
    roles.extend(scopes_at_start(slot).map(|scope| (scope.into(), BTreeSet::new())));
    roles
}

/// All roles that anybody may have.
pub fn all_roles() -> impl Iterator<Item = String> {
    (0..ROLES).map(|number| format!("r{number}")).chain([FIRST_ROLE.into()])
}

fn draw_role(rng: &mut ChaCha8Rng) -> String {
    format!("r{}", rng.random_range(0..ROLES))
}

/// Mostly a role taken or given up, sometimes a scope entered or left.
fn draw_change(rng: &mut ChaCha8Rng, roles: &Roles) -> Question {
    let other = SCOPES[rng.random_range(1..SCOPES.len())].to_string();
    if rng.random_ratio(1, 25) {
        return if roles.contains_key(&other) {
            Question::LeaveScope { scope: other }
        } else {
            Question::Join { scope: other }
        };
    }
    let at = rng.random_range(0..roles.len());
    let (scope, held) = roles.iter().nth(at).expect("it is that long");
    let (role, scope) = (draw_role(rng), scope.clone());
    if held.contains(&role) {
        Question::Remove { role, scope }
    } else {
        Question::Add { role, scope }
    }
}
