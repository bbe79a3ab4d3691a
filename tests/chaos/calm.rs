//! When all is mended, all come to agree with the truth: with what the processes that live were
//! told and have acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::{ANSWER_WITHIN, Fleet, Holders, SCOPES, Slot, all_roles};
use crate::run::{Question, Roles};

/// All agree by then. A node that flapped stays out for 30 s from its last trouble, and on a busy
/// machine there may be more of it meanwhile.
const AGREE_WITHIN: Duration = Duration::from_secs(120);
/// What differs still then is lost.
const GIVE_UP_AFTER: Duration = Duration::from_secs(180);
/// For so long they must go on to agree.
const HOLD: Duration = Duration::from_secs(3);
/// What takes longer is told in full.
const LONG: Duration = Duration::from_secs(5);
/// Differences that are printed, of all that there are.
const SHOWN: usize = 20;

/// Who lives, and what is true of each.
struct Truth {
    /// Name, run and address of each, in the order of the names.
    members: Vec<[String; 3]>,
    roles: BTreeMap<String, Roles>,
}

impl Truth {
    fn of(fleet: &Fleet) -> Truth {
        let runs = || fleet.slots.iter().filter_map(|slot| slot.run.as_ref());
        let member = |run: &crate::run::Run| [run.name.clone(), run.id.clone(), run.addr.clone()];
        let mut members: Vec<[String; 3]> = runs().map(member).collect();
        members.sort_unstable();
        let roles = runs().map(|run| (run.name.clone(), run.roles.clone())).collect();
        Truth { members, roles }
    }

    fn holders(&self) -> Holders {
        let mut holders = Holders::new();
        for (name, roles) in &self.roles {
            for (scope, roles) in roles {
                for role in roles {
                    let key = (scope.clone(), role.clone());
                    holders.entry(key).or_default().push(name.clone());
                }
            }
        }
        holders
    }

    /// In what a node's picture differs from it.
    fn differences(&self, name: &str, picture: &Value) -> Vec<String> {
        let mut found = Vec::new();
        let members = picture["members"].as_array().into_iter().flatten();
        let word = |it: &Value, key: &str| it[key].as_str().unwrap_or_default().to_string();
        let mut members: Vec<[String; 3]> =
            members.map(|it| ["node", "id", "addr"].map(|key| word(it, key))).collect();
        members.sort_unstable();
        let missing = self.members.iter().filter(|it| !members.contains(it));
        found.extend(missing.map(|it| format!("{name}: {} is missing", it.join(" "))));
        let surplus = members.iter().filter(|it| !self.members.contains(it));
        found.extend(surplus.map(|it| format!("{name}: {} should not be there", it.join(" "))));
        let own = &self.roles[name];
        let shown = picture["scopes"].as_object().into_iter().flatten();
        let mut shown: BTreeMap<&str, BTreeMap<String, BTreeSet<String>>> =
            shown.map(|(scope, nodes)| (scope.as_str(), roles_of(nodes))).collect();
        for scope in own.keys() {
            let Some(nodes) = shown.remove(scope.as_str()) else {
                found.push(format!("{name}: is not in {scope}"));
                continue;
            };
            let none = BTreeSet::new();
            for (node, roles) in &self.roles {
                let expected = roles.get(scope).unwrap_or(&none);
                let roles = nodes.get(node).unwrap_or(&none);
                for role in expected.symmetric_difference(roles) {
                    let sign = if roles.contains(role) { "has" } else { "lacks" };
                    found.push(format!("{name}: {scope}: {node} {sign} {role}"));
                }
            }
            let unknown = nodes.keys().filter(|node| !self.roles.contains_key(*node));
            found.extend(unknown.map(|it| format!("{name}: {scope}: {it} has roles")));
        }
        found.extend(shown.keys().map(|scope| format!("{name}: is in {scope}")));
        found
    }
}

/// Prints how the differences became fewer.
fn tell_story(story: &[(Duration, Vec<String>)]) {
    for (after, found) in story.iter().take(SHOWN) {
        let shown = found[..found.len().min(3)].join("; ");
        println!("    after {after:.1?} {} differences: {shown}", found.len());
    }
}

