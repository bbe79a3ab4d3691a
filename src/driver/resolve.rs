//! The seeds' names are resolved while the node goes on.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tracing::Level;

use super::log::log;

/// Resolving the seeds' names takes at most this long.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses to come.
pub(super) type Resolving = Pin<Box<dyn Future<Output = Vec<SocketAddr>> + Send>>;

/// Begins to resolve them.
pub(super) fn resolve_all(seeds: Vec<String>) -> Resolving {
    Box::pin(async move { resolve(&seeds).await })
}

/// The addresses of `host:port` texts, resolved now; what cannot be resolved is left out.
pub(crate) async fn resolve(seeds: &[String]) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for seed in seeds {
        if let Ok(addr) = seed.parse() {
            addrs.push(addr);
            continue;
        }
        match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(seed.as_str())).await {
            Ok(Ok(found)) => addrs.extend(found),
            Ok(Err(error)) => {
                let seed = seed.clone();
                log(Level::DEBUG, move || {
                    tracing::debug!(seed, %error, "cannot resolve a seed");
                });
            }
            Err(_) => {
                let seed = seed.clone();
                log(Level::DEBUG, move || {
                    tracing::debug!(seed, "resolving a seed took too long");
                });
            }
        }
    }
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}
