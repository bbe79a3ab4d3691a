//! One node of a cluster as a process: prints what it sees, obeys what it reads.
//!
//! ```text
//! cargo run --example node -- --name a --bind 127.0.0.1:7946 --role web
//! cargo run --example node -- --name b --bind 127.0.0.1:7947 --seed 127.0.0.1:7946 \
//!     --role api --scope-role jobs=worker
//! ```
//!
//! Flags: see [`USAGE`]; commands on standard input: see [`HELP`]. Roles that are typed are text:
//! `add 7` adds the role `"7"`, not the number 7.
//!
//! The node leaves gracefully on `quit`, on Ctrl-C or SIGTERM, and when its input ends (a parent
//! that dies takes its nodes along; `sleep infinity | node ..` runs one without input). It ends
//! with 0 then, with 1 when it could not start, with 2 when it does not understand its flags.
//!
//! With `--json` each line on standard output is one object. Events have the key `event`, answers
//! the key `answer`, refusals the key `error`; the other keys are the fields of [`Line`] and
//! [`Answer`]:
//!
//! ```text
//! {"event":"ready","node":"a","addr":"127.0.0.1:7946","id":"91a6..","cluster":"default",..}
//! {"event":"node_up","node":"b","addr":"127.0.0.1:7947","id":"5d0f..","meta":""}
//! {"event":"role_added","scope":"default","node":"b","role":"api"}
//! {"answer":"nodes","role":"api","scope":"default","nodes":["b"]}
//! {"event":"node_down","node":"b",..,"reason":"failed","witnesses":[{"node":"a","saw":"Silence"}]}
//! ```
//!
//! What is known when the node is ready is told as events too, so that a reader of the lines alone
//! has the whole picture. `RUST_LOG=rolecall=debug` logs to standard error.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::thread::JoinHandle;

use lexopt::ValueExt;
use rolecall::{
    Builder, Cluster, Config, DownReason, Event, Events, Evidence, Key, Keyring, Node, Nodes, Role,
    Sight, Stats,
};
use serde::Serialize;
use tokio::sync::mpsc;

const USAGE: &str = "\
usage: node --name NAME [flags]
  --name NAME               the node's name, stable over restarts
  --bind HOST:PORT          where to listen (0.0.0.0:7946; port 0: a free one)
  --advertise HOST:PORT     what others should dial
  --seed HOST:PORT          a node that may be there already; repeatable
  --role ROLE               a role in the default scope; repeatable
  --scope SCOPE             a further scope to be in; repeatable
  --scope-role SCOPE=ROLE   a role in a further scope; repeatable
  --meta TEXT               what every peer sees with this node
  --cluster NAME            the cluster's name (default)
  --default-scope NAME      the default scope's name (default)
  --preset local|lan|wan    the tuning (lan)
  --config FILE.toml        tuning that goes before the preset's, key by key
  --key FILE                the key that all nodes of the cluster encrypt with
  --json                    one JSON object a line
  --help                    this text";

const HELP: &str = "\
add ROLE [SCOPE]     take a role          nodes ROLE [SCOPE]   who has it
remove ROLE [SCOPE]  give it up           roles NODE [SCOPE]   what a node has
join SCOPE           enter a scope        all [SCOPE]          who has any role
leave SCOPE          leave it             scopes               where this node is
members              every live node      stats                counters
picture              all of this at once: members, and who has what in the scopes of this node
help                 this text            quit                 say goodbye and end";

/// An event as it is printed.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Ready {
        #[serde(flatten)]
        node: Shown,
        cluster: String,
        default_scope: String,
        scopes: Vec<String>,
    },
    NodeUp(Shown),
    NodeDown {
        #[serde(flatten)]
        node: Shown,
        /// `failed`, `left` or `replaced`.
        reason: &'static str,
        detail: String,
        /// Who saw the failure, if it failed.
        witnesses: Vec<Saw>,
    },
    NodeUpdated(Shown),
    NameConflict {
        node: String,
        other: String,
    },
    RoleAdded {
        scope: String,
        node: String,
        role: String,
    },
    RoleRemoved {
        scope: String,
        node: String,
        role: String,
    },
    /// Events were missed: ask again for what matters.
    Lagged {
        missed: u64,
    },
    /// `why` is `quit`, `signal` or `end of input`.
    Leaving {
        why: &'static str,
    },
    /// The last line; `unheard` says how many peers did not acknowledge the goodbye, if any.
    Left {
        unheard: usize,
    },
}

