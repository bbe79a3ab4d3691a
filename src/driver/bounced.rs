//! Datagrams that came back (Linux): the error queue of the UDP socket says to which address one
//! could not be delivered. Elsewhere nothing is known of them.

#[cfg(target_os = "linux")]
pub(super) use linux::{enable, is_late, next};

#[cfg(not(target_os = "linux"))]
pub(super) use nothing::{enable, is_late, next};

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, IoSliceMut};
    use std::net::SocketAddr;
    use std::os::fd::AsRawFd;

    use nix::errno::Errno;
    use nix::libc::{SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, sock_extended_err, sockaddr_in6};
    use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
    use tokio::net::UdpSocket;

    /// Asks for the queue, for both families where the socket serves both.
    pub(crate) fn enable(socket: &socket2::Socket) {
        // A socket of the other family refuses, and where both do there are no hints.
        let _ = setsockopt(socket, Ipv4RecvErr, &true);
        let _ = setsockopt(socket, Ipv6RecvErr, &true);
    }

    /// Whether a call may have failed because of a datagram sent before: what the kernel makes of
    /// ICMP messages (`icmp_err_convert`, `icmpv6_err_convert`). Such an error is told once.
    pub(crate) fn is_late(error: &io::Error) -> bool {
        let Some(errno) = error.raw_os_error().map(Errno::from_raw) else { return false };
        matches!(
            errno,
            Errno::ECONNREFUSED
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::EHOSTDOWN
                | Errno::ENONET
                | Errno::ENOPROTOOPT
                | Errno::EOPNOTSUPP
                | Errno::EPROTO
                | Errno::EMSGSIZE
                | Errno::EACCES
        )
    }

    /// Takes the next error from the queue: the address whose port is closed, or nothing when it
    /// is another error.
    pub(crate) fn next(socket: &UdpSocket) -> io::Result<Option<SocketAddr>> {
        let mut control = nix::cmsg_space!(sock_extended_err, sockaddr_in6);
        // What the datagram held is of no interest, and is cut off.
        let mut payload = [0; 1];
        let mut payload = [IoSliceMut::new(&mut payload)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut payload,
            Some(&mut control),
            flags,
        )?;
        let refused = message.cmsgs()?.any(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _) => is_refusal(&error),
            _ => false,
        });
        Ok(message.address.filter(|_| refused).and_then(|addr| plain(&addr)))
    }

    /// Only a host that is there says that a port of it is closed. That a host or a network is out
    /// of reach says nothing about a process.
    fn is_refusal(error: &sock_extended_err) -> bool {
        let by_icmp = [SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6].contains(&error.ee_origin);
        by_icmp && i32::try_from(error.ee_errno) == Ok(Errno::ECONNREFUSED as i32)
    }

    fn plain(addr: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::from(*addr));
        v4.or_else(|| addr.as_sockaddr_in6().map(|addr| SocketAddr::from(*addr)))
    }
}

#[cfg(not(target_os = "linux"))]
mod nothing {
    use std::io;
    use std::net::SocketAddr;

    use tokio::net::UdpSocket;

    pub(crate) fn enable(_: &socket2::Socket) {}

    pub(crate) fn is_late(_: &io::Error) -> bool {
        false
    }

    pub(crate) fn next(_: &UdpSocket) -> io::Result<Option<SocketAddr>> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}
