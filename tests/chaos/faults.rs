//! Does what a schedule says, and mends it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rolecall::Config;

use crate::fleet::Fleet;
use crate::schedule::{Fault, Kind, Phase};

/// A process that was told to go is gone by then.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// What datagrams meet on the bridge now, and who may be down in this phase.
#[derive(Default)]
pub struct Cuts {
    /// By the place of the fault in its phase.
    now: BTreeMap<usize, Fault>,
    /// Slots that were killed, told to leave, cut off, or stopped for longer than is tolerated.
    pub touched: BTreeSet<usize>,
    /// Those that were cut off: they may believe that anybody is down.
    pub cut_off: BTreeSet<usize>,
    /// The names of those that were on probation in the calm: they flapped.
    pub on_probation: BTreeSet<String>,
}

/// What is done at a moment of a phase.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Mend(usize),
    Begin(usize),
    /// Who stayed down is back.
    Back(usize),
}

impl Fleet {
    /// Lives through the faults of a phase. After it all is mended but what stays down.
    pub fn live_through(&mut self, phase: &Phase) {
        let mut acts: Vec<(Duration, Act)> = Vec::new();
        for (number, fault) in phase.faults.iter().enumerate() {
            acts.push((fault.at, Act::Begin(number)));
            acts.extend(fault.until.map(|until| (until, Act::Mend(number))));
        }
        acts.extend(phase.back.iter().map(|(at, slot)| (*at, Act::Back(*slot))));
        acts.sort_unstable();
        self.cuts.touched = phase.back.iter().map(|(_, slot)| *slot).collect();
        self.cuts.cut_off.clear();
        let start = Instant::now();
        for (at, act) in acts {
            self.pump(start + at);
            match act {
                Act::Begin(number) => self.begin(number, &phase.faults[number]),
                Act::Mend(number) => self.mend(number, &phase.faults[number]),
                Act::Back(slot) => self.start_run(slot),
            }
        }
        self.pump(start + phase.length);
        for fault in &phase.faults {
            *self.report.faults.entry(fault.kind).or_default() += 1;
        }
    }

    fn begin(&mut self, number: usize, fault: &Fault) {
        if !matches!(fault.kind, Kind::Nap | Kind::Loss) {
            self.cuts.touched.extend(&fault.slots);
        }
        match fault.kind {
            Kind::Restart | Kind::Move | Kind::TakeOver => self.kill(fault.slots[0]),
            Kind::Leave => self.tell_to_go(fault.slots[0]),
            Kind::Stop | Kind::Nap => {
                if let Some(run) = &mut self.slots[fault.slots[0]].run {
                    run.stopped = Some(Instant::now());
                    run.signal("-STOP");
                }
            }
            Kind::Unplug => {
                self.cuts.cut_off.extend(&fault.slots);
                self.network.unplug(&self.hosts[self.slots[fault.slots[0]].host]);
            }
            Kind::Mute | Kind::Deafen | Kind::Partition | Kind::Loss => {
                self.cuts.cut_off.extend(&fault.slots);
                self.cuts.now.insert(number, fault.clone());
                self.set_rules();
            }
        }
    }

    fn mend(&mut self, number: usize, fault: &Fault) {
        match fault.kind {
            Kind::Restart => self.start_run(fault.slots[0]),
            Kind::Move => {
                let free = self.free.pop_front().expect("there are more hosts than nodes");
                let left = std::mem::replace(&mut self.slots[fault.slots[0]].host, free);
                self.free.push_back(left);
                self.start_run(fault.slots[0]);
                self.set_rules();
            }
            Kind::TakeOver => {
                let name = format!("n{:02}-{}", fault.slots[0], self.pasts.len());
                self.slots[fault.slots[0]].name = name;
                self.start_run(fault.slots[0]);
            }
            Kind::Leave => self.start_who_left(fault.slots[0]),
            Kind::Stop | Kind::Nap => self.wake(fault.slots[0]),
            Kind::Unplug => {
                self.network.plug_in(&self.hosts[self.slots[fault.slots[0]].host]);
            }
            Kind::Mute | Kind::Deafen | Kind::Partition | Kind::Loss => {
                self.cuts.now.remove(&number);
                self.set_rules();
            }
        }
    }

    fn kill(&mut self, slot: usize) {
        // Dropped, it is killed.
        self.slots[slot].run = None;
    }

    fn tell_to_go(&mut self, slot: usize) {
        match &mut self.slots[slot].run {
            Some(run) if run.is_awake() => run.say_goodbye(),
            // It has only just started.
            _ => self.kill(slot),
        }
    }

    fn start_who_left(&mut self, slot: usize) {
        if !self.pump_until(GONE_WITHIN, |fleet| fleet.slots[slot].run.is_none()) {
            let name = self.slots[slot].name.clone();
            self.report.problem(&format!("{name} said goodbye and is still there"));
        }
        self.start_run(slot);
    }

    fn wake(&mut self, slot: usize) {
        let Some(run) = &mut self.slots[slot].run else { return };
        run.signal("-CONT");
        run.went_on = Instant::now();
        let stopped = run.stopped.take().expect("it was stopped").elapsed();
        // Close to the limit it depends on how busy the machine is.
        if stopped > Config::lan().pause_tolerance.mul_f64(0.8) {
            self.cuts.touched.insert(slot);
        }
    }

    fn port(&self, slot: usize) -> String {
        format!("{:?}", self.hosts[self.slots[slot].host].port)
    }

    /// Makes the bridge do what is the case now.
    fn set_rules(&mut self) {
        let mut rules = Vec::new();
        for fault in self.cuts.now.values() {
            let ports: Vec<String> = fault.slots.iter().map(|slot| self.port(*slot)).collect();
            let ports = ports.join(", ");
            match fault.kind {
                // Address resolution goes on, or the other direction would end with it.
                Kind::Mute => rules.push(format!("iifname {ports} meta protocol ip drop")),
                Kind::Deafen => rules.push(format!("oifname {ports} meta protocol ip drop")),
                Kind::Partition => {
                    rules.push(format!("iifname {{ {ports} }} oifname != {{ {ports} }} drop"));
                    rules.push(format!("iifname != {{ {ports} }} oifname {{ {ports} }} drop"));
                }
                _ => {
                    let percent = fault.percent;
                    rules.push(format!("meta l4proto udp numgen random mod 100 < {percent} drop"));
                }
            }
        }
        self.network.set_rules(&rules);
    }
}
