//! The UDP socket: options, both address families, and the errors that do not matter.
//!
//! On Linux it also hears of datagrams that came back (`bounced`). The kernel then fails the next
//! call on the socket with such an error, whatever that call is for, and does not send: so a
//! datagram that is refused like this is sent again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpListener, UdpSocket};

use super::bounced;
use super::tether::listen;
use crate::config::Config;

/// Free ports are asked for this often, until one is free for UDP and TCP.
const PORT_TRIES: usize = 16;

/// A send that fails because of other datagrams is tried this often in all.
const SEND_TRIES: usize = 4;

/// The pause where waiting for room to send does not work.
const SEND_PAUSE: Duration = Duration::from_millis(1);

/// An address of a documentation network (RFC 5737): asked only for the route to it, never sent to.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// Whether this is called on a tokio runtime with I/O and time enabled. tokio has no way to ask:
/// what is missing shows as a panic of the first call that needs it.
pub(crate) fn has_runtime() -> bool {
    let needed = || {
        drop(tokio::time::sleep(Duration::ZERO));
        // Whether a socket can be had at all is told when the node's own is bound.
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    tokio::runtime::Handle::try_current().is_ok() && std::panic::catch_unwind(needed).is_ok()
}

/// The sockets of a node.
pub(crate) struct Sockets {
    pub(crate) udp: NodeSocket,
    /// For tethers, on the same port; without it others have none to this node.
    pub(super) tcp: Option<TcpListener>,
}

impl Sockets {
    /// Opens and binds; must be called on a tokio runtime. A port that the system is to choose is
    /// free for both, if tethers are wanted.
    pub(crate) fn bind(addr: SocketAddr, config: &Config) -> io::Result<Sockets> {
        let mut tries = if addr.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            let udp = NodeSocket::bind(addr, config.receive_buffer_bytes)?;
            let tcp = match config.tethers {
                0 => None,
                _ => listen(udp.local).ok(),
            };
            tries -= 1;
            if tcp.is_some() || config.tethers == 0 || tries == 0 {
                return Ok(Sockets { udp, tcp });
            }
        }
    }
}

/// A bound socket. One bound to an IPv6 wildcard serves IPv4 too.
#[derive(Debug)]
pub(crate) struct NodeSocket {
    io: UdpSocket,
    pub(crate) local: SocketAddr,
}

/// What came of a try to receive or send.
#[derive(Debug)]
pub(crate) enum Io<T> {
    Done(T),
    /// Nothing to receive, or no room to send: wait.
    NotReady,
    /// The error was one of a datagram sent earlier: go on.
    Bounced,
    /// An error of one datagram, or of the network, not of the socket: go on.
    Failed(io::Error),
}

impl NodeSocket {
    /// Opens and binds; must be called on a tokio runtime.
    pub(crate) fn bind(addr: SocketAddr, receive_buffer: usize) -> io::Result<NodeSocket> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(!addr.ip().is_unspecified())?;
        }
        socket.bind(&SockAddr::from(addr))?;
        bounced::enable(&socket);
        if let Err(error) = socket.set_recv_buffer_size(receive_buffer) {
            tracing::warn!(%error, receive_buffer, "cannot set the receive buffer");
        }
        // Linux doubles what is asked for, and caps it silently at `net.core.rmem_max`.
        let got = socket.recv_buffer_size()?;
        if got < receive_buffer {
            tracing::debug!(got, wanted = receive_buffer, "the receive buffer is smaller");
        }
        let io = UdpSocket::from_std(socket.into())?;
        let local = io.local_addr()?;
        Ok(NodeSocket { io, local })
    }

    /// One datagram, if there is one.
    pub(crate) fn try_receive(&self, buffer: &mut [u8]) -> Io<(usize, SocketAddr)> {
        match self.io.try_recv_from(buffer) {
            Ok((len, from)) => Io::Done((len, plain(from))),
            Err(error) if bounced::is_late(&error) => Io::Bounced,
            Err(error) => classify(error),
        }
    }

    /// Sends one datagram, if there is room.
    pub(crate) fn try_send(&self, datagram: &[u8], to: SocketAddr) -> Io<()> {
        let to = self.reachable(to);
        let mut tries = 1;
        loop {
            match self.io.try_send_to(datagram, to) {
                Ok(_) => return Io::Done(()),
                Err(error) if tries < SEND_TRIES && bounced::is_late(&error) => tries += 1,
                Err(error) => return classify(error),
            }
        }
    }

    /// The next datagram that came back, if there is one: the address at which nobody listens, or
    /// nothing when it came back for another reason.
    pub(crate) fn try_bounced(&self) -> Io<Option<SocketAddr>> {
        match self.io.try_io(Interest::ERROR, || bounced::next(&self.io)) {
            Ok(addr) => Io::Done(addr.map(plain)),
            Err(error) => classify(error),
        }
    }

    /// Waits until something has arrived or come back.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.io.ready(Interest::READABLE | Interest::ERROR).await.map(drop)
    }

    /// Waits until there may be room to send.
    pub(crate) async fn writable(&self) {
        let ready = self.io.ready(Interest::WRITABLE).await;
        // tokio takes the first error on a socket for its end, and calls it writable ever after.
        if ready.is_ok_and(Ready::is_write_closed) {
            tokio::time::sleep(SEND_PAUSE).await;
        }
    }

    /// Whether the socket can send to such an address at all.
    pub(crate) fn can_reach(&self, addr: SocketAddr) -> bool {
        reaches(self.local, addr)
    }

    /// An IPv4 address as an IPv6 socket has to write it.
    fn reachable(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if is_dual(self.local) => {
                let ip = v4.ip().to_ipv6_mapped();
                SocketAddr::V6(SocketAddrV6::new(ip, v4.port(), 0, 0))
            }
            other => other,
        }
    }
}

