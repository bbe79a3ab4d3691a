//! A web service that knows its cluster: settings from a TOML file or the environment, and answers
//! about who plays which role, from memory.
//!
//! ```text
//! SERVICE_NAME=a SERVICE_HTTP=127.0.0.1:8080 SERVICE_BIND=127.0.0.1:7946 SERVICE_ROLES=web,api \
//!     cargo run --example axum_service
//! SERVICE_NAME=b SERVICE_HTTP=127.0.0.1:8081 SERVICE_BIND=127.0.0.1:7947 SERVICE_ROLES=web \
//!     SERVICE_SEEDS=127.0.0.1:7946 cargo run --example axum_service
//! curl localhost:8080/nodes/web
//! curl localhost:8081/members
//! ```
//!
//! With `SERVICE_CONFIG=service.toml` the settings come from a file; what the environment says goes
//! before what the file says, and that before the defaults:
//!
//! ```toml
//! name = "a"
//! http = "127.0.0.1:8080"
//! bind = "127.0.0.1:7946"
//! seeds = ["127.0.0.1:7947"]
//! roles = ["web", "api"]
//!
//! [tuning]                        # rolecall::Config; what is not said is Config::lan()
//! probe_interval = "500ms"
//! pause_tolerance = "2s"
//! ```

use std::env;
use std::error::Error;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use rolecall::{Cluster, Config, Node};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What this service can be told.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    name: String,
    http: String,
    bind: String,
    seeds: Vec<String>,
    roles: Vec<String>,
    tuning: Config,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            name: env::var("HOSTNAME").unwrap_or_else(|_| "node".into()),
            http: "127.0.0.1:8080".into(),
            bind: "127.0.0.1:7946".into(),
            seeds: Vec::new(),
            roles: vec!["web".into()],
            tuning: Config::lan(),
        }
    }
}

impl Settings {
    fn load() -> Result<Settings, Box<dyn Error>> {
        let mut settings: Settings = match env::var("SERVICE_CONFIG") {
            Ok(path) => toml::from_str(&std::fs::read_to_string(path)?)?,
            Err(_) => Settings::default(),
        };
        let list = |text: String| -> Vec<String> {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Into::into).collect()
        };
        let Settings { name, http, bind, seeds, roles, .. } = &mut settings;
        for (key, value) in [("NAME", name), ("HTTP", http), ("BIND", bind)] {
            *value = env::var(format!("SERVICE_{key}")).unwrap_or(std::mem::take(value));
        }
        for (key, value) in [("SEEDS", seeds), ("ROLES", roles)] {
            *value = env::var(format!("SERVICE_{key}")).map_or(std::mem::take(value), list);
        }
        Ok(settings)
    }
}

/// A node as this service's clients see it.
#[derive(Serialize)]
struct Peer {
    name: String,
    addr: String,
    meta: String,
}

impl From<&Node> for Peer {
    fn from(node: &Node) -> Peer {
        Peer {
            name: node.name().into(),
            addr: node.addr().to_string(),
            meta: String::from_utf8_lossy(node.meta()).into_owned(),
        }
    }
}

/// Reads in place: neither a lock nor a reference count stands between requests.
async fn nodes(State(cluster): State<Cluster>, Path(role): Path<String>) -> Json<Vec<Peer>> {
    Json(cluster.with_nodes(role, |nodes| nodes.iter().map(Peer::from).collect()))
}

async fn members(State(cluster): State<Cluster>) -> Json<Vec<Peer>> {
    Json(cluster.members().iter().map(Peer::from).collect())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let settings = Settings::load()?;

    // First the listener, then the node: who hears of this node's roles can already connect.
    let listener = TcpListener::bind(&settings.http).await?;
    let http = listener.local_addr()?;
    let cluster = Cluster::builder(settings.name)
        .bind(settings.bind)
        .seeds(settings.seeds)
        .roles(settings.roles)
        .meta(format!("http={http}"))
        .config(settings.tuning)
        .start()
        .await?;
    println!("{} serves http://{http}, gossips at {}", cluster.local_node(), cluster.local_addr());

    let app = Router::new()
        .route("/nodes/{role}", get(nodes))
        .route("/members", get(members))
        .with_state(cluster.clone());
    axum::serve(listener, app).with_graceful_shutdown(told_to_stop()).await?;

    // A goodbye that some did not acknowledge has still ended this node.
    if let Err(error) = cluster.leave().await {
        eprintln!("{error}");
    }
    Ok(())
}

/// Resolves on Ctrl-C, or when a supervisor asks the process to end.
async fn told_to_stop() {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