/// An answer to a command as it is printed.
#[derive(Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum Answer {
    Add { role: String, scope: String, generation: u64 },
    Remove { role: String, scope: String, generation: u64 },
    Join { scope: String },
    Leave { scope: String },
    Nodes { role: String, scope: String, nodes: Vec<String> },
    Roles { node: String, scope: String, roles: Vec<String> },
    All { scope: String, nodes: Vec<String> },
    Scopes { scopes: Vec<String> },
    Members { members: Vec<Shown> },
    Picture { members: Vec<Shown>, scopes: BTreeMap<String, BTreeMap<String, Vec<String>>> },
    Stats { stats: Box<Stats> },
    Help { text: &'static str },
}

/// A node as it is printed.
#[derive(Serialize)]
struct Shown {
    node: String,
    addr: String,
    id: String,
    meta: String,
}

/// A witness of a failure as it is printed.
#[derive(Serialize)]
struct Saw {
    node: String,
    /// `Silence` or `Unreachable`.
    saw: Sight,
}

#[derive(Serialize)]
struct Refusal {
    error: String,
}

impl From<&Node> for Shown {
    fn from(node: &Node) -> Shown {
        Shown {
            node: node.name().into(),
            addr: node.addr().to_string(),
            id: node.id().to_string(),
            meta: String::from_utf8_lossy(node.meta()).into_owned(),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { node, addr, id, meta } = self;
        write!(f, "{node} at {addr} (run {id})")?;
        if meta.is_empty() { Ok(()) } else { write!(f, " {meta}") }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Ready { node, cluster, scopes, .. } => {
                write!(f, "ready: {node}, cluster {cluster}, scopes {}", scopes.join(" "))
            }
            Line::NodeUp(node) => write!(f, "up      {node}"),
            Line::NodeDown { node, detail, .. } => write!(f, "down    {node}: {detail}"),
            Line::NodeUpdated(node) => write!(f, "updated {node}"),
            Line::NameConflict { node, other } => {
                write!(f, "the name {node} is claimed by {other}")
            }
            Line::RoleAdded { scope, node, role } => {
                write!(f, "role    + {node} {role} in {scope}")
            }
            Line::RoleRemoved { scope, node, role } => {
                write!(f, "role    - {node} {role} in {scope}")
            }
            Line::Lagged { missed } => write!(f, "{missed} events were missed"),
            Line::Leaving { why } => write!(f, "leaving ({why})"),
            Line::Left { unheard: 0 } => f.write_str("left"),
            Line::Left { unheard } => write!(f, "left; {unheard} peers may not know yet"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Add { scope, generation, .. } | Answer::Remove { scope, generation, .. } => {
                write!(f, "= done: {scope} at generation {generation}")
            }
            Answer::Join { scope } => write!(f, "= joined {scope}"),
            Answer::Leave { scope } => write!(f, "= left {scope}"),
            Answer::Nodes { nodes: words, .. }
            | Answer::All { nodes: words, .. }
            | Answer::Roles { roles: words, .. }
            | Answer::Scopes { scopes: words }
                if words.is_empty() =>
            {
                f.write_str("= none")
            }
            Answer::Nodes { nodes: words, .. }
            | Answer::All { nodes: words, .. }
            | Answer::Roles { roles: words, .. }
            | Answer::Scopes { scopes: words } => write!(f, "= {}", words.join(", ")),
            Answer::Members { members } => {
                let lines: Vec<String> = members.iter().map(|node| format!("= {node}")).collect();
                f.write_str(&lines.join("\n"))
            }
            Answer::Picture { members, scopes } => {
                let mut lines: Vec<String> =
                    members.iter().map(|node| format!("= {node}")).collect();
                for (scope, nodes) in scopes {
                    let nodes = nodes.iter();
                    lines.extend(
                        nodes.map(|(node, roles)| format!("= {scope}: {node} {}", roles.join(" "))),
                    );
                }
                f.write_str(&lines.join("\n"))
            }
            Answer::Stats { stats } => write!(f, "= {stats:#?}"),
            Answer::Help { text } => f.write_str(text),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "! {}", self.error)
    }
}

/// Where all lines go: to a thread of their own, so that a slow reader does not stop the node.
struct Out {
    json: bool,
    lines: std::sync::mpsc::Sender<String>,
    writer: JoinHandle<()>,
}

impl Out {
    fn new(json: bool) -> Out {
        let (lines, queue) = std::sync::mpsc::channel::<String>();
        let writer = std::thread::spawn(move || {
            for line in queue {
                // A reader that is gone is no reason to leave the cluster.
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        });
        Out { json, lines, writer }
    }

    fn say(&self, line: &(impl Serialize + fmt::Display)) {
        let text = if self.json {
            serde_json::to_string(line).expect("lines hold nothing but text and numbers")
        } else {
            line.to_string()
        };
        self.lines.send(text).expect("the writer lives as long as this");
    }

    /// Waits until all is written.
    fn finish(self) {
        drop(self.lines);
        self.writer.join().expect("the writer does not panic");
    }
}

/// What the flags ask for.
struct Options {
    builder: Builder,
    cluster: String,
    scope_roles: Vec<(String, String)>,
    json: bool,
}

/// The flags, or `None` when only help is asked for.
fn options(mut args: lexopt::Parser) -> Result<Option<Options>, Box<dyn Error>> {
    use lexopt::prelude::Long;
    let (mut name, mut preset, mut file) = (None, "lan".to_string(), None);
    let mut cluster = "default".to_string();
    let mut scope_roles = Vec::new();
    let mut json = false;
    let mut steps: Vec<Box<dyn FnOnce(Builder) -> Builder>> = Vec::new();
    while let Some(arg) = args.next()? {
        let Long(flag) = arg else { return Err(arg.unexpected().into()) };
        match flag.to_string().as_str() {
            "help" => return Ok(None),
            "json" => json = true,
            flag => {
                if !USAGE.contains(&format!("\n  --{flag} ")) {
                    return Err(format!("there is no flag --{flag}").into());
                }
                let text = args.value()?.string()?;
                match flag {
                    "name" => name = Some(text),
                    "preset" => preset = text,
                    "config" => file = Some(text),
                    "key" => {
                        let keyring = Keyring::new(Key::from_file(&text)?);
                        steps.push(Box::new(|builder| builder.keyring(keyring)));
                    }
                    "cluster" => cluster = text,
                    "scope-role" => scope_roles.push(scope_role(&text)?),
                    "bind" => steps.push(Box::new(|builder| builder.bind(text))),
                    "advertise" => steps.push(Box::new(|builder| builder.advertise(text))),
                    "seed" => steps.push(Box::new(|builder| builder.seed(text))),
                    "role" => steps.push(Box::new(|builder| builder.role(text))),
                    "scope" => steps.push(Box::new(|builder| builder.scope(text))),
                    "meta" => steps.push(Box::new(|builder| builder.meta(text))),
                    _ => steps.push(Box::new(|builder| builder.default_scope(text))),
                }
            }
        }
    }
    let name = name.ok_or("--name is missing")?;
    let mut builder = Cluster::builder(name).cluster(&cluster).config(tuning(&preset, file)?);
    for step in steps {
        builder = step(builder);
    }
    for (scope, _) in &scope_roles {
        builder = builder.scope(scope);
    }
    Ok(Some(Options { builder, cluster, scope_roles, json }))
}

fn scope_role(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').ok_or(format!("--scope-role {text}: SCOPE=ROLE is meant"))?;
    Ok((parts.0.into(), parts.1.into()))
}

/// The preset's values, except where the file has its own.
fn tuning(preset: &str, file: Option<String>) -> Result<Config, Box<dyn Error>> {
    let config = match preset {
        "local" => Config::local(),
        "lan" => Config::lan(),
        "wan" => Config::wan(),
        other => return Err(format!("--preset {other}: there are local, lan and wan").into()),
    };
    let Some(path) = file else { return Ok(config) };
    let failed = |error: &dyn fmt::Display| format!("--config {path}: {error}");
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let own: toml::Table = toml::from_str(&text).map_err(|error| failed(&error))?;
    let mut table = toml::Table::try_from(config)?;
    table.extend(own);
    Ok(table.try_into().map_err(|error| failed(&error))?)
}

// One thread is enough for one node, and nothing else runs on it between two awaits: what happens
// before the subscription is in the maps that are read then, what happens after it in the events.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let log = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(log).with_writer(std::io::stderr).init();
    let options = match options(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}\n\ncommands on standard input:\n{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("node: {error} (--help lists the flags)");
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("node: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    let Options { builder, cluster: cluster_name, scope_roles, json } = options;
    let cluster = builder.start().await?;
    for (scope, role) in scope_roles {
        cluster.scope(&scope).add_role(role)?;
    }
    let out = Out::new(json);
    let mut events = cluster.events();
    out.say(&Line::Ready {
        node: Shown::from(&cluster.local_node()),
        cluster: cluster_name,
        default_scope: cluster.default_scope().name().to_string(),
        scopes: scopes(&cluster),
    });
    tell_what_is_known(&cluster, &out);
    let why = serve(&cluster, &mut events, &out).await?;
    out.say(&Line::Leaving { why });
    let unheard = match cluster.leave().await {
        Err(rolecall::LeaveError::Unacknowledged { unheard }) => unheard,
        _ => 0,
    };
    out.say(&Line::Left { unheard });
    out.finish();
    Ok(())
}

/// Prints events and obeys commands until there is a reason to leave.
async fn serve(
    cluster: &Cluster,
    events: &mut Events,
    out: &Out,
) -> Result<&'static str, Box<dyn Error>> {
    let mut input = lines_of_input();
    let stop = stop_signal();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => tell(event, out),
                None => return Err("the node has stopped".into()),
            },
            line = input.recv() => match line.as_deref().map(str::trim) {
                None => return Ok("end of input"),
                Some("quit") => return Ok("quit"),
                Some("") => {}
                Some(line) => match obey(cluster, line) {
                    Ok(answer) => out.say(&answer),
                    Err(error) => out.say(&Refusal { error: error.to_string() }),
                },
            },
            () = &mut stop => return Ok("signal"),
        }
    }
}