fn roles_of(nodes: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let list = |roles: &Value| {
        let roles = roles.as_array().into_iter().flatten();
        roles.map(|role| role.as_str().unwrap_or_default().to_string()).collect()
    };
    let nodes = nodes.as_object().into_iter().flatten();
    nodes.map(|(node, roles)| (node.clone(), list(roles))).collect()
}

impl Fleet {
    /// Stops the changes and waits until all agree with the truth, and for a while longer.
    pub fn calm(&mut self) {
        self.changes_go_on = false;
        let start = Instant::now();
        self.wait_for_acknowledgements();
        self.cuts.on_probation.clear();
        let (agreed, differences) = self.wait_until_all_agree(start);
        match agreed {
            Some(after) => {
                self.report.agreed(after, !self.cuts.on_probation.is_empty());
                self.compare_by_role();
                self.compare_events();
            }
            None => self.report.lost += differences,
        }
        let agreed = agreed.map_or("never".into(), |after| format!("after {after:.2?}"));
        let stall = self.report.take_stall();
        let on_probation = &self.cuts.on_probation;
        println!(
            "{:8.2} s all agree {agreed}; on probation were {on_probation:?}; a thread was late by \
             {stall:.0?} at most",
            self.report.start.elapsed().as_secs_f64()
        );
        self.changes_go_on = true;
    }

    fn wait_for_acknowledgements(&mut self) {
        let is_settled = |fleet: &Fleet| {
            let mut runs = fleet.slots.iter().filter_map(|slot| slot.run.as_ref());
            runs.all(|run| run.is_ready() && !run.is_asked(Question::is_change))
        };
        if !self.pump_until(AGREE_WITHIN, is_settled) {
            let runs = self.slots.iter().filter_map(|slot| slot.run.as_ref());
            let names: Vec<&str> =
                runs.filter(|run| !run.is_ready()).map(|run| run.name.as_str()).collect();
            self.report.problem(&format!("not ready, or silent: {names:?}"));
        }
    }

    /// How long it took until the last of them agreed for good, and what differed at last.
    fn wait_until_all_agree(&mut self, start: Instant) -> (Option<Duration>, usize) {
        let pause = Duration::from_millis(if self.slots.len() > 12 { 250 } else { 100 });
        // Since when each has been right.
        let mut right: BTreeMap<usize, Instant> = BTreeMap::new();
        let mut is_late = false;
        let mut story: Vec<(Duration, Vec<String>)> = Vec::new();
        loop {
            for (_, run) in self.awake() {
                if !run.is_asked(|it| matches!(it, Question::Picture)) {
                    run.ask(Question::Stats);
                    run.ask(Question::Picture);
                }
            }
            self.pump(Instant::now() + pause);
            let truth = Truth::of(self);
            let (mut found, mut live) = (Vec::new(), 0);
            for (number, slot) in self.slots.iter_mut().enumerate() {
                let Some(run) = &slot.run else { continue };
                live += 1;
                // It stays out by the rules until it was without trouble for long.
                let stats = slot.stats.take().unwrap_or_default();
                if stats["stats"]["on_probation"] == true {
                    self.cuts.on_probation.insert(run.name.clone());
                }
                let Some((_, picture)) = slot.picture.take().filter(|(at, _)| *at >= start) else {
                    continue;
                };
                let differences = truth.differences(&run.name, &picture);
                if differences.is_empty() {
                    right.entry(number).or_insert_with(Instant::now);
                } else {
                    right.remove(&number);
                }
                found.extend(differences);
            }
            if story.last().is_none_or(|(_, before)| *before != found) {
                story.push((start.elapsed(), found.clone()));
            }
            let last = right.values().max().filter(|_| right.len() == live);
            if let Some(last) = last.filter(|last| last.elapsed() > HOLD) {
                if *last - start > LONG {
                    tell_story(&story);
                }
                self.truth = Some(truth.holders());
                return (Some(*last - start), 0);
            }
            if start.elapsed() > AGREE_WITHIN && !is_late && !found.is_empty() {
                is_late = true;
                self.tell_what_differs(&found);
            }
            if start.elapsed() > GIVE_UP_AFTER {
                self.report.problem(&format!("{} differences do not go away", found.len()));
                return (None, found.len().max(1));
            }
        }
    }

