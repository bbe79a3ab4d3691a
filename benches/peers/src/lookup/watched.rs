//! `RoleWatch`, which only a running node hands out: a cluster of one, on loopback.

use rolecall::{Cluster, Config, Role, Scope};
use tokio::runtime::{Builder, Runtime};

use super::contenders::{Reader, Table, Writer, len, sum};
use super::data::Data;

/// A watch is of one role, so that it does not matter how many others there are. A power of two:
/// a remainder would cost more than a look at a watch.
const MAX_WATCHES: usize = 512;

/// A node that plays the first roles itself: their sets have one node each.
pub(super) struct Watched {
    scope: Scope,
    _cluster: Cluster,
    _runtime: Runtime,
}

impl Watched {
    pub(super) fn new(data: &Data) -> Watched {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread can be started");
        let start = Cluster::builder("node-000000").bind("127.0.0.1:0").config(Config::lan());
        let cluster = runtime.block_on(start.start()).expect("loopback has a free port");
        let scope = cluster.scope(data.scope.as_str());
        let roles = data.len().min(MAX_WATCHES);
        let names = (0..roles).map(|role| data.name(role));
        scope.add_roles(names).expect("these are few and short");
        Watched { scope, _cluster: cluster, _runtime: runtime }
    }
}

impl Table for Watched {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        let watches =
            (0..data.len().min(MAX_WATCHES)).map(|role| self.scope.watch(data.role(role).clone()));
        let mut watches: Vec<_> = watches.collect();
        Box::new(move |order| sum(order, |role| len(watches[role % MAX_WATCHES].get())))
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(Box::new(|changes| {
            for change in changes {
                let role: Role = data.role(change.role % MAX_WATCHES).clone();
                // The set has one node or none.
                let done = if change.grows {
                    self.scope.remove_role(role)
                } else {
                    self.scope.add_role(role)
                };
                done.expect("the node runs");
            }
        }))
    }
}
