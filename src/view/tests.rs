//! What the published maps show after which events.

use bytes::Bytes;

use super::*;
use crate::event::{DownReason, Event};
use crate::node::NodeId;

fn name(name: &str) -> NodeName {
    NodeName::new(name).expect("a valid name")
}

fn scope(name: &str) -> ScopeName {
    ScopeName::new(name).expect("a valid name")
}

fn node_with_meta(node: &str, run: u64, meta: &'static [u8]) -> Node {
    let id = NodeId::from_u64(run).expect("not zero");
    Node::new(name(node), id, ([127, 0, 0, 1], 7946).into(), Bytes::from_static(meta))
}

fn node(name: &str, run: u64) -> Node {
    node_with_meta(name, run, b"")
}

fn up(node: &Node) -> Event {
    Event::NodeUp { node: node.clone() }
}

fn down(node: &Node) -> Event {
    Event::NodeDown { node: node.clone(), reason: DownReason::Left }
}

fn added(scope: &ScopeName, node: &Node, role: &str) -> Event {
    Event::RoleAdded { scope: scope.clone(), node: node.clone(), role: role.into() }
}

fn removed(scope: &ScopeName, node: &Node, role: &str) -> Event {
    Event::RoleRemoved { scope: scope.clone(), node: node.clone(), role: role.into() }
}

/// Applies all and publishes once.
fn publish(publisher: &mut Publisher, events: &[Event]) -> Published {
    for event in events {
        publisher.apply(event);
    }
    publisher.publish()
}

#[test]
fn a_new_view_shows_the_local_node_alone() {
    let (mut publisher, cluster) = Publisher::new(node("a", 1));
    let view = cluster.scope(&scope("s"));
    assert_eq!(cluster.members().names(), ["a"]);
    assert_eq!(cluster.node("a"), Some(node("a", 1)));
    assert_eq!(view.nodes("web").names(), [""; 0]);
    assert!(view.roles("a").is_empty());
    assert!(view.all_nodes().is_empty());
    assert!(publisher.publish().is_empty());
}

#[test]
fn a_node_comes_with_its_roles_and_goes_with_them() {
    let (a, b, s) = (node("a", 1), node("b", 2), scope("s"));
    let (mut publisher, cluster) = Publisher::new(a.clone());
    let view = cluster.scope(&s);
    let changes = publish(
        &mut publisher,
        &[up(&b), added(&s, &b, "web"), added(&s, &b, "api"), added(&s, &a, "web")],
    );
    assert!(changes.members_changed());
    let (api, web) = (Role::from("api"), Role::from("web"));
    assert_eq!(changes.roles(), [(s.clone(), api.clone()), (s.clone(), web.clone())]);
    assert_eq!(cluster.members().names(), ["a", "b"]);
    assert_eq!(view.nodes(&web).names(), ["a", "b"]);
    assert_eq!(view.nodes("api").names(), ["b"]);
    assert_eq!(view.roles("b").to_vec(), [api, web]);
    assert_eq!(view.all_nodes().names(), ["a", "b"]);

    // `NodeDown` alone: no `RoleRemoved` came first.
    let changes = publish(&mut publisher, &[down(&b)]);
    assert!(changes.members_changed());
    assert_eq!(changes.roles().len(), 2);
    assert_eq!(cluster.members().names(), ["a"]);
    assert_eq!(cluster.node("b"), None);
    assert_eq!(view.nodes("web").names(), ["a"]);
    assert!(view.nodes("api").is_empty());
    assert!(view.roles("b").is_empty());
    assert_eq!(view.all_nodes().names(), ["a"]);
}

#[test]
fn an_event_applied_again_changes_nothing() {
    let (a, b, s) = (node("a", 1), node("b", 2), scope("s"));
    let (mut publisher, _cluster) = Publisher::new(a.clone());
    let steps = [
        vec![up(&b), added(&s, &b, "web")],
        vec![Event::NodeUpdated { node: node_with_meta("b", 2, b"x") }],
        vec![removed(&s, &b, "web")],
        vec![added(&s, &b, "api"), removed(&s, &b, "api"), added(&s, &b, "api")],
        vec![down(&b)],
    ];
    for step in &steps {
        assert!(!publish(&mut publisher, step).is_empty(), "{step:?}");
        assert!(publish(&mut publisher, step).is_empty(), "{step:?}");
    }
}

