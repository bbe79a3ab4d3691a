//! What is said on a tether, by either end.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tracing::Level;

use super::super::log::log;
use crate::node::NodeId;
use crate::wire::{ClusterId, HEADER_BYTES, Header, begin, decode_header, finish};

/// The answer to a hello: from now on it is a tether.
pub(super) const WELCOME: u8 = b'w';

/// Said by whoever closes a tether without dying.
pub(super) const FAREWELL: u8 = b'f';

/// A byte that finds no room by then is not said. There is room for the few that a tether sees.
const SAY_TIMEOUT: Duration = Duration::from_secs(1);

/// A node, as it introduces itself and as it is addressed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterId,
    pub(crate) local: NodeId,
}

impl Identity {
    /// What this node says first to another.
    pub(super) fn hello(&self, to: NodeId) -> Vec<u8> {
        let Identity { cluster, local: from } = *self;
        let mut hello = Vec::with_capacity(HEADER_BYTES);
        begin(Header { cluster, from, to: Some(to) }, &mut hello);
        finish(&mut hello, cluster);
        hello
    }

    /// The run that says this, if it belongs to this cluster and means this run.
    pub(super) fn sender(&self, hello: &[u8; HEADER_BYTES]) -> Option<NodeId> {
        let header = decode_header(hello, self.cluster).ok()?;
        let meant = header.is_addressed() && header.is_for(self.local);
        (meant && header.from != self.local).then_some(header.from)
    }
}

/// How a tether ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// This node closed it.
    Ours,
    /// The other end said farewell, or something else that it must not.
    Told,
    /// The other end is gone without a word.
    Died,
}

/// Waits for the end of a tether. `close` asks for a farewell; dropped, it asks for none.
pub(super) async fn hold(stream: &TcpStream, close: &mut oneshot::Receiver<()>) -> End {
    tokio::select! {
        asked = close => {
            bid_farewell(stream, asked.is_ok()).await;
            End::Ours
        }
        heard = hear(stream) => match heard {
            Some(FAREWELL) => End::Told,
            Some(byte) => {
                log(Level::DEBUG, move || tracing::debug!(byte, "a tether speaks: it is closed"));
                End::Told
            }
            None => End::Died,
        }
    }
}

/// Says farewell if it is wanted.
pub(super) async fn bid_farewell(stream: &TcpStream, wanted: bool) {
    if wanted {
        // The other end may be gone by now, and then needs none.
        let _ = say(stream, &[FAREWELL]).await;
    }
}

/// The next byte; nothing when there will be none.
pub(super) async fn hear(stream: &TcpStream) -> Option<u8> {
    let mut byte = [0];
    fill(stream, &mut byte).await.ok()?;
    Some(byte[0])
}

/// Reads as much as the buffer holds.
pub(super) async fn fill(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.readable().await?;
        match stream.try_read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of it, within a moment.
pub(super) async fn say(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let said = tokio::time::timeout(SAY_TIMEOUT, async {
        while !bytes.is_empty() {
            stream.writable().await?;
            match stream.try_write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    said.await?
}
