//! What a reader of the events alone believes. Each event must be a difference from that, and in
//! the end it must be what the maps of the node show.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[derive(Default)]
pub struct Fold {
    /// The node itself, which is not told of.
    own: String,
    /// The run of each name.
    up: BTreeMap<String, String>,
    /// By scope and node.
    roles: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Fold {
    /// Hears an event: an error, if that cannot be.
    pub fn hear(&mut self, event: &Value) -> Result<(), String> {
        let word = |key: &str| event[key].as_str().unwrap_or_default().to_string();
        let (node, id, scope) = (word("node"), word("id"), word("scope"));
        let fits = match event["event"].as_str().unwrap_or_default() {
            "ready" => {
                self.own.clone_from(&node);
                self.up.insert(node, id).is_none()
            }
            "node_up" => self.up.insert(node, id).is_none(),
            "node_updated" => self.up.get(&node) == Some(&id),
            "node_down" => {
                let no_roles = !self.roles.keys().any(|(_, holder)| *holder == node);
                self.up.remove(&node) == Some(id) && no_roles && node != self.own
            }
            "role_added" => {
                let is_up = self.up.contains_key(&node);
                self.roles.entry((scope, node)).or_default().insert(word("role")) && is_up
            }
            "role_removed" => {
                let key = (scope, node);
                let held = self.roles.get_mut(&key).is_some_and(|it| it.remove(&word("role")));
                self.roles.retain(|_, roles| !roles.is_empty());
                held && self.up.contains_key(&key.1)
            }
            _ => true,
        };
        if fits { Ok(()) } else { Err(format!("it told what cannot be: {event}")) }
    }

    /// Whether it is what the node's picture shows.
    pub fn agrees(&self, picture: &Value) -> bool {
        let members = picture["members"].as_array().into_iter().flatten();
        let members: BTreeMap<String, String> = members
            .map(|it| {
                let word = |key: &str| it[key].as_str().unwrap_or_default().to_string();
                (word("node"), word("id"))
            })
            .collect();
        let mut roles: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for (scope, nodes) in picture["scopes"].as_object().into_iter().flatten() {
            for (node, held) in nodes.as_object().into_iter().flatten() {
                let held = held.as_array().into_iter().flatten();
                let held = held.map(|it| it.as_str().unwrap_or_default().to_string());
                roles.insert((scope.clone(), node.clone()), held.collect());
            }
        }
        members == self.up && roles == self.roles
    }
}

#[test]
fn events_that_cannot_be_are_found() {
    use serde_json::json;
    let up = json!({"event": "node_up", "node": "b", "id": "1"});
    let down = json!({"event": "node_down", "node": "b", "id": "1"});
    let with = |event: &str| json!({"event": event, "scope": "s", "node": "b", "role": "r"});
    let (added, removed) = (with("role_added"), with("role_removed"));
    let fits = |events: &[&Value]| {
        let mut fold = Fold::default();
        events.iter().all(|event| fold.hear(event).is_ok())
    };
    assert!(fits(&[&up, &added, &removed, &down, &up, &added]));
    assert!(!fits(&[&up, &up]), "it was up");
    assert!(!fits(&[&up, &down, &down]), "it was down");
    assert!(!fits(&[&up, &added, &down]), "it had a role");
    assert!(!fits(&[&added]), "it was not up");
    assert!(!fits(&[&up, &added, &added]), "it had the role");
    assert!(!fits(&[&up, &removed]), "it had no role");

    let mut fold = Fold::default();
    assert!([&up, &added].iter().all(|event| fold.hear(event).is_ok()));
    let members = json!([{"node": "b", "id": "1"}]);
    assert!(fold.agrees(&json!({"members": members, "scopes": {"s": {"b": ["r"]}}})));
    assert!(!fold.agrees(&json!({"members": members, "scopes": {"s": {}}})));
    assert!(!fold.agrees(&json!({"members": [], "scopes": {"s": {"b": ["r"]}}})));
}
