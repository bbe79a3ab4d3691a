//! Five nodes in one process, on loopback sockets: roles in overlapping scopes, a node that is
//! killed, a node that says goodbye. Ends by itself, with 1 when something did not happen.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! | node | `default` | `jobs` | `media` |
//! |---|---|---|---|
//! | ada | web | scheduler | |
//! | ben | web, api | | |
//! | cleo | api | worker | |
//! | dan | | worker | encoder |
//! | eve | web | worker | encoder |

use std::error::Error;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use rolecall::{Cluster, Config, DownReason, EventHandler, Node, Nodes, Role, Scope, ScopeName};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

/// What has not happened by then does not happen.
const LIMIT: Duration = Duration::from_secs(8);

/// Tells what one node sees, in the moment in which it sees it.
struct Narrator {
    who: &'static str,
    start: Instant,
    downs: UnboundedSender<Down>,
}

/// One node saw another go down.
struct Down {
    seen_by: &'static str,
    node: Node,
    at: Instant,
}

impl Narrator {
    fn say(&self, what: &str) {
        println!("{:8.3} s  {:>4}: {what}", self.start.elapsed().as_secs_f64(), self.who);
    }
}

impl EventHandler for Narrator {
    fn on_node_added(&self, node: &Node) {
        self.say(&format!("{node} is up"));
    }

    fn on_node_removed(&self, node: &Node, reason: DownReason) {
        let at = Instant::now();
        self.say(&format!("{node} is down: {reason}"));
        // The receiver is gone when the program ends.
        let _ = self.downs.send(Down { seen_by: self.who, node: node.clone(), at });
    }

    fn on_role_added(&self, node: &Node, role: &Role, scope: &ScopeName) {
        self.say(&format!("{node} plays {role} in {scope}"));
    }

    fn on_role_removed(&self, node: &Node, role: &Role, scope: &ScopeName) {
        self.say(&format!("{node} no longer plays {role} in {scope}"));
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (downs, mut seen_down) = unbounded_channel();

    heading("Five nodes start; each tells what it sees");
    let [ada, ben, cleo, dan, eve] = start_five(&downs).await?;
    settle().await;

    heading("Every node answers from its own memory, without asking anybody");
    let (jobs, media) = (ada.scope("jobs"), dan.scope("media"));
    answer("who is web?", "ben", ben.nodes("web").names());
    answer("who works on jobs?", "ada", jobs.nodes("worker").names());
    answer("what is ben?", "cleo", cleo.roles("ben"));
    answer("who is in media?", "dan", media.all_nodes().names());
    answer("the same, outside of media?", "ada", ada.scope("media").all_nodes().names());
    for (who, node) in [("ada", &ada), ("dan", &dan)] {
        let owner = node.scope("jobs").owner("worker", "invoice 42");
        answer("who works on invoice 42?", who, owner.as_ref().map(Node::name));
    }

    heading("dan takes the role (\"shard\", 7) in media, and asks who has heard of it");
    media.add_role(("shard", 7))?;
    let receipt = media.delivered(media.generation()).await;
    println!("  reached {:?}, missing {:?}", receipt.reached.names(), receipt.missing.names());
    settle().await;

    heading("eve is killed: no goodbye, its socket just closes");
    let killed = Instant::now();
    drop(eve);
    let took = all_see_down("eve", 4, &mut seen_down, killed).await?;
    println!("\n  from the kill to node-down: {took}");
    answer("who is web?", "ben", ben.nodes("web").names());
    answer("who works on jobs?", "ada", jobs.nodes("worker").names());
    for node in [&ada, &ben, &cleo, &dan] {
        let gone = node.node("eve").is_none() && node.nodes("web").names() == ["ada", "ben"];
        ensure(gone, "eve's roles did not go with it")?;
    }

    heading("dan leaves: with a goodbye there is nothing to detect");
    let leaving = Instant::now();
    dan.leave().await?;
    let took = all_see_down("dan", 3, &mut seen_down, leaving).await?;
    println!("\n  from leave() to node-down: {took}");
    answer("who is left?", "ada", ada.members().names());
    ensure(ada.members().names() == ["ada", "ben", "cleo"], "the wrong nodes are left")
}

/// Starts the five, and waits until each sees the roles of all others in its scopes.
async fn start_five(downs: &UnboundedSender<Down>) -> Result<[Cluster; 5], Box<dyn Error>> {
    let start = Instant::now();
    let mut seeds: Vec<String> = Vec::new();
    let mut node = async |who: &'static str, roles: &[&str]| {
        let cluster = Cluster::builder(who)
            .bind("127.0.0.1:0")
            .seeds(seeds.clone())
            .roles(roles)
            .config(Config::local())
            .event_handler(Narrator { who, start, downs: downs.clone() })
            .start()
            .await?;
        seeds.push(cluster.local_addr().to_string());
        Ok::<Cluster, Box<dyn Error>>(cluster)
    };
    let ada = node("ada", &["web"]).await?;
    let ben = node("ben", &["web", "api"]).await?;
    let cleo = node("cleo", &["api"]).await?;
    let dan = node("dan", &[]).await?;
    let eve = node("eve", &["web"]).await?;

    // Taking a role in a scope joins the scope.
    ada.scope("jobs").add_role("scheduler")?;
    for node in [&cleo, &dan, &eve] {
        node.scope("jobs").add_role("worker")?;
    }
    dan.scope("media").add_role("encoder")?;
    eve.scope("media").add_role("encoder")?;

    for node in [&ada, &ben, &cleo, &dan, &eve] {
        reach(&node.default_scope(), "web", 3).await?;
        reach(&node.default_scope(), "api", 2).await?;
    }
    for node in [&ada, &cleo, &dan, &eve] {
        reach(&node.scope("jobs"), "worker", 3).await?;
    }
    reach(&dan.scope("media"), "encoder", 2).await?;
    Ok([ada, ben, cleo, dan, eve])
}

fn heading(text: &str) {
    println!("\n== {text}");
}

fn answer(question: &str, who: &str, answer: impl Debug) {
    println!("  {question:<28} {who:>4}: {answer:?}");
}

/// A moment for the narrators, which have threads of their own, to finish their sentences.
async fn settle() {
    sleep(Duration::from_millis(300)).await;
}

/// Waits until `count` nodes play the role, as this scope's node sees it.
async fn reach(scope: &Scope, role: &'static str, count: usize) -> Result<Nodes, String> {
    let late = |_| format!("{count} nodes with the role {role} in {} did not appear", scope.name());
    timeout(LIMIT, scope.wait_for(role, count)).await.map_err(late)
}

/// Waits until `count` nodes have seen `name` go down, and says how long after `since` each did.
async fn all_see_down(
    name: &str,
    count: usize,
    downs: &mut UnboundedReceiver<Down>,
    since: Instant,
) -> Result<String, Box<dyn Error>> {
    let (mut took, mut last) = (Vec::new(), Duration::ZERO);
    while took.len() < count {
        let missed = format!("not every node saw {name} go down");
        let Down { seen_by, node, at } =
            timeout(LIMIT, downs.recv()).await.ok().flatten().ok_or(missed)?;
        ensure(node.name() == name, &format!("{seen_by} saw {node} go down, which is up"))?;
        last = last.max(at - since);
        took.push(format!("{seen_by} {:.2?}", at - since));
    }
    settle().await;
    Ok(format!("{}; on all {last:.2?}", took.join(", ")))
}

fn ensure(fine: bool, otherwise: &str) -> Result<(), Box<dyn Error>> {
    if fine { Ok(()) } else { Err(otherwise.into()) }
}
