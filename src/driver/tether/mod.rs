//! Tethers: idle TCP connections to a few members, whose end tells that a process has died.
//!
//! ```text
//!   connector                                           acceptor (same port as its UDP socket)
//!       | connect                                           |
//!       | hello: 23 bytes, the header of a datagram         |
//!       |   magic "rc", version and flags, cluster,         |
//!       |   from: the connector's run, to: the run          |
//!       |   that it believes to dial, checksum              |
//!       | ------------------------------------------------> | from a live member's IP address,
//!       |                                                   | for this run, within 2 s: else
//!       | <------------------------------------- 'w' 0x77 - | it is closed
//!       |                                                   |
//!       |         nothing, not even a keepalive             |
//!       |                                                   |
//!       | - 'f' 0x66, by whoever closes it in order ------- |
//! ```
//! When it ends without the farewell, after the welcome, the other end's process is gone, or so it
//! seems: [`Hint::TetherClosed`](crate::proto::Hint). Neither end takes it for more. A node that
//! leaves, or does not want the tether any more, says farewell; one that is dropped is a crash to
//! others, here as everywhere.
//!
//! Tasks wait for peers, and report to the driver; only the driver decides, in its turn. Every
//! task, connection and queue has a limit, and belongs to the driver, with which it ends. What
//! strangers can have is at most some fifty descriptors and a hundred reports a second.

mod accept;
mod dial;
mod talk;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{Instrument, Level};

use super::log::log;
use crate::node::NodeId;
use crate::proto::Protocol;
use crate::view::ClusterView;
pub(crate) use accept::listen;
use accept::{Acceptor, attend, refuse};
use dial::Dial;
pub(crate) use talk::Identity;

/// Tethers from others, in all. As many come in as go out, where all see the same members; this is
/// four times as many as a node may have.
const MAX_INCOMING: usize = 32;

/// Reports that wait for the driver; tasks wait when there are more.
const REPORT_QUEUE: usize = 32;

/// Reports taken in one turn.
const REPORTS_PER_TURN: usize = 32;

/// The members that are wanted are looked at this often even when nothing is known to have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// They are not looked at more often than this, however much changes.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// When a node leaves, its farewells take at most this long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// What a task tells the driver.
enum Report {
    /// Somebody has connected, and says who it is.
    Hello { from: NodeId, ip: IpAddr, stream: TcpStream },
    /// A connection was closed that was no tether.
    Refused,
    /// A tether that was dialled holds.
    Up { link: u64 },
    /// A tether that held is gone.
    Down { link: u64, died: bool },
}

/// A tether, or the attempt to have one.
struct Link {
    number: u64,
    peer: NodeId,
    addr: SocketAddr,
    holds: bool,
    /// Said to its task, it says farewell.
    close: oneshot::Sender<()>,
}

impl Link {
    fn close(self) {
        // Its task may have come to its end by itself.
        let _ = self.close.send(());
    }
}

/// How many there are, for `Stats`.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) outgoing: usize,
    pub(crate) incoming: usize,
    pub(crate) refused: u64,
}

/// The driver's side of all tethers.
pub(crate) struct Tethers {
    identity: Identity,
    bound: SocketAddr,
    view: Arc<ClusterView>,
    /// How many this node is to hold, by the configuration that was last seen.
    wanted: usize,
    /// When it was last looked at which they are, and after how many events of members.
    looked: Option<(Instant, u64)>,
    listening: Option<AbortHandle>,
    /// It has been told that the listener cannot be had.
    warned: bool,
    outgoing: Vec<Link>,
    incoming: Vec<Link>,
    next_link: u64,
    refused: u64,
    sender: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    /// The report that woke the driver.
    first: Option<Report>,
    tasks: JoinSet<()>,
}

impl Tethers {
    /// Starts with the listener that was opened with the socket, if it could be had.
    pub(crate) fn new(
        identity: Identity,
        bound: SocketAddr,
        view: Arc<ClusterView>,
        listener: Option<TcpListener>,
    ) -> Tethers {
        let (sender, reports) = mpsc::channel(REPORT_QUEUE);
        let mut tethers = Tethers {
            identity,
            bound,
            view,
            wanted: 0,
            looked: None,
            listening: None,
            warned: false,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            next_link: 0,
            refused: 0,
            sender,
            reports,
            first: None,
            tasks: JoinSet::new(),
        };
        if let Some(listener) = listener {
            tethers.accept_from(listener);
        }
        tethers
    }

    /// Waits for the next report, and keeps it for the turn.
    pub(crate) async fn reported(&mut self) {
        if self.first.is_none() {
            self.first = self.reports.recv().await;
        }
    }

    /// Takes what was reported: adds to `dead` the addresses of members whose tether died, and says
    /// whether there may be more.
    pub(crate) fn take_reports(&mut self, protocol: &Protocol, dead: &mut Vec<SocketAddr>) -> bool {
        while self.tasks.try_join_next().is_some() {}
        for _ in 0..REPORTS_PER_TURN {
            let Some(report) = self.first.take().or_else(|| self.reports.try_recv().ok()) else {
                return false;
            };
            match report {
                Report::Hello { from, ip, stream } => self.greet(from, ip, stream, protocol),
                Report::Refused => self.refused += 1,
                Report::Up { link } => {
                    if let Some(link) = self.outgoing.iter_mut().find(|it| it.number == link) {
                        link.holds = true;
                    }
                }
                Report::Down { link, died } => {
                    let lost = self.lose(link).filter(|_| died);
                    dead.extend(lost.and_then(|peer| protocol.addr_of_member(peer)));
                }
            }
        }
        true
    }

