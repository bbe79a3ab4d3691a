//! The UDP socket: options, both address families, and the errors that do not matter.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;

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
    /// Nothing to receive, or no room to send: wait for readiness.
    NotReady,
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
            Err(error) => classify(error),
        }
    }

    /// Sends one datagram, if there is room.
    pub(crate) fn try_send(&self, datagram: &[u8], to: SocketAddr) -> Io<()> {
        match self.io.try_send_to(datagram, self.reachable(to)) {
            Ok(_) => Io::Done(()),
            Err(error) => classify(error),
        }
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
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
fn plain(from: SocketAddr) -> SocketAddr {
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
