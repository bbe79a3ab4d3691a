use std::net::Ipv4Addr;

use super::talk::{FAREWELL, WELCOME, fill, hear, say};
use super::*;
use crate::config::Config;
use crate::node::NodeName;
use crate::proto::LocalNode;
use crate::view::Publisher;
use crate::wire::{ClusterId, HEADER_BYTES, Header, begin, finish};

const WAIT: Duration = Duration::from_secs(20);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn id(n: u64) -> NodeId {
    NodeId::from_u64(n).unwrap()
}

fn identity(n: u64) -> Identity {
    Identity { cluster: ClusterId::of("test"), local: id(n) }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future).await.expect("it happens")
}

/// A task that dials a listener of the test, as run 1 to run 2.
struct Dialling {
    listener: TcpListener,
    reports: mpsc::Receiver<Report>,
    close: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Dialling {
    fn start() -> Dialling {
        let listener = listen(SocketAddr::new(LOOPBACK, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, reports) = mpsc::channel(8);
        let (close, closed) = oneshot::channel();
        let (source, identity) = (LOOPBACK, identity(1));
        let dial = Dial { link: 7, peer: id(2), addr, source, identity, reports: sender };
        Dialling { listener, reports, close, task: tokio::spawn(dial.run(closed)) }
    }

    /// The next connection, after its hello.
    async fn greeted(&self) -> TcpStream {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        let mut hello = [0; HEADER_BYTES];
        within(fill(&stream, &mut hello)).await.unwrap();
        assert_eq!(identity(2).sender(&hello), Some(id(1)));
        stream
    }

    async fn welcomed(&mut self) -> TcpStream {
        let stream = self.greeted().await;
        say(&stream, &[WELCOME]).await.unwrap();
        assert!(matches!(within(self.reports.recv()).await, Some(Report::Up { link: 7 })));
        stream
    }

    async fn down(&mut self) -> bool {
        match within(self.reports.recv()).await {
            Some(Report::Down { link: 7, died }) => died,
            _ => panic!("the tether is down, and nothing else"),
        }
    }
}

#[tokio::test]
async fn nothing_is_said_on_a_tether_until_its_end_is_told_or_seen() {
    let mut dialling = Dialling::start();
    let stream = dialling.welcomed().await;
    let silence = tokio::time::timeout(Duration::from_secs(2), hear(&stream)).await;
    assert!(silence.is_err(), "{silence:?}");
    drop(stream);
    assert!(dialling.down().await, "it ended without a word");
    // It is dialled again after a while.
    let stream = dialling.welcomed().await;
    say(&stream, &[FAREWELL]).await.unwrap();
    assert!(!dialling.down().await, "it was told");
}

#[tokio::test]
async fn a_tether_that_speaks_is_closed_and_is_no_death() {
    let mut dialling = Dialling::start();
    let stream = dialling.welcomed().await;
    say(&stream, b"hello?").await.unwrap();
    drop(stream);
    assert!(!dialling.down().await);
}

#[tokio::test]
async fn who_was_never_welcome_has_lost_nothing() {
    let mut dialling = Dialling::start();
    drop(dialling.greeted().await);
    refuse(dialling.greeted().await);
    dialling.close.send(()).unwrap();
    within(dialling.task).await.unwrap();
    assert!(dialling.reports.recv().await.is_none(), "nothing was reported");
}

#[tokio::test]
async fn a_farewell_is_said_when_it_is_asked_for_and_only_then() {
    let mut dialling = Dialling::start();
    let stream = dialling.welcomed().await;
    dialling.close.send(()).unwrap();
    assert_eq!(within(hear(&stream)).await, Some(FAREWELL));
    assert_eq!(within(hear(&stream)).await, None);
    within(dialling.task).await.unwrap();

    let mut dialling = Dialling::start();
    let stream = dialling.welcomed().await;
    drop(dialling.close);
    assert_eq!(within(hear(&stream)).await, None);
    within(dialling.task).await.unwrap();

    // Also between hello and welcome: the other end may see a tether by then.
    let dialling = Dialling::start();
    let stream = dialling.greeted().await;
    dialling.close.send(()).unwrap();
    assert_eq!(within(hear(&stream)).await, Some(FAREWELL));
}

/// A listener of run 2, which is alone in its cluster, at loopback.
struct Accepting {
    addr: SocketAddr,
    reports: mpsc::Receiver<Report>,
    task: tokio::task::JoinHandle<()>,
}

impl Accepting {
    fn start() -> Accepting {
        let listener = listen(SocketAddr::new(LOOPBACK, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, reports) = mpsc::channel(8);
        let (_, view) = Publisher::new(alone(addr).local().clone());
        let acceptor = Acceptor { listener, identity: identity(2), view, reports: sender };
        Accepting { addr, reports, task: tokio::spawn(acceptor.run()) }
    }

    async fn connect(&self) -> TcpStream {
        within(TcpStream::connect(self.addr)).await.unwrap()
    }

    async fn is_refused(&mut self) -> bool {
        matches!(within(self.reports.recv()).await, Some(Report::Refused))
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn alone(addr: SocketAddr) -> Protocol {
    let local = LocalNode {
        cluster: ClusterId::of("test"),
        name: NodeName::new("alone").unwrap(),
        addr,
        boot: 1,
        meta: bytes::Bytes::new(),
    };
    Protocol::new(&Config::lan(), local, 1, crate::time::Instant::ORIGIN).unwrap()
}

#[tokio::test]
async fn only_a_hello_for_this_run_and_cluster_is_heard() {
    let mut accepting = Accepting::start();
    let hello = |cluster: &str, from: u64, to: Option<u64>| {
        let cluster = ClusterId::of(cluster);
        let mut hello = Vec::new();
        begin(Header { cluster, from: id(from), to: to.map(id) }, &mut hello);
        finish(&mut hello, cluster);
        hello
    };
    let bad = [
        hello("other", 1, Some(2)),
        hello("test", 1, Some(3)),
        hello("test", 1, None),
        hello("test", 2, Some(2)),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
    ];
    for hello in bad {
        let stream = accepting.connect().await;
        say(&stream, &hello).await.unwrap();
        assert!(accepting.is_refused().await);
        assert_eq!(within(hear(&stream)).await, None);
    }
    let stream = accepting.connect().await;
    say(&stream, &hello("test", 1, Some(2))).await.unwrap();
    let report = within(accepting.reports.recv()).await;
    assert!(matches!(report, Some(Report::Hello { from, ip: LOOPBACK, .. }) if from == id(1)));
}

#[tokio::test]
async fn the_silent_are_few_and_not_for_long() {
    let mut accepting = Accepting::start();
    let mut silent = Vec::new();
    for _ in 0..24 {
        silent.push(accepting.connect().await);
    }
    for stream in &silent {
        assert_eq!(within(hear(stream)).await, None);
        assert!(accepting.is_refused().await);
    }
}

#[tokio::test]
async fn who_is_no_member_is_refused_by_the_driver() {
    let listener = listen(SocketAddr::new(LOOPBACK, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let protocol = alone(addr);
    let (_, view) = Publisher::new(protocol.local().clone());
    let local = Identity { cluster: ClusterId::of("test"), local: protocol.local().id() };
    let mut tethers = Tethers::new(local, addr, view, Some(listener));
    tethers.follow(&protocol, 0);
    let stream = within(TcpStream::connect(addr)).await.unwrap();
    say(&stream, &identity(1).hello(local.local)).await.unwrap();
    within(tethers.reported()).await;
    let mut dead = Vec::new();
    assert!(!tethers.take_reports(&protocol, &mut dead));
    assert_eq!(within(hear(&stream)).await, None);
    assert_eq!(tethers.counts().refused, 1);
    assert_eq!(tethers.counts().incoming, 0);
    assert!(dead.is_empty());
    within(tethers.end()).await;
    assert!(TcpStream::connect(addr).await.is_err(), "the listener is closed");
}