    /// Makes the tethers those that the protocol wants, if these may be others than before (as
    /// `member_events` counts on), or have not been looked at for long. Returns when to come again
    /// for that.
    pub(crate) fn follow(&mut self, protocol: &Protocol, member_events: u64) -> Option<Instant> {
        let now = Instant::now();
        let wanted = if protocol.is_stopped() { 0 } else { protocol.config().tethers };
        let changed = self.looked.is_some_and(|(_, before)| before != member_events);
        let pause = if changed { LOOK_PAUSE } else { LOOK_INTERVAL };
        let next = self.looked.map(|(at, _)| at + pause).filter(|at| *at > now);
        if wanted == self.wanted && next.is_some() {
            return next.filter(|_| changed);
        }
        self.looked = Some((now, member_events));
        self.wanted = wanted;
        self.open_or_close();
        let list = if wanted == 0 { Vec::new() } else { protocol.tethers() };
        keep(&mut self.outgoing, |link| list.contains(&(link.peer, link.addr)));
        keep(&mut self.incoming, |link| wanted > 0 && protocol.addr_of_member(link.peer).is_some());
        let source = match self.bound.ip() {
            ip if ip.is_unspecified() => protocol.local().addr().ip(),
            ip => ip,
        };
        for (peer, addr) in list {
            if !self.outgoing.iter().any(|link| link.peer == peer) {
                self.dial(peer, addr, source);
            }
        }
        None
    }

    pub(crate) fn counts(&self) -> Counts {
        let holds = |links: &[Link]| links.iter().filter(|link| link.holds).count();
        Counts {
            outgoing: holds(&self.outgoing),
            incoming: holds(&self.incoming),
            refused: self.refused,
        }
    }

    /// Says farewell on all of them, and closes all sockets.
    pub(crate) async fn end(mut self) {
        self.reports.close();
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
        keep(&mut self.outgoing, |_| false);
        keep(&mut self.incoming, |_| false);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // Whatever takes longer is ended with the set.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, ended).await;
    }

    /// Listens while tethers are wanted. A port that is taken may become free.
    fn open_or_close(&mut self) {
        if self.wanted == 0 {
            if let Some(listening) = self.listening.take() {
                listening.abort();
            }
        } else if self.listening.is_none() {
            match listen(self.bound) {
                Ok(listener) => self.accept_from(listener),
                Err(error) if !self.warned => {
                    self.warned = true;
                    let addr = self.bound;
                    log(Level::WARN, move || {
                        tracing::warn!(%addr, %error, "cannot listen on TCP: no tethers come in");
                    });
                }
                Err(_) => {}
            }
        }
    }

    fn accept_from(&mut self, listener: TcpListener) {
        let (identity, view) = (self.identity, self.view.clone());
        let acceptor = Acceptor { listener, identity, view, reports: self.sender.clone() };
        self.listening = Some(self.spawn(acceptor.run()));
    }

    fn dial(&mut self, peer: NodeId, addr: SocketAddr, source: IpAddr) {
        let (link, identity, reports) = (self.next_link, self.identity, self.sender.clone());
        let (close, closed) = oneshot::channel();
        let dial = Dial { link, peer, addr, source, identity, reports };
        self.spawn(dial.run(closed));
        let link = self.link(peer, addr, false, close);
        self.outgoing.push(link);
    }

    /// Somebody says hello. It must be a live member, at the address from which it connects. A
    /// second tether from one member takes the place of the first, which may be half dead.
    fn greet(&mut self, from: NodeId, ip: IpAddr, stream: TcpStream, protocol: &Protocol) {
        let addr = protocol.addr_of_member(from).filter(|addr| addr.ip().to_canonical() == ip);
        let older = self.incoming.iter().position(|link| link.peer == from);
        let full = older.is_none() && self.incoming.len() >= MAX_INCOMING;
        let Some(addr) = addr.filter(|_| self.wanted > 0 && !full) else {
            self.refused += 1;
            return refuse(stream);
        };
        if let Some(older) = older {
            self.incoming.swap_remove(older).close();
        }
        let (close, closed) = oneshot::channel();
        self.spawn(attend(stream, self.next_link, self.sender.clone(), closed));
        let link = self.link(from, addr, true, close);
        self.incoming.push(link);
    }

    fn link(
        &mut self,
        peer: NodeId,
        addr: SocketAddr,
        holds: bool,
        close: oneshot::Sender<()>,
    ) -> Link {
        let number = self.next_link;
        self.next_link += 1;
        Link { number, peer, addr, holds, close }
    }

    /// A tether is gone; returns to whom it was, unless it was closed here meanwhile.
    fn lose(&mut self, number: u64) -> Option<NodeId> {
        if let Some(link) = self.outgoing.iter_mut().find(|link| link.number == number) {
            link.holds = false;
            return Some(link.peer);
        }
        let at = self.incoming.iter().position(|link| link.number == number)?;
        Some(self.incoming.swap_remove(at).peer)
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(task.in_current_span())
    }
}

/// Closes those that are not to be kept.
fn keep(links: &mut Vec<Link>, kept: impl Fn(&Link) -> bool) {
    for link in links.extract_if(.., |link| !kept(link)) {
        link.close();
    }
}