/// The state at the start, as events.
fn tell_what_is_known(cluster: &Cluster, out: &Out) {
    for node in cluster.members().iter().filter(|node| !cluster.is_local(node.name())) {
        out.say(&Line::NodeUp(node.into()));
    }
    for name in cluster.scopes() {
        let scope = cluster.scope(&name);
        for node in scope.all_nodes() {
            for role in &scope.roles(node.name()) {
                let event = Event::RoleAdded {
                    scope: name.clone(),
                    node: node.clone(),
                    role: role.clone(),
                };
                tell(event, out);
            }
        }
    }
}

fn tell(event: Event, out: &Out) {
    let line = match event {
        Event::NodeUp { node } => Line::NodeUp(Shown::from(&node)),
        Event::NodeDown { node, reason } => {
            let detail = reason.to_string();
            let (reason, witnesses) = match reason {
                DownReason::Left => ("left", Vec::new()),
                DownReason::Replaced { .. } => ("replaced", Vec::new()),
                DownReason::Failed(evidence) => ("failed", seen(&evidence)),
                _ => ("failed", Vec::new()),
            };
            Line::NodeDown { node: Shown::from(&node), reason, detail, witnesses }
        }
        Event::NodeUpdated { node } => Line::NodeUpdated(Shown::from(&node)),
        Event::NameConflict { name, other } => {
            Line::NameConflict { node: name.to_string(), other: other.to_string() }
        }
        Event::RoleAdded { scope, node, role } => Line::RoleAdded {
            scope: scope.to_string(),
            node: node.to_string(),
            role: text_of(&role),
        },
        Event::RoleRemoved { scope, node, role } => Line::RoleRemoved {
            scope: scope.to_string(),
            node: node.to_string(),
            role: text_of(&role),
        },
        Event::Lagged { missed } => Line::Lagged { missed },
        // Events that a later version may have.
        _ => return,
    };
    out.say(&line);
}

