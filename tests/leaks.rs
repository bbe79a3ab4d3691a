//! Nothing is left behind by nodes that have stopped. In a process of its own: other tests would
//! disturb the counts.

#[path = "support/cluster.rs"]
mod support;

use support::{eventually, node, seed, within};

/// Open file descriptors (sockets among them), and threads, of this process.
#[cfg(target_os = "linux")]
fn open() -> (usize, usize) {
    let count = |path: &str| std::fs::read_dir(path).expect("procfs is there").count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// One life of two nodes with all that they can hold; one leaves, one crashes, and one more never
/// starts.
#[cfg(target_os = "linux")]
async fn round() {
    let heard = support::Heard::default();
    let a = node("a").event_handler(heard.clone()).role("web").start().await.unwrap();
    let b = node("b").event_handler(heard).seed(seed(&a)).scope("jobs").start().await.unwrap();
    let (mut events, mut watch) = (a.events(), a.default_scope().watch("web"));
    let taken = within(node("a").seed(seed(&b)).start()).await;
    assert!(taken.is_err());
    assert_eq!(within(watch.next()).await.unwrap().names(), ["a"]);
    within(b.leave()).await.unwrap();
    drop((a, b));
    while within(events.next()).await.is_some() {}
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn fifty_rounds_of_starting_and_stopping_leave_no_task_thread_or_descriptor() {
    // The first round makes what a process has once.
    round().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    eventually(|| metrics.num_alive_tasks() == 0).await;
    let before = open();
    for _ in 0..50 {
        round().await;
    }
    eventually(|| metrics.num_alive_tasks() == 0).await;
    eventually(|| {
        let now = open();
        now.0 <= before.0 && now.1 <= before.1
    })
    .await;
}