/// Whether a socket bound to `local` can send to `addr` at all.
pub(crate) fn reaches(local: SocketAddr, addr: SocketAddr) -> bool {
    addr.is_ipv4() == local.is_ipv4() || is_dual(local)
}

fn is_dual(local: SocketAddr) -> bool {
    local.is_ipv6() && local.ip().is_unspecified()
}

fn classify<T>(error: io::Error) -> Io<T> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Io::NotReady,
        _ => Io::Failed(error),
    }
}

/// An IPv4 address that an IPv6 socket wrote its way, as everybody else writes it.
pub(super) fn plain(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}

/// The address under which a socket that is bound to every address can be reached: the one that
/// the system would send from, towards a seed if there is one. Sends nothing.
pub(crate) fn advertised(local: SocketAddr, seed: Option<SocketAddr>) -> SocketAddr {
    if !local.ip().is_unspecified() {
        return local;
    }
    let towards = |target: SocketAddr| {
        let any = match target {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = std::net::UdpSocket::bind(any).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    let found = seed.and_then(towards).or_else(|| towards(ELSEWHERE));
    let ip = found.unwrap_or_else(|| {
        tracing::warn!("no route to anywhere: advertising loopback, set `advertise`");
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    });
    SocketAddr::new(ip, local.port())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(20);

    /// An address of loopback at which nobody listens.
    fn closed(ip: IpAddr) -> SocketAddr {
        std::net::UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap()
    }

    /// All addresses whose datagrams have come back, one at least.
    async fn bounces(socket: &NodeSocket) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        while found.is_empty() {
            tokio::time::timeout(WAIT, socket.readable()).await.expect("it is told").unwrap();
            while let Io::Done(addr) = socket.try_bounced() {
                found.extend(addr);
            }
        }
        found
    }

    fn is_sent(socket: &NodeSocket, to: SocketAddr) -> bool {
        matches!(socket.try_send(b"datagram", to), Io::Done(()))
    }

    #[tokio::test]
    async fn a_datagram_that_came_back_is_told_and_costs_no_other_one() {
        let families = [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "::1"),
        ];
        for (bind, ip) in families {
            let Ok(socket) = NodeSocket::bind(bind.parse().unwrap(), 1 << 20) else {
                assert!(bind.contains("::"), "a host without IPv4");
                continue;
            };
            let ip: IpAddr = ip.parse().unwrap();
            let (nobody, other) = (closed(ip), std::net::UdpSocket::bind((ip, 0)).unwrap());
            let somebody = other.local_addr().unwrap();
            other.set_read_timeout(Some(WAIT)).unwrap();
            socket.io.writable().await.unwrap();
            for _ in 0..10 {
                assert!(is_sent(&socket, nobody), "{bind} {ip}");
                assert!(is_sent(&socket, somebody), "{bind} {ip}");
            }
            for _ in 0..10 {
                other.recv_from(&mut [0; 32]).expect("all of them arrive");
            }
            assert!(bounces(&socket).await.iter().all(|addr| *addr == nobody), "{bind} {ip}");
        }
    }

    #[tokio::test]
    async fn an_error_that_has_been_read_wakes_nobody() {
        let socket = NodeSocket::bind("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
        socket.io.writable().await.unwrap();
        assert!(is_sent(&socket, closed(Ipv4Addr::LOCALHOST.into())));
        bounces(&socket).await;
        let idle = tokio::time::timeout(Duration::from_millis(200), async {
            loop {
                socket.readable().await.unwrap();
                // The call that is told of the error, and a last look at the queue.
                assert!(!matches!(socket.try_receive(&mut [0; 8]), Io::Done(_)));
                assert!(!matches!(socket.try_bounced(), Io::Done(Some(_))));
                tokio::task::yield_now().await;
            }
        });
        assert!(idle.await.is_err());
        assert!(matches!(socket.try_bounced(), Io::NotReady));
        let wake = tokio::time::timeout(Duration::from_millis(50), socket.readable());
        assert!(wake.await.is_err(), "nothing has happened since");
        // Nor does whoever waits for room spin.
        let before = std::time::Instant::now();
        for _ in 0..20 {
            socket.writable().await;
        }
        assert!(before.elapsed() >= 20 * SEND_PAUSE);
    }
}