#[test]
fn what_cancels_out_within_one_publication_is_no_change() {
    let (a, b, s) = (node("a", 1), node("b", 2), scope("s"));
    let (mut publisher, _cluster) = Publisher::new(a.clone());
    let events = [up(&b), added(&s, &b, "web"), added(&s, &a, "x"), removed(&s, &a, "x"), down(&b)];
    assert!(publish(&mut publisher, &events).is_empty());
}

#[test]
fn a_restart_never_shows_both_runs() {
    let (old, new, s) = (node("b", 2), node("b", 3), scope("s"));
    let (mut publisher, cluster) = Publisher::new(node("a", 1));
    let view = cluster.scope(&s);
    let _ = publish(
        &mut publisher,
        &[up(&old), added(&s, &old, "web"), added(&s, &old, "gone"), added(&s, &old, "api")],
    );
    // The end of the old run is not even said.
    let changes = publish(
        &mut publisher,
        &[up(&new), added(&s, &new, "web"), removed(&s, &old, "web"), added(&s, &old, "old")],
    );
    assert_eq!(changes.roles().len(), 3);
    assert_eq!(*view.nodes("web"), [node("b", 3)]);
    assert!(view.nodes("gone").is_empty() && view.nodes("old").is_empty());
    assert_eq!(view.roles("b").to_vec(), [Role::from("web")]);
    assert_eq!(*view.all_nodes(), [node("b", 3)]);
    assert_eq!(cluster.members().to_vec(), [node("a", 1), new.clone()]);

    // Late news of the old run are no news.
    assert!(publish(&mut publisher, &[down(&old), removed(&s, &old, "web")]).is_empty());
}

#[test]
fn new_metadata_is_seen_wherever_the_node_is() {
    let (b, s) = (node("b", 2), scope("s"));
    let (mut publisher, cluster) = Publisher::new(node("a", 1));
    let view = cluster.scope(&s);
    let _ = publish(&mut publisher, &[up(&b), added(&s, &b, "web"), added(&s, &b, "api")]);
    let kept = view.nodes("web");

    let update = Event::NodeUpdated { node: node_with_meta("b", 2, b"x") };
    let changes = publish(&mut publisher, &[update, added(&s, &b, "new")]);
    assert!(changes.members_changed());
    assert_eq!(changes.roles().len(), 3);
    for nodes in [view.nodes("web"), view.nodes("api"), view.nodes("new"), view.all_nodes()] {
        assert_eq!(nodes[0].meta(), b"x");
    }
    assert_eq!(cluster.members()[1].meta(), b"x");
    assert_eq!(cluster.node("b").expect("it is up").meta(), b"x");
    assert_eq!(kept[0].meta(), b"", "a snapshot stays what it is");
}

#[test]
fn roles_of_a_node_that_is_not_up_are_not_shown() {
    let (b, s) = (node("b", 2), scope("s"));
    let (mut publisher, cluster) = Publisher::new(node("a", 1));
    let events = [
        added(&s, &b, "web"),
        Event::NodeUpdated { node: b.clone() },
        removed(&s, &b, "web"),
        down(&b),
        Event::Lagged { missed: 1 },
    ];
    assert!(publish(&mut publisher, &events).is_empty());
    assert!(cluster.scope(&s).nodes("web").is_empty());
}

#[test]
fn scopes_are_isolated() {
    let (a, s, t) = (node("a", 1), scope("s"), scope("t"));
    let (mut publisher, cluster) = Publisher::new(a.clone());
    let _ = publish(&mut publisher, &[added(&s, &a, "web"), added(&t, &a, "api")]);
    assert!(cluster.scope(&s).nodes("api").is_empty());
    assert!(cluster.scope(&t).nodes("web").is_empty());
    let _ = publish(&mut publisher, &[removed(&t, &a, "api")]);
    assert_eq!(cluster.scope(&s).all_nodes().names(), ["a"]);
    assert!(cluster.scope(&t).all_nodes().is_empty());
}

