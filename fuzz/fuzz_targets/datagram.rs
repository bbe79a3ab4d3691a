//! Bytes as a datagram: `cargo +nightly fuzz run datagram`.
#![no_main]

#[path = "../../tests/support/datagram_laws.rs"]
mod datagram_laws;
#[path = "../../tests/support/frames.rs"]
mod frames;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use rolecall::wire::{ClusterId, HEADER_BYTES, Header, begin};

fuzz_target!(|bytes: &[u8]| {
    let cluster = ClusterId::of("fuzz");
    let mut decoded = Vec::new();
    datagram_laws::check_bytes(bytes, cluster, &mut decoded);

    // The same behind a valid header, so that the decoder of frames sees every mutation.
    let id = frames::id(7);
    let header = Header { cluster, from: id, to: None };
    let mut datagram = Vec::new();
    begin(header, &mut datagram);
    datagram.extend_from_slice(bytes);
    datagram_laws::check_bytes(&datagram, cluster, &mut decoded);

    // And as the choices of a generator, so that every kind of frame is met early.
    datagram.truncate(HEADER_BYTES);
    let mut u = Unstructured::new(bytes);
    let pools = frames::Pools::new(&[]);
    let mut made = Vec::new();
    while !u.is_empty() && made.len() < 64 {
        made.push(pools.frame(&mut u));
        made[made.len() - 1].encode(&mut datagram);
    }
    datagram_laws::check_bytes(&datagram, cluster, &mut decoded);
    if datagram.len() <= rolecall::wire::limits::MAX_DATAGRAM_BYTES {
        assert_eq!(decoded, made, "a frame is decoded to itself");
    }
});
