//! The acceptor's end of a tether: a listener that believes nobody, and a task for each tether.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::Level;

use super::super::log::log;
use super::Report;
use super::talk::{End, Identity, WELCOME, fill, hold, say};
use crate::view::ClusterView;
use crate::wire::HEADER_BYTES;

/// A hello that has not come by then does not come.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections whose hello is waited for; one more is closed at once.
const MAX_UNINTRODUCED: usize = 16;

/// The pause after each connection, whatever came of it: a hundred a second are far more than a
/// cluster needs, and no work to speak of.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The pause when none can be accepted: out of file descriptors, for example.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 64;

/// Opens the listener, at the address of the UDP socket.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    // What is left of a former run's connections must not keep the port; on Windows it does not,
    // and the option means something else.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// What the listener's task needs.
pub(super) struct Acceptor {
    pub(super) listener: TcpListener,
    pub(super) identity: Identity,
    pub(super) view: Arc<ClusterView>,
    pub(super) reports: mpsc::Sender<Report>,
}

impl Acceptor {
    /// Accepts connections, as long as the task is left alone.
    pub(super) async fn run(self) {
        let mut unintroduced = JoinSet::new();
        loop {
            let accepted = self.listener.accept().await;
            while unintroduced.try_join_next().is_some() {}
            match accepted {
                Ok((stream, from)) => {
                    let ip = from.ip().to_canonical();
                    if unintroduced.len() < MAX_UNINTRODUCED && self.is_a_members(ip) {
                        unintroduced.spawn(hear_out(
                            stream,
                            ip,
                            self.identity,
                            self.reports.clone(),
                        ));
                    } else {
                        refuse(stream);
                        // Nobody hears it when the driver is at its end.
                        let _ = self.reports.send(Report::Refused).await;
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
                Err(error) => {
                    log(Level::DEBUG, move || tracing::debug!(%error, "accepting failed"));
                    sleep(FAILURE_PAUSE).await;
                }
            }
        }
    }

    /// A look at everybody, which takes no lock; a stranger must not take the place of a member
    /// among those that are heard out.
    fn is_a_members(&self, ip: IpAddr) -> bool {
        self.view.members().iter().any(|node| node.addr().ip().to_canonical() == ip)
    }
}

/// Hears who it is; the driver decides then.
async fn hear_out(
    stream: TcpStream,
    ip: IpAddr,
    identity: Identity,
    reports: mpsc::Sender<Report>,
) {
    let mut hello = [0; HEADER_BYTES];
    let heard = timeout(HELLO_TIMEOUT, fill(&stream, &mut hello)).await;
    let sender = matches!(heard, Ok(Ok(()))).then(|| identity.sender(&hello)).flatten();
    let report = if let Some(from) = sender {
        Report::Hello { from, ip, stream }
    } else {
        refuse(stream);
        Report::Refused
    };
    let _ = reports.send(report).await;
}

/// Closes a connection so that nothing of it is left here.
pub(super) fn refuse(stream: TcpStream) {
    // Without it the kernel remembers the connection for a minute.
    let _ = stream.set_zero_linger();
    drop(stream);
}

/// Holds a tether that was accepted.
pub(super) async fn attend(
    stream: TcpStream,
    link: u64,
    reports: mpsc::Sender<Report>,
    mut close: oneshot::Receiver<()>,
) {
    // Who has gone before it was welcome has not died on a tether.
    let welcome = say(&stream, &[WELCOME]).await.is_ok();
    let end = if welcome { hold(&stream, &mut close).await } else { End::Told };
    drop(stream);
    if end != End::Ours {
        let _ = reports.send(Report::Down { link, died: end == End::Died }).await;
    }
}