#[test]
fn a_scope_view_is_the_same_whoever_asked_first() {
    let (a, s, t) = (node("a", 1), scope("s"), scope("t"));
    let (mut publisher, cluster) = Publisher::new(a.clone());
    let early = cluster.scope(&s);
    for _ in 0..3 {
        let _ = publish(&mut publisher, &[added(&s, &a, "web"), added(&t, &a, "web")]);
        assert_eq!(early.nodes("web").names(), ["a"]);
        assert_eq!(cluster.scope(&t).nodes("web").names(), ["a"], "made after the fact");
        let _ = publish(&mut publisher, &[removed(&s, &a, "web"), removed(&t, &a, "web")]);
        assert!(early.nodes("web").is_empty());
    }
    assert!(Arc::ptr_eq(&early, &cluster.scope(&s)));
    assert_eq!(early.name(), &s);
}

#[test]
fn views_of_scopes_that_nobody_uses_are_forgotten() {
    let a = node("a", 1);
    let (mut publisher, cluster) = Publisher::new(a.clone());
    let (held, full) = (cluster.scope(&scope("held")), scope("full"));
    let _ = publish(&mut publisher, &[added(&full, &a, "web")]);
    for number in 0..10_000 {
        let _ = cluster.scope(&scope(&number.to_string()));
    }
    assert!(cluster.registry().entries.len() <= 2 * UNUSED_SCOPES_KEPT);
    assert!(Arc::ptr_eq(&held, &cluster.scope(&scope("held"))));
    assert_eq!(cluster.scope(&full).nodes("web").names(), ["a"]);
}

#[test]
fn a_view_sees_what_is_new_and_keeps_what_it_borrowed() {
    let (a, s) = (node("a", 1), scope("s"));
    let (mut publisher, cluster) = Publisher::new(a.clone());
    let scope_view = cluster.scope(&s);
    let mut view = cluster.view();
    let before = view.nodes(&scope_view, "web");
    let members = view.members();
    let _ = publish(&mut publisher, &[added(&s, &a, "web"), down(&a)]);
    let _ = publish(&mut publisher, &[up(&a), added(&s, &a, "web")]);
    let one = view.nodes(&*scope_view, "web");
    let _ = publish(&mut publisher, &[removed(&s, &a, "web"), up(&node("b", 2))]);
    assert!(before.is_empty() && view.nodes(&scope_view, "web").is_empty());
    assert_eq!((one, members), ([a.clone()].as_slice(), [a].as_slice()));
    assert_eq!(view.members().len(), 2);
    assert!(view.node("b").is_some());
    assert!(view.roles(&scope_view, "a").is_empty() && view.all_nodes(&scope_view).is_empty());
    assert!(publisher.pending_count() > 0 && publisher.pending_bytes() > 0);

    view.refresh();
    for _ in 0..1_000_000 {
        publisher.poll();
        view.refresh();
        if publisher.pending_count() == 0 {
            return;
        }
        std::thread::yield_now(); // another test is inside
    }
    panic!("{publisher:?}");
}

#[test]
fn what_is_published_outlives_its_publisher() {
    let (a, s) = (node("a", 1), scope("s"));
    let (mut publisher, cluster) = Publisher::new(a.clone());
    let scope_view = cluster.scope(&s);
    let _ = publish(&mut publisher, &[added(&s, &a, "web")]);
    let view = cluster.view();
    let held = view.nodes(&scope_view, "web");
    let _ = publish(&mut publisher, &[added(&s, &a, "api"), removed(&s, &a, "web")]);
    drop(publisher);
    assert_eq!(held, [a]);
    assert_eq!(view.nodes(&scope_view, "api").len(), 1);
    drop(view);
    drop(cluster);
    assert_eq!(scope_view.nodes("api").names(), ["a"]);
}

#[test]
fn reads_and_the_publisher_can_be_sent_where_they_are_needed() {
    fn assert_shared<T: Send + Sync>() {}
    fn assert_send<T: Send>() {}
    assert_send::<Publisher>();
    assert_shared::<ClusterView>();
    assert_shared::<ScopeView>();
}