fn seen(evidence: &Evidence) -> Vec<Saw> {
    let witnesses = evidence.witnesses.iter();
    witnesses.map(|it| Saw { node: it.node.name().into(), saw: it.saw }).collect()
}

fn obey(cluster: &Cluster, line: &str) -> Result<Answer, Box<dyn Error>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let default_scope = cluster.default_scope();
    let scope_at = |index: usize| match words.get(index) {
        Some(name) => cluster.scope(name),
        None => default_scope.clone(),
    };
    let (role, in_scope) = (|| words[1].to_string(), |index| scope_at(index).name().to_string());
    let generation = || scope_at(2).generation().as_u64();
    Ok(match (words[0], words.len()) {
        ("add", 2 | 3) => {
            scope_at(2).add_role(words[1])?;
            Answer::Add { role: role(), scope: in_scope(2), generation: generation() }
        }
        ("remove", 2 | 3) => {
            scope_at(2).remove_role(words[1])?;
            Answer::Remove { role: role(), scope: in_scope(2), generation: generation() }
        }
        ("join", 2) => {
            scope_at(1).join()?;
            Answer::Join { scope: in_scope(1) }
        }
        ("leave", 2) => {
            scope_at(1).leave()?;
            Answer::Leave { scope: in_scope(1) }
        }
        ("nodes", 2 | 3) => {
            let nodes = names(&scope_at(2).nodes(words[1]));
            Answer::Nodes { role: role(), scope: in_scope(2), nodes }
        }
        ("roles", 2 | 3) => {
            let roles = scope_at(2).roles(words[1]).iter().map(text_of).collect();
            Answer::Roles { node: words[1].into(), scope: in_scope(2), roles }
        }
        ("all", 1 | 2) => {
            Answer::All { scope: in_scope(1), nodes: names(&scope_at(1).all_nodes()) }
        }
        ("scopes", 1) => Answer::Scopes { scopes: scopes(cluster) },
        ("members", 1) => {
            Answer::Members { members: cluster.members().iter().map(Shown::from).collect() }
        }
        ("picture", 1) => picture(cluster),
        ("stats", 1) => Answer::Stats { stats: Box::new(cluster.stats()) },
        ("help", 1) => Answer::Help { text: HELP },
        _ => return Err(format!("{line:?} is not a command: try help").into()),
    })
}

/// All that the node knows: the members, and in each of its scopes the roles of each node.
fn picture(cluster: &Cluster) -> Answer {
    let nodes_of = |name: &String| {
        let scope = cluster.scope(name);
        let roles = |node: &Node| scope.roles(node.name()).iter().map(text_of).collect();
        scope.all_nodes().iter().map(|node| (node.name().into(), roles(node))).collect()
    };
    let scopes = scopes(cluster).into_iter().map(|name| (name.clone(), nodes_of(&name)));
    let members = cluster.members().iter().map(Shown::from).collect();
    Answer::Picture { members, scopes: scopes.collect() }
}

/// A role that is text stands for itself; any other as a person would write it.
fn text_of(role: &Role) -> String {
    role.get().unwrap_or_else(|_| role.to_string())
}

fn names(nodes: &Nodes) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}

fn scopes(cluster: &Cluster) -> Vec<String> {
    cluster.scopes().iter().map(ToString::to_string).collect()
}

/// Lines from standard input, read on a thread of their own: a read there cannot be cancelled, and
/// must not keep the runtime from ending.
fn lines_of_input() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Resolves on Ctrl-C and, where there is such a thing, on SIGTERM.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without signals, there is still `quit`.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
