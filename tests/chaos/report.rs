//! What is counted, and what must not be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::Fleet;
use crate::process::text;
use crate::run::Question;
use crate::schedule::{ELDERS, Kind};

/// An elder may hold so much more at the end than after the first calm: half as much again and so
/// many KiB of memory, so many more open files. Beside what the cluster's state needs, an elder
/// remembers every dead run.
const MORE_KIB: u64 = 4096;
const MORE_FILES: u64 = 16;

/// A node-down that a process told.
pub struct Down {
    pub at: Instant,
    pub observer: usize,
    pub event: Value,
}

pub struct Report {
    pub start: Instant,
    pub faults: BTreeMap<Kind, usize>,
    pub phases: usize,
    /// Node-downs that were not judged yet.
    pub downs: Vec<Down>,
    pub downs_of_touched: usize,
    pub downs_told_by_cut_off: usize,
    pub false_downs: usize,
    /// Of those, how many of nodes that were on probation in the calm.
    false_downs_on_probation: usize,
    pub lost: usize,
    /// After phases in which nobody flapped, and after the others.
    longest_disagreement: [Duration; 2],
    pub unexpected_ends: usize,
    pub events: usize,
    name_conflicts: usize,
    changes: usize,
    answers: Vec<Duration>,
    problems: Vec<String>,
    /// What each elder held, memory and files, after the first calm and the last.
    held: BTreeMap<usize, [(u64, u64); 2]>,
    stall: Arc<AtomicU64>,
}

impl Report {
    pub fn new() -> Report {
        Report {
            start: Instant::now(),
            faults: BTreeMap::new(),
            phases: 0,
            downs: Vec::new(),
            downs_of_touched: 0,
            downs_told_by_cut_off: 0,
            false_downs: 0,
            false_downs_on_probation: 0,
            lost: 0,
            longest_disagreement: [Duration::ZERO; 2],
            unexpected_ends: 0,
            events: 0,
            name_conflicts: 0,
            changes: 0,
            answers: Vec::new(),
            problems: Vec::new(),
            held: BTreeMap::new(),
            stall: watch_for_stalls(),
        }
    }

    /// Something that must not be.
    pub fn problem(&mut self, what: &str) {
        println!("{:8.2} s PROBLEM {what}", self.start.elapsed().as_secs_f64());
        self.problems.push(what.into());
    }

    pub fn answered(&mut self, after: Duration, question: &Question) {
        self.answers.push(after);
        self.changes += usize::from(question.is_change());
    }

    pub fn agreed(&mut self, after: Duration, somebody_was_on_probation: bool) {
        let longest = &mut self.longest_disagreement[usize::from(somebody_was_on_probation)];
        *longest = after.max(*longest);
    }

    pub fn name_conflict(&mut self, observer: &str, event: &Value) {
        println!("{:8.2} s {observer} told {event}", self.start.elapsed().as_secs_f64());
        self.name_conflicts += 1;
    }

    /// The longest time for which this machine did not let a thread go on, since it was last
    /// asked.
    pub fn take_stall(&self) -> Duration {
        Duration::from_millis(self.stall.swap(0, Ordering::Relaxed))
    }
}

