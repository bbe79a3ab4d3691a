//! Subscribers to events. A slow one misses events; it never delays anybody.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;

use crate::event::{Event, EventHandler, dispatch};

/// A subscription to events: a `Stream` that ends when the node stops.
///
/// It starts with the moment at which it was made, and has room for
/// [`event_capacity`](crate::Config::event_capacity) events. One that is not read in time gets
/// [`Event::Lagged`] in place of what it missed, and should re-read the maps.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use rolecall::{Cluster, Event};
///
/// let cluster = Cluster::builder("a").bind("127.0.0.1:0").start().await.unwrap();
/// let mut events = cluster.events();
/// cluster.add_role("web").unwrap();
/// assert!(matches!(events.next().await, Some(Event::RoleAdded { .. })));
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a subscription does nothing unless it is read"]
pub struct Events {
    queue: mpsc::Receiver<Event>,
    missed: Arc<AtomicU64>,
}

impl Events {
    /// The next event; `None` when the node has stopped and all events have been read.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Events {
    /// What there is to read now: events in their order, and word of those missed where they were.
    fn try_next(&mut self) -> Option<Event> {
        if let Ok(event) = self.queue.try_recv() {
            return Some(event);
        }
        if self.missed.load(Ordering::Acquire) == 0 {
            return None;
        }
        // What came before those missed may have arrived since the queue was looked at.
        self.queue.try_recv().ok().or_else(|| match self.missed.swap(0, Ordering::AcqRel) {
            0 => None,
            missed => Some(Event::Lagged { missed }),
        })
    }

    /// A subscription to a node that has stopped.
    pub(crate) fn ended() -> Events {
        let (_, queue) = mpsc::channel(1);
        Events { queue, missed: Arc::default() }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        match self.queue.poll_recv(context) {
            Poll::Ready(Some(event)) => Poll::Ready(Some(event)),
            end => self.try_next().map_or(end, |event| Poll::Ready(Some(event))),
        }
    }
}

struct Subscriber {
    queue: mpsc::Sender<Event>,
    missed: Arc<AtomicU64>,
}

/// All subscribers of a node.
#[derive(Default)]
pub(crate) struct Hub {
    subscribers: Vec<Subscriber>,
    pub(crate) missed: u64,
}

impl Hub {
    pub(crate) fn subscribe(&mut self, capacity: usize) -> Events {
        let (sender, queue) = mpsc::channel(capacity);
        let missed = Arc::new(AtomicU64::new(0));
        self.subscribers.push(Subscriber { queue: sender, missed: missed.clone() });
        Events { queue, missed }
    }

    /// Gives events to everybody who has room for them.
    pub(crate) fn send(&mut self, events: &[Event]) {
        let lost = &mut self.missed;
        self.subscribers.retain(|subscriber| subscriber.send(events, lost));
    }

    /// Ends all subscriptions.
    pub(crate) fn close(&mut self) {
        self.subscribers.clear();
    }
}

impl Subscriber {
    /// False when nobody listens any more.
    fn send(&self, events: &[Event], lost: &mut u64) -> bool {
        for event in events {
            let missed = self.missed.swap(0, Ordering::AcqRel);
            // Word of what was missed comes before what follows, or that is missed too.
            if missed > 0 && self.queue.try_send(Event::Lagged { missed }).is_err() {
                self.missed.fetch_add(missed + 1, Ordering::AcqRel);
                *lost += 1;
                continue;
            }
            match self.queue.try_send(event.clone()) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    self.missed.fetch_add(1, Ordering::AcqRel);
                    *lost += 1;
                }
            }
        }
        !self.queue.is_closed()
    }
}

/// Runs a handler on a thread of its own until the subscription ends.
pub(crate) fn run_handler(
    handler: Box<dyn EventHandler>,
    mut events: Events,
    panics: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let run = move || {
        loop {
            let next = events.try_next().or_else(|| events.queue.blocking_recv());
            let Some(event) = next else { return };
            let call = std::panic::AssertUnwindSafe(|| dispatch(&*handler, event));
            if std::panic::catch_unwind(call).is_err() {
                panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the event handler panicked; it goes on with the next event");
            }
        }
    };
    std::thread::Builder::new().name("rolecall-handler".into()).spawn(run).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(missed: u64) -> Event {
        Event::Lagged { missed }
    }

    #[tokio::test]
    async fn a_slow_subscriber_hears_what_it_missed_in_the_right_place() {
        let mut hub = Hub::default();
        let mut slow = hub.subscribe(2);
        let mut quick = hub.subscribe(16);
        // Numbers that no subscriber can miss by itself tell the events apart.
        hub.send(&[event(101), event(102), event(103), event(104)]);
        assert_eq!(slow.next().await, Some(event(101)));
        assert_eq!(slow.next().await, Some(event(102)));
        assert_eq!(slow.next().await, Some(Event::Lagged { missed: 2 }));
        hub.send(&[event(105)]);
        assert_eq!(slow.next().await, Some(event(105)));
        for n in 101..=105 {
            assert_eq!(quick.next().await, Some(event(n)));
        }
        assert_eq!(hub.missed, 2);
        hub.close();
        assert_eq!(quick.next().await, None);
    }

    #[test]
    fn who_stops_listening_is_forgotten() {
        let mut hub = Hub::default();
        drop(hub.subscribe(4));
        hub.send(&[event(1)]);
        assert!(hub.subscribers.is_empty());
    }
}