    fn tell_what_differs(&mut self, found: &[String]) {
        let shown = found[..found.len().min(SHOWN)].join("\n    ");
        self.report.problem(&format!(
            "{} differences after {AGREE_WITHIN:?} of calm:\n    {shown}",
            found.len()
        ));
        self.awake().for_each(|(_, run)| run.ask(Question::Stats));
        self.pump(Instant::now() + Duration::from_secs(1));
        for slot in &mut self.slots {
            let stats = slot.stats.take().unwrap_or_default();
            println!("    {} {}", slot.name, stats["stats"]);
        }
    }

    /// Asks each node for the holders of each role in each scope; what it answers is checked as it
    /// comes.
    fn compare_by_role(&mut self) {
        for role in all_roles() {
            for scope in SCOPES {
                self.awake().for_each(|(_, run)| {
                    run.ask(Question::Nodes { role: role.clone(), scope: scope.into() });
                });
            }
            self.wait_for_answers();
        }
        self.truth = None;
    }

    /// Who heard the events only knows the same.
    fn compare_events(&mut self) {
        self.awake().for_each(|(_, run)| run.ask(Question::Picture));
        self.wait_for_answers();
        for slot in 0..self.slots.len() {
            let Slot { run: Some(run), picture: Some((_, picture)), .. } = &self.slots[slot] else {
                continue;
            };
            if !self.pasts[run.number].fold.agrees(picture) {
                let what = format!("{}: its events are not its maps", run.name);
                self.report.problem(&what);
            }
        }
    }

    fn wait_for_answers(&mut self) {
        self.pump_until(ANSWER_WITHIN, |fleet| {
            let mut runs = fleet.slots.iter().filter_map(|slot| slot.run.as_ref());
            runs.all(|run| !run.is_asked(|it| !matches!(it, Question::Members)))
        });
    }
}

#[test]
fn every_kind_of_difference_is_found() {
    use serde_json::json;
    let member = |name: &str| [name, "1", "there"].map(ToString::to_string);
    let roles = |scopes: &[(&str, &[&str])]| -> Roles {
        let set = |roles: &[&str]| roles.iter().map(ToString::to_string).collect();
        scopes.iter().map(|(scope, roles)| ((*scope).to_string(), set(roles))).collect()
    };
    let truth = Truth {
        members: vec![member("a"), member("b")],
        roles: BTreeMap::from([
            ("a".into(), roles(&[("s", &["x"])])),
            ("b".into(), roles(&[("s", &["y"]), ("t", &["z"])])),
        ]),
    };
    let shown = |name: &str| json!({"node": name, "id": "1", "addr": "there"});
    let differences = |members: &[&str], scopes: Value| {
        let members: Vec<Value> = members.iter().map(|name| shown(name)).collect();
        truth.differences("a", &json!({"members": members, "scopes": scopes}))
    };
    let right = json!({"s": {"a": ["x"], "b": ["y"]}});
    assert_eq!(differences(&["a", "b"], right.clone()), [""; 0]);
    assert_eq!(differences(&["a"], right.clone()), ["a: b 1 there is missing"]);
    assert_eq!(differences(&["a", "b", "c"], right), ["a: c 1 there should not be there"]);
    let stale = json!({"s": {"a": ["x"], "b": ["w", "y"]}});
    assert_eq!(differences(&["a", "b"], stale), ["a: s: b has w"]);
    let late = json!({"s": {"a": ["x"]}});
    assert_eq!(differences(&["a", "b"], late), ["a: s: b lacks y"]);
    let dead = json!({"s": {"a": ["x"], "b": ["y"], "c": ["y"]}});
    assert_eq!(differences(&["a", "b"], dead), ["a: s: c has roles"]);
    let elsewhere = json!({"t": {"b": ["z"]}});
    assert_eq!(differences(&["a", "b"], elsewhere), ["a: is not in s", "a: is in t"]);
}