/// A thread that sleeps all the time, and notes when it wakes too late.
fn watch_for_stalls() -> Arc<AtomicU64> {
    let stall = Arc::new(AtomicU64::new(0));
    let noted = Arc::downgrade(&stall);
    std::thread::spawn(move || {
        while let Some(noted) = noted.upgrade() {
            let start = Instant::now();
            std::thread::sleep(Duration::from_millis(5));
            let late = start.elapsed().as_millis().saturating_sub(5);
            noted.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    });
    stall
}

impl Fleet {
    /// Judges what was told to be down since the phase began: who was untouched must not have been.
    pub fn judge_downs(&mut self) {
        let mut of_touched = 0;
        for Down { at, observer, event } in std::mem::take(&mut self.report.downs) {
            let (observer, subject) = (&self.pasts[observer], self.ids.get(&text(&event["id"])));
            let Some(subject) = subject else {
                // Killed before it could say which run it was.
                let name = text(&event["node"]);
                if self.pasts.iter().any(|past| past.name == name && !past.was_ready) {
                    of_touched += 1;
                } else {
                    let what = format!("{} told of a run that never was: {event}", observer.name);
                    self.report.problem(&what);
                }
                continue;
            };
            let slot = self.pasts[*subject].slot;
            let is_gone = self.slots[slot].run.as_ref().is_none_or(|it| it.number != *subject);
            if is_gone || self.cuts.touched.contains(&slot) {
                of_touched += 1;
            } else if self.cuts.cut_off.contains(&observer.slot) {
                self.report.downs_told_by_cut_off += 1;
            } else {
                self.report.false_downs += 1;
                let at = (at - self.report.start).as_secs_f64();
                let is_out = self.cuts.on_probation.contains(&text(&event["node"]));
                self.report.false_downs_on_probation += usize::from(is_out);
                let out = if is_out { " of a node on probation" } else { "" };
                let what = format!(
                    "false node-down{out} at {at:.2} s, told by {}: {event}",
                    observer.name
                );
                self.report.problem(&what);
            }
        }
        self.report.downs_of_touched += of_touched;
    }

    /// Notes what the elders hold: the first time, and the last.
    pub fn weigh_elders(&mut self) {
        for slot in 0..ELDERS {
            let Some(run) = &self.slots[slot].run else { continue };
            let holds = run.holds();
            self.report.held.entry(slot).or_insert([holds, holds])[1] = holds;
        }
    }

    /// Looks for panics in what processes wrote beside their output.
    fn look_into_logs(&mut self) -> usize {
        let mut panics = 0;
        for past in &self.pasts {
            let log = std::fs::read_to_string(&past.log).unwrap_or_default();
            if log.contains("panicked at") || log.contains("fatal runtime error") {
                panics += 1;
                println!("a panic of {}, {}:\n{log}", past.name, past.log.display());
            } else if !log.is_empty() && std::env::var_os("RUST_LOG").is_none() {
                println!("{} wrote, {}: {}", past.name, past.log.display(), log.trim_end());
            }
        }
        panics
    }

    /// Prints all that was counted. Fails when something was that must not be.
    pub fn finish(mut self, what: &str) {
        let panics = self.look_into_logs();
        for (slot, [(first, files), (last, files_at_last)]) in self.report.held.clone() {
            println!(
                "elder {slot}: resident memory {first} to {last} KiB, open files {files} to \
                 {files_at_last}"
            );
            if last > first + first / 2 + MORE_KIB || files_at_last > files + MORE_FILES {
                self.report.problem(&format!("elder {slot} holds too much"));
            }
        }
        let Report { faults, answers, .. } = &mut self.report;
        for (kind, count) in faults.iter() {
            println!("survived {count:4}: {}", kind.name());
        }
        answers.sort_unstable();
        let at = |per_mille: usize| match answers.len() {
            0 => Duration::ZERO,
            length => answers[(length * per_mille / 1000).min(length - 1)],
        };
        println!(
            "{} answers, after a median of {:.1?}, 99.9 % within {:.1?}, all within {:.1?}; {} of \
             them to changes",
            answers.len(),
            at(500),
            at(999),
            at(1000),
            self.report.changes,
        );
        let report = &self.report;
        println!("{} events, {} name conflicts", report.events, report.name_conflicts);
        println!(
            "node-downs of touched nodes {}, of others told by nodes that were cut off {}",
            report.downs_of_touched, report.downs_told_by_cut_off,
        );
        println!(
            "{what}: {} phases, {} runs, {} faults in {:.0?}; lost updates {}, false node-downs \
             {} ({} of them of nodes on probation), panics {panics}, unexpected ends {}, longest \
             disagreement after calm {:.2?}, where nodes were on probation {:.2?}",
            report.phases,
            self.pasts.len(),
            report.faults.values().sum::<usize>(),
            report.start.elapsed(),
            report.lost,
            report.false_downs,
            report.false_downs_on_probation,
            report.unexpected_ends,
            report.longest_disagreement[0],
            report.longest_disagreement[1],
        );
        let problems = &report.problems;
        assert!(panics == 0, "{panics} processes panicked; see {}", self.folder.display());
        assert!(problems.is_empty(), "{}; see {}", problems.join("\n"), self.folder.display());
        if std::env::var_os("RUST_LOG").is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
