//! The connector's end of a tether: one task for each, until it is no longer wanted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::Level;

use super::super::log::log;
use super::Report;
use super::talk::{End, Identity, WELCOME, bid_farewell, hear, hold, say};
use crate::node::NodeId;

/// Somebody is dialled when it has been wanted for this long: neighbours change often while many
/// join, and the other end must have heard of this node to accept it.
const SETTLE: Duration = Duration::from_secs(1);

/// Where TCP is blocked, connecting takes forever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An acceptor answers within a round trip.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The pause after the first attempt that failed; each one after it is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Whom to dial.
pub(super) struct Dial {
    /// The number under which the driver knows the tether.
    pub(super) link: u64,
    pub(super) peer: NodeId,
    pub(super) addr: SocketAddr,
    /// Whence: the other end compares it with this node's address.
    pub(super) source: IpAddr,
    pub(super) identity: Identity,
    pub(super) reports: mpsc::Sender<Report>,
}

/// What came of an attempt.
enum Attempt {
    /// There was no tether.
    Failed,
    /// There was one, and it is gone.
    Lost,
    /// It is not wanted any more.
    Unwanted,
}

impl Dial {
    /// Keeps a tether up, until asked to close it: with a farewell if it is asked in words.
    pub(super) async fn run(self, mut close: oneshot::Receiver<()>) {
        let (mut pause, mut next) = (SETTLE, FIRST_PAUSE);
        loop {
            tokio::select! {
                _ = &mut close => return,
                () = sleep(pause) => {}
            }
            (pause, next) = match self.attempt(&mut close).await {
                Attempt::Failed => (next, (2 * next).min(LONGEST_PAUSE)),
                Attempt::Lost => (FIRST_PAUSE, 2 * FIRST_PAUSE),
                Attempt::Unwanted => return,
            };
        }
    }

    async fn attempt(&self, close: &mut oneshot::Receiver<()>) -> Attempt {
        let connected = tokio::select! {
            _ = &mut *close => return Attempt::Unwanted,
            connected = timeout(CONNECT_TIMEOUT, self.connect()) => connected,
        };
        let stream = match connected.map_err(io::Error::from).flatten() {
            Ok(stream) => stream,
            Err(error) => {
                let (peer, addr) = (self.peer, self.addr);
                log(Level::DEBUG, move || tracing::debug!(%peer, %addr, %error, "no tether"));
                return Attempt::Failed;
            }
        };
        let answer = tokio::select! {
            asked = &mut *close => {
                // The other end may have accepted it already.
                bid_farewell(&stream, asked.is_ok()).await;
                return Attempt::Unwanted;
            }
            answer = timeout(ANSWER_TIMEOUT, self.introduce(&stream)) => answer,
        };
        if answer != Ok(Some(WELCOME)) {
            let (peer, addr) = (self.peer, self.addr);
            let late = answer.is_err();
            log(Level::DEBUG, move || tracing::debug!(%peer, %addr, ?answer, "tether refused"));
            // An answer that comes late must not make it a tether.
            bid_farewell(&stream, late).await;
            return Attempt::Failed;
        }
        let up = self.reports.send(Report::Up { link: self.link });
        // Nobody hears it when the driver is at its end.
        let _ = up.await;
        let end = hold(&stream, close).await;
        drop(stream);
        if end == End::Ours {
            return Attempt::Unwanted;
        }
        let down = Report::Down { link: self.link, died: end == End::Died };
        let _ = self.reports.send(down).await;
        Attempt::Lost
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = match self.addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if self.source.is_ipv4() == self.addr.is_ipv4() && !self.source.is_unspecified() {
            // An advertised address need not be one of this host's; then the system chooses.
            let _ = socket.bind(SocketAddr::new(self.source, 0));
        }
        socket.connect(self.addr).await
    }

    /// Says who this node is, and returns the answer; nothing when it was hung up on.
    async fn introduce(&self, stream: &TcpStream) -> Option<u8> {
        say(stream, &self.identity.hello(self.peer)).await.ok()?;
        hear(stream).await
    }
}
