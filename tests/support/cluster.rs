//! Real nodes on loopback sockets, for tests.
//!
//! No test measures time: whatever is awaited has a limit so generous that a busy machine with two
//! cores keeps it, and what must not happen is fenced by something that happens after it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rolecall::{
    Builder, Cluster, Config, DownReason, Event, EventHandler, Events, Node, Role, ScopeName,
};

/// How long anything that must happen may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A node on a free loopback port, tuned for one machine.
pub fn node(name: &str) -> Builder {
    Cluster::builder(name).bind("127.0.0.1:0").config(Config::local())
}

/// A tuning in which nothing is ever found by the periodic pull.
pub fn without_pull() -> Config {
    Config { pull_interval: Duration::from_hours(1), ..Config::local() }
}

/// A tuning in which the periodic pull comes very often.
pub fn with_quick_pull() -> Config {
    Config { pull_interval: Duration::from_millis(100), ..Config::local() }
}

/// Where a node is reached, as a seed.
pub fn seed(cluster: &Cluster) -> String {
    cluster.local_node().addr().to_string()
}

/// A node that joins through another.
pub async fn joined(name: &str, to: &Cluster) -> Cluster {
    node(name).seed(seed(to)).start().await.expect("it starts")
}

/// Nodes `a`, `b`, ... that all know each other.
pub async fn nodes<const N: usize>() -> [Cluster; N] {
    nodes_with(Config::local(), |builder| builder).await
}

/// The same, with a tuning and more said to each builder.
pub async fn nodes_with<const N: usize>(
    config: Config,
    more: impl Fn(Builder) -> Builder,
) -> [Cluster; N] {
    let mut all: Vec<Cluster> = Vec::new();
    for letter in ('a'..).take(N) {
        let mut builder = more(node(&letter.to_string()).config(config.clone()));
        if let Some(first) = all.first() {
            builder = builder.seed(seed(first));
        }
        all.push(builder.start().await.expect("it starts"));
    }
    eventually(|| all.iter().all(|it| it.members().len() == N)).await;
    all.try_into().expect("as many as were started")
}

/// Waits until something holds.
#[track_caller]
pub fn eventually(mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let at = Location::caller();
    async move {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < LIMIT, "it never came true: {at}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// What a future gives, which must not hang.
#[track_caller]
pub fn within<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let at = Location::caller();
    async move {
        let value = tokio::time::timeout(LIMIT, future).await;
        value.unwrap_or_else(|_| panic!("it hangs: {at}"))
    }
}

/// An event in few words: `up b`, `down b left`, `+ scope b "web"`.
pub fn text(event: &Event) -> String {
    match event {
        Event::NodeUp { node } => format!("up {node}"),
        Event::NodeDown { node, reason } => {
            let reason = match reason {
                DownReason::Failed(_) => "failed",
                DownReason::Left => "left",
                DownReason::Replaced { .. } => "replaced",
                _ => "otherwise",
            };
            format!("down {node} {reason}")
        }
        Event::NodeUpdated { node } => format!("updated {node}"),
        Event::NameConflict { name, .. } => format!("conflict {name}"),
        Event::RoleAdded { scope, node, role } => format!("+ {scope} {node} {role}"),
        Event::RoleRemoved { scope, node, role } => format!("- {scope} {node} {role}"),
        Event::Lagged { missed } => format!("lagged {missed}"),
        other => format!("{other:?}"),
    }
}

/// The next event; the stream must not end.
#[track_caller]
pub fn next(events: &mut Events) -> impl Future<Output = Event> {
    let event = within(events.next());
    async move { event.await.expect("the node runs") }
}

/// All events up to one, in few words; that one is the last.
pub async fn until(events: &mut Events, last: &str) -> Vec<String> {
    let mut heard: Vec<String> = Vec::new();
    while heard.last().is_none_or(|it| it != last) {
        match tokio::time::timeout(LIMIT, events.next()).await {
            Ok(Some(event)) => heard.push(text(&event)),
            Ok(None) => panic!("the stream ended before {last:?}: {heard:?}"),
            Err(elapsed) => panic!("{last:?} never came: {elapsed}: {heard:?}"),
        }
    }
    heard
}

/// Reads a stream to its end.
#[track_caller]
pub fn drain(mut events: Events) -> impl Future<Output = Vec<String>> {
    within(async move {
        let mut heard = Vec::new();
        while let Some(event) = events.next().await {
            heard.push(text(&event));
        }
        heard
    })
}

/// A handler that keeps what it is told, in few words.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    /// How often it was told this.
    pub fn count(&self, text: &str) -> usize {
        self.0.lock().expect("nothing panics meanwhile").iter().filter(|it| *it == text).count()
    }

    fn hear(&self, event: &Event) {
        self.0.lock().expect("nothing panics meanwhile").push(text(event));
    }
}

impl EventHandler for Heard {
    fn on_role_added(&self, node: &Node, role: &Role, scope: &ScopeName) {
        let (scope, node, role) = (scope.clone(), node.clone(), role.clone());
        self.hear(&Event::RoleAdded { scope, node, role });
    }

    fn on_role_removed(&self, node: &Node, role: &Role, scope: &ScopeName) {
        let (scope, node, role) = (scope.clone(), node.clone(), role.clone());
        self.hear(&Event::RoleRemoved { scope, node, role });
    }

    fn on_node_added(&self, node: &Node) {
        self.hear(&Event::NodeUp { node: node.clone() });
    }

    fn on_node_removed(&self, node: &Node, reason: DownReason) {
        self.hear(&Event::NodeDown { node: node.clone(), reason });
    }

    fn on_lagged(&self, missed: u64) {
        self.hear(&Event::Lagged { missed });
    }
}

/// A node on a runtime of its own that can be frozen: its socket stays open, and nothing runs, as
/// with a process that is stopped or hangs.
pub struct Puppet {
    pub cluster: Cluster,
    control: Option<tokio::sync::mpsc::UnboundedSender<Freeze>>,
    thread: Option<JoinHandle<()>>,
}

/// Tells that the puppet stands still, and then waits until it may go on.
type Freeze = (tokio::sync::oneshot::Sender<()>, mpsc::Receiver<()>);

/// Keeps a puppet frozen.
pub struct Frozen(#[allow(dead_code, reason = "dropping it thaws")] mpsc::Sender<()>);

impl Puppet {
    pub async fn start(builder: Builder) -> Puppet {
        let (control, mut commands) = tokio::sync::mpsc::unbounded_channel::<Freeze>();
        let (started, starting) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let cluster = builder.start().await.expect("it starts");
                started.send(cluster).expect("it is waited for");
                while let Some((frozen, thaw)) = commands.recv().await {
                    let _ = frozen.send(());
                    // The only thread of the runtime waits here: that is the freezing. It ends
                    // when the other side is dropped.
                    let _ = thaw.recv();
                }
            });
        });
        let cluster = within(starting).await.expect("it starts");
        Puppet { cluster, control: Some(control), thread: Some(thread) }
    }

    /// Freezes it until what is returned is dropped.
    pub async fn freeze(&self) -> Frozen {
        let (thaw, wait) = mpsc::channel();
        let (frozen, stands) = tokio::sync::oneshot::channel();
        self.control.as_ref().expect("it runs").send((frozen, wait)).expect("it runs");
        within(stands).await.expect("it runs");
        Frozen(thaw)
    }
}

impl Drop for Puppet {
    /// Ends its runtime, which is a crash of the node; a thaw must have come before.
    fn drop(&mut self) {
        self.control = None;
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().expect("the puppet's thread is well");
        }
    }
}
