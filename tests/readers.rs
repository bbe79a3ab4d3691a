//! What readers can do to a node: keep its memory, and nothing else.

#[path = "support/cluster.rs"]
mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use rolecall::{Cluster, Role};
use support::{eventually, node};

/// One test at a time: all views of a process wait for each other's readers.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, of: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(of).count()
    }
}

/// Each change replaces a part of this node's many roles.
fn change_often(cluster: &Cluster, times: usize) {
    for _ in 0..times / 2 {
        cluster.add_role("flag").unwrap();
        cluster.remove_role("flag").unwrap();
    }
}

#[tokio::test]
async fn a_reader_that_stays_keeps_memory_and_is_warned_of_once() {
    let _alone = ALONE.lock().await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let cluster = node("a").start().await.unwrap();
    let many = (0..1_000).map(|n| Role::from(("shard", n)));
    cluster.default_scope().add_roles(many).unwrap();
    cluster.add_role("flag").unwrap();
    eventually(|| cluster.stats().reclaim_pending_bytes == 0).await;

    let (entered, leave) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let reader = std::thread::spawn({
        let cluster = cluster.clone();
        move || {
            let (scope, view) = (cluster.default_scope(), cluster.view());
            let (held, before) = (view.nodes(&scope, "flag"), view.roles(&scope, "a").len());
            entered.0.send(()).unwrap();
            let _ = leave.1.recv();
            (before, held.iter().filter(|node| node.name() == "a").count())
        }
    });
    entered.1.recv().unwrap();
    change_often(&cluster, 200);
    let few = cluster.stats().reclaim_pending_bytes;
    assert!(few > 200 * 64 * size_of::<Role>(), "{few}");
    change_often(&cluster, 20_000);
    eventually(|| log.count("a reader holds a view for long") == 1).await;
    let many = cluster.stats().reclaim_pending_bytes;
    assert!(many > 64 << 20 && many > 10 * few, "{many}");
    change_often(&cluster, 200);

    leave.0.send(()).unwrap();
    assert_eq!(reader.join().unwrap(), (1_001, 1), "what it saw stayed whole");
    // Nobody changes or sends anything: the node is alone.
    eventually(|| cluster.stats().reclaim_pending_bytes == 0).await;
    assert_eq!(log.count("a reader holds a view for long"), 1);
}

#[tokio::test]
async fn readers_that_come_and_go_keep_little() {
    let _alone = ALONE.lock().await;
    let cluster = node("a").start().await.unwrap();
    let many = (0..1_000).map(|n| Role::from(("shard", n)));
    cluster.default_scope().add_roles(many).unwrap();
    let (stop, stopped) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), 3_000);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (cluster, stop) = (cluster.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut reads = 0_u64;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let found = cluster.with_nodes(("shard", reads % 1_000), <[_]>::len);
                    assert_eq!(found, 1);
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    change_often(&cluster, stopped);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    eventually(|| cluster.stats().reclaim_pending_bytes == 0).await;
}
