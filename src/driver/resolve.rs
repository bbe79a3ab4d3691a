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

/// What is wrong with the text of a seed, whatever it may resolve to.
pub(crate) fn check_seed(text: &str) -> Result<(), String> {
    let port = match text.parse::<SocketAddr>() {
        Ok(addr) => Some(addr.port()),
        Err(_) => text.rsplit_once(':').and_then(|(host, port)| {
            let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != ':';
            let is_name = !host.is_empty() && host.chars().all(plain);
            is_name.then(|| port.parse().ok()).flatten()
        }),
    };
    match port {
        Some(1..) => Ok(()),
        Some(0) => Err("nobody listens on port 0".into()),
        None => Err("a seed is host:port, with brackets around an IPv6 address".into()),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_host_and_a_port() {
        for good in ["10.0.0.5:7946", "[::1]:7946", "shop.default.svc:1", "under_score:65535"] {
            assert_eq!(check_seed(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":",
            "10.0.0.5",
            "shop",
            "shop:",
            ":7946",
            "shop:http",
            "shop:65536",
            "shop:-1",
            "::1",
            "::1:7946",
            "a b:1",
            "shop:7946 ",
            "http://shop:1",
            "shop:0",
            "[::1]:0",
        ] {
            assert!(check_seed(bad).is_err(), "{bad}");
        }
    }
}
