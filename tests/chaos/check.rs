//! What is asked of every answer.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::fleet::Holders;
use crate::run::{Question, Run};

/// An answer is of the command that was given, complete, has nobody twice, and knows only what
/// there has been. What a node says of its own roles is true.
pub fn answer(
    question: &Question,
    answer: &Value,
    run: &Run,
    names: &BTreeSet<String>,
) -> Result<(), String> {
    let command = question.command();
    let word = command.split_whitespace().next().expect("a command has a word");
    same("answer", answer, word)?;
    match question {
        Question::Add { role, scope } | Question::Remove { role, scope } => {
            same("role", answer, role)?;
            same("scope", answer, scope)
        }
        Question::Join { scope } | Question::LeaveScope { scope } => same("scope", answer, scope),
        Question::Members | Question::Picture => members(answer, names),
        Question::All { scope } => {
            same("scope", answer, scope)?;
            nodes(answer, names)
        }
        Question::Nodes { role, scope } => {
            same("role", answer, role)?;
            same("scope", answer, scope)?;
            nodes(answer, names)?;
            let own = run.roles.get(scope).is_some_and(|roles| roles.contains(role));
            let listed = list(answer, "nodes")?.contains(&run.name);
            if own == listed { Ok(()) } else { Err(format!("it has the role: {own}")) }
        }
        Question::Roles { node, scope } => {
            same("node", answer, node)?;
            same("scope", answer, scope)?;
            let roles = unique(list(answer, "roles")?)?;
            let own = run.roles.get(scope).cloned().unwrap_or_default();
            if *node == run.name && roles != own { Err(format!("it has {own:?}")) } else { Ok(()) }
        }
        Question::Stats => {
            if answer["stats"].is_object() {
                Ok(())
            } else {
                Err("no stats".into())
            }
        }
    }
}

/// While it is calm and all agreed: who has a role is known.
pub fn truth(
    question: &Question,
    answer: &Value,
    run: &Run,
    truth: &Holders,
) -> Result<(), String> {
    let Question::Nodes { role, scope } = question else { return Ok(()) };
    let holders = truth.get(&(scope.clone(), role.clone()));
    let holders = holders.filter(|_| run.roles.contains_key(scope));
    let holders = holders.cloned().unwrap_or_default();
    if list(answer, "nodes")? == holders { Ok(()) } else { Err(format!("they are {holders:?}")) }
}

fn same(key: &str, answer: &Value, expected: &str) -> Result<(), String> {
    if answer[key] == expected { Ok(()) } else { Err(format!("{key} is not {expected}")) }
}

fn list(answer: &Value, key: &str) -> Result<Vec<String>, String> {
    let list = answer[key].as_array().ok_or(format!("{key} is no list"))?;
    let texts = list.iter().map(|it| it.as_str().map(ToString::to_string));
    texts.collect::<Option<_>>().ok_or(format!("{key} holds no text"))
}

fn unique(list: Vec<String>) -> Result<BTreeSet<String>, String> {
    let length = list.len();
    let set = BTreeSet::from_iter(list);
    if set.len() == length { Ok(set) } else { Err("something is there twice".into()) }
}

fn nodes(answer: &Value, names: &BTreeSet<String>) -> Result<(), String> {
    let nodes = unique(list(answer, "nodes")?)?;
    if nodes.is_subset(names) { Ok(()) } else { Err("nobody has that name".into()) }
}

fn members(answer: &Value, names: &BTreeSet<String>) -> Result<(), String> {
    let members = answer["members"].as_array().ok_or("members is no list")?;
    let all = |key: &str| {
        let texts = members.iter().map(|it| it[key].as_str().unwrap_or_default().to_string());
        unique(texts.collect())
    };
    all("id")?;
    if all("node")?.is_subset(names) { Ok(()) } else { Err("nobody has that name".into()) }
}

#[test]
fn answers_that_cannot_be_are_found() {
    use serde_json::json;
    let names = BTreeSet::from(["a".to_string(), "b".to_string()]);
    let with = |list: Value| nodes(&json!({"nodes": list}), &names);
    assert!(with(json!(["a", "b"])).is_ok());
    assert!(with(json!(["a", "a"])).is_err(), "somebody is there twice");
    assert!(with(json!(["c"])).is_err(), "there is no c");
    assert!(with(json!([1])).is_err() && with(json!("a")).is_err(), "malformed");
    let run = |name: &str, id: &str| json!({"node": name, "id": id});
    let with = |runs: Value| members(&json!({"members": runs}), &names);
    assert!(with(json!([run("a", "1"), run("b", "2")])).is_ok());
    assert!(with(json!([run("a", "1"), run("a", "2")])).is_err(), "two runs of one name");
    assert!(with(json!([run("a", "1"), run("b", "1")])).is_err(), "one run twice");
}
