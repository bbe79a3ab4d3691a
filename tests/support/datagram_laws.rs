//! What must hold of any bytes that claim to be a datagram: decoding never panics, takes memory in
//! proportion to what came, and whatever was decoded is encoded to the same value again.

#![allow(unreachable_pub, reason = "included by a test and by a fuzz target")]

use rolecall::NodeId;
use rolecall::wire::frame::Object;
use rolecall::wire::{
    ClusterId, Frame, HEADER_BYTES, Header, begin, decode_frames, decode_header, finish,
};

/// Bytes of memory that decoded frames may take for each byte of their datagram: the largest
/// frame in memory beside the smallest on the wire (two bytes), doubled by a growing `Vec`.
pub const MEMORY_PER_BYTE: usize = size_of::<Frame>();

/// Decodes bytes as a datagram of this cluster, and as the body of an object; checks what comes of
/// it.
pub fn check_bytes(bytes: &[u8], cluster: ClusterId, frames: &mut Vec<Frame>) {
    for object in [1, u64::MAX].into_iter().filter_map(NodeId::from_u64) {
        if let Some(frame) = Frame::from_object(Object::Profile(object), bytes) {
            assert_eq!(Frame::from_object(Object::Profile(object), &frame.to_body()), Some(frame));
        }
    }
    let mut bytes = bytes.to_vec();
    if bytes.len() >= HEADER_BYTES {
        // A wrong checksum would hide everything else.
        finish(&mut bytes, cluster);
    }
    let bytes = &bytes[..];
    let Ok(received) = decode_header(bytes, cluster) else { return };
    let unsummed = HEADER_BYTES - 4;
    let low_half = bytes[unsummed - 4..unsummed].try_into().expect("four bytes");
    let to = NodeId::from_u64(u32::from_le_bytes(low_half).into());
    assert_eq!(received.is_addressed(), to.is_some());
    assert!(to.is_none_or(|to| received.is_for(to)), "it is for who has the low half of its id");
    let header = Header { cluster, from: received.from, to };
    let mut again = Vec::new();
    begin(header, &mut again);
    assert_eq!(again[..unsummed], bytes[..unsummed], "a header has one encoding");
    *frames = Vec::new();
    if decode_frames(bytes, frames).is_err() {
        assert!(frames.is_empty(), "nothing of a malformed datagram counts");
        return;
    }
    let memory = frames.capacity() * size_of::<Frame>();
    assert!(memory <= MEMORY_PER_BYTE * bytes.len().max(8), "{memory} for {}", bytes.len());
    for frame in frames.iter() {
        frame.encode(&mut again);
    }
    let mut same = Vec::new();
    // What was written with needlessly long numbers is shorter now, and never longer.
    assert!(again.len() <= bytes.len(), "an encoding is the shortest");
    decode_frames(&again, &mut same).expect("what was decoded is encoded well");
    assert_eq!(&same, frames);
}
