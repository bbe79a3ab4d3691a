//! Objects that are asked for: gaps in roles, unknown profiles, and whatever is too large for a
//! datagram and comes in parts.
//!
//! ```text
//!   want --Fetch--> peer --+-- Profile / Roles -------------------> settled
//!    ^                     |
//!    | no answer:          +-- Large --> FetchPart ... Part ... --> assembled --> settled
//!    | the same peer,
//!    +- then its owner
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::node::NodeId;
use crate::time::Instant;
use crate::wire::frame::{Object, Part};
use crate::wire::limits::MAX_OBJECT_BYTES;

use super::timer::Deadlines;

/// Objects wanted at one time; what is beyond it waits for the next pull.
pub(super) const MAX_WANTS: usize = 4096;

/// Objects that come in parts at one time.
pub(super) const MAX_ASSEMBLIES: usize = 16;

/// Parts that are asked for ahead of the first missing one.
const WINDOW_PARTS: u32 = 8;

/// Requests for one object without any answer before it is given up.
const MAX_TRIES: u32 = 6;

/// Where an object is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Source {
    pub(super) id: NodeId,
    pub(super) addr: SocketAddr,
}

/// A request to be sent.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// For the whole object.
    Whole { source: Source, object: Object },
    /// For a part of it.
    Part { source: Source, object: Object, version: u64, offset: u32 },
    /// This source does not answer: the caller may name another.
    Elsewhere { object: Object, silent: NodeId },
}

#[derive(Debug)]
struct Want {
    source: Source,
    /// The version that settles it.
    least: u64,
    tries: u32,
    assembly: Option<Assembly>,
}

/// Parts in order, and those that came early.
#[derive(Debug)]
struct Assembly {
    version: u64,
    total: u32,
    /// The length of the first part, which all but the last have.
    stride: u32,
    bytes: Vec<u8>,
    early: BTreeMap<u32, Bytes>,
    asked_up_to: u32,
}

/// All wants.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    wants: BTreeMap<Object, Want>,
    /// When each is asked for again.
    retries: Deadlines<Object>,
}

impl Fetches {
    /// Wants an object at `least` that version from `source`; says whether to ask at once.
    #[must_use]
    pub(super) fn want(
        &mut self,
        now: Instant,
        retry: Duration,
        (object, least): (Object, u64),
        source: Source,
    ) -> bool {
        if let Some(want) = self.wants.get_mut(&object) {
            want.least = want.least.max(least);
            return false;
        }
        if self.wants.len() >= MAX_WANTS {
            return false;
        }
        self.wants.insert(object, Want { source, least, tries: 1, assembly: None });
        self.retries.set(object, now + retry);
        true
    }

    /// Wants an object that should come by itself: it is asked for if it has not by then.
    pub(super) fn want_later(
        &mut self,
        ask_at: Instant,
        (object, least): (Object, u64),
        source: Source,
    ) {
        if let Some(want) = self.wants.get_mut(&object) {
            want.least = want.least.max(least);
        } else if self.wants.len() < MAX_WANTS {
            self.wants.insert(object, Want { source, least, tries: 0, assembly: None });
            self.retries.set(object, ask_at);
        }
    }

    /// An object came, or is known otherwise, at this version.
    pub(super) fn settle(&mut self, object: Object, version: u64) {
        if self.wants.get(&object).is_some_and(|want| want.least <= version) {
            self.remove(object);
        }
    }

    fn remove(&mut self, object: Object) {
        self.wants.remove(&object);
        self.retries.clear(object);
    }

    /// The object is of no interest any more.
    pub(super) fn cancel(&mut self, of_interest: impl Fn(Object) -> bool) {
        let objects: Vec<Object> = self.wants.keys().copied().collect();
        for object in objects.into_iter().filter(|object| !of_interest(*object)) {
            self.remove(object);
        }
    }

    /// The source says that the object comes in parts. Asks for the first.
    pub(super) fn handle_large(
        &mut self,
        now: Instant,
        retry: Duration,
        source: Source,
        (object, version): (Object, u64),
    ) -> Option<Request> {
        let assemblies = self.wants.values().filter(|want| want.assembly.is_some()).count();
        let want = self.wants.get_mut(&object)?;
        if want.assembly.is_some() || assemblies >= MAX_ASSEMBLIES || version < want.least {
            return None;
        }
        want.source = source;
        want.tries = 1;
        self.retries.set(object, now + retry);
        want.assembly = Some(Assembly {
            version,
            total: u32::MAX,
            stride: 0,
            bytes: Vec::new(),
            early: BTreeMap::new(),
            asked_up_to: 0,
        });
        Some(Request::Part { source, object, version, offset: 0 })
    }

    /// A part came: the parts to ask for next, and the whole when it is complete.
    pub(super) fn handle_part(
        &mut self,
        now: Instant,
        retry: Duration,
        from: NodeId,
        part: &Part,
    ) -> (Vec<Request>, Option<Vec<u8>>) {
        let nothing = (Vec::new(), None);
        let Some(want) = self.wants.get_mut(&part.object) else { return nothing };
        let source = want.source;
        let Some(assembly) = &mut want.assembly else { return nothing };
        if from != source.id || !assembly.take(part) {
            return nothing;
        }
        want.tries = 1;
        self.retries.set(part.object, now + retry);
        if assembly.is_complete() {
            let bytes = std::mem::take(&mut assembly.bytes);
            want.assembly = None;
            return (Vec::new(), Some(bytes));
        }
        let (object, version) = (part.object, assembly.version);
        let offsets = assembly.next_offsets();
        let requests =
            offsets.map(|offset| Request::Part { source, object, version, offset }).collect();
        (requests, None)
    }

    /// Requests whose answers are overdue, asked again or elsewhere.
    pub(super) fn handle_timeout(&mut self, now: Instant, retry: Duration) -> Vec<Request> {
        let mut requests = Vec::new();
        for object in self.retries.due(now) {
            let want = self.wants.get_mut(&object).expect("only what is wanted is asked for again");
            if want.tries >= MAX_TRIES {
                self.remove(object);
                continue;
            }
            want.tries += 1;
            // Each try waits longer, so that a slow network is not flooded.
            self.retries.set(object, now + retry * (1 << want.tries.min(MAX_TRIES)));
            let source = want.source;
            match &mut want.assembly {
                Some(assembly) if want.tries <= MAX_TRIES / 2 => {
                    let (version, offset) = (assembly.version, assembly.next_missing());
                    requests.push(Request::Part { source, object, version, offset });
                }
                Some(_) => {
                    want.assembly = None;
                    requests.push(Request::Elsewhere { object, silent: source.id });
                }
                None if want.tries == 1 || want.tries.is_multiple_of(2) => {
                    requests.push(Request::Whole { source, object });
                }
                None => requests.push(Request::Elsewhere { object, silent: source.id }),
            }
        }
        requests
    }

    /// Names another source for a want.
    pub(super) fn redirect(&mut self, object: Object, source: Source) {
        if let Some(want) = self.wants.get_mut(&object) {
            want.source = source;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retries.next()
    }

    #[cfg(feature = "sim")]
    pub(super) fn assemblies(&self) -> usize {
        self.wants.values().filter(|want| want.assembly.is_some()).count()
    }

    pub(super) fn len(&self) -> usize {
        self.wants.len()
    }
}

impl Assembly {
    /// Takes a part in; says whether it was of use.
    fn take(&mut self, part: &Part) -> bool {
        let len = u32::try_from(part.bytes.len()).unwrap_or(u32::MAX);
        let end = part.offset.saturating_add(len);
        let sane = part.version == self.version
            && len > 0
            && end <= part.total
            && part.total as usize <= MAX_OBJECT_BYTES;
        if !sane {
            return false;
        }
        if self.bytes.is_empty() && part.offset == 0 {
            self.total = part.total;
            self.stride = len;
            self.asked_up_to = len;
        }
        let next = self.next_missing();
        let window = self.stride.saturating_mul(WINDOW_PARTS);
        if part.total != self.total || part.offset < next || part.offset > next + window {
            return false;
        }
        self.early.insert(part.offset, part.bytes.clone());
        while let Some(bytes) = self.early.remove(&self.next_missing()) {
            self.bytes.extend_from_slice(&bytes);
        }
        true
    }

    fn next_missing(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("an object has at most MAX_OBJECT_BYTES")
    }

    fn is_complete(&self) -> bool {
        self.next_missing() == self.total
    }

    /// The offsets that the window now allows to ask for.
    fn next_offsets(&mut self) -> impl Iterator<Item = u32> + use<> {
        let first = self.asked_up_to;
        let end = self.next_missing().saturating_add(self.stride * WINDOW_PARTS).min(self.total);
        let stride = self.stride.max(1);
        let offsets = (first..end).step_by(stride as usize);
        if first < end {
            self.asked_up_to = first + (end - first).div_ceil(stride) * stride;
        }
        offsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_millis(100);

    fn id(n: u64) -> NodeId {
        NodeId::from_u64(n).unwrap()
    }

    fn source(n: u64) -> Source {
        Source { id: id(n), addr: "127.0.0.1:1".parse().unwrap() }
    }

    /// Answers part requests from `data`, losing those for which `lost` says so.
    fn transfer(data: &[u8], stride: usize, mut lost: impl FnMut(u32) -> bool) -> Vec<u8> {
        let object = Object::Profile(id(9));
        let mut fetches = Fetches::default();
        let mut now = Instant::ORIGIN;
        assert!(fetches.want(now, RETRY, (object, 3), source(1)));
        let first = fetches.handle_large(now, RETRY, source(1), (object, 3)).unwrap();
        let mut queue = vec![first];
        for _ in 0..10_000 {
            let Some(request) = queue.pop() else {
                now += RETRY * 8;
                queue = fetches.handle_timeout(now, RETRY);
                continue;
            };
            let Request::Part { offset, version, .. } = request else { panic!("{request:?}") };
            if lost(offset) {
                continue;
            }
            let end = data.len().min(offset as usize + stride);
            let bytes = Bytes::copy_from_slice(&data[offset as usize..end]);
            let total = u32::try_from(data.len()).unwrap();
            let part = Part { object, version, total, offset, bytes };
            let (more, done) = fetches.handle_part(now, RETRY, id(1), &part);
            queue.extend(more);
            if let Some(bytes) = done {
                return bytes;
            }
        }
        panic!("never complete");
    }

    #[test]
    fn parts_come_together_in_any_order_and_despite_loss() {
        let data: Vec<u8> = (0..9999u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        assert_eq!(transfer(&data, 100, |_| false), data);
        let mut tries = 0;
        let lossy = transfer(&data, 1300, |_| {
            tries += 1;
            tries % 3 == 0
        });
        assert_eq!(lossy, data);
        assert_eq!(transfer(&data[..1], 1300, |_| false), data[..1]);
    }

    #[test]
    fn a_want_without_answer_goes_elsewhere_and_ends() {
        let object = Object::Profile(id(9));
        let mut fetches = Fetches::default();
        let mut now = Instant::ORIGIN;
        assert!(fetches.want(now, RETRY, (object, 1), source(1)));
        assert!(!fetches.want(now, RETRY, (object, 2), source(2)));
        let mut elsewhere = 0;
        for _ in 0..20 {
            now += RETRY * 10;
            for request in fetches.handle_timeout(now, RETRY) {
                elsewhere += u32::from(request == Request::Elsewhere { object, silent: id(1) });
            }
        }
        assert_eq!(elsewhere, 2);
        assert_eq!(fetches.len(), 0);
    }

    #[test]
    fn hostile_parts_are_refused() {
        let object = Object::Profile(id(9));
        let mut fetches = Fetches::default();
        let now = Instant::ORIGIN;
        assert!(fetches.want(now, RETRY, (object, 1), source(1)));
        assert!(fetches.handle_large(now, RETRY, source(1), (object, 1)).is_some());
        let part = |offset, total, len: usize| Part {
            object,
            version: 1,
            total,
            offset,
            bytes: Bytes::from(vec![0; len]),
        };
        for bad in [part(0, 10, 11), part(0, u32::MAX, 5), part(0, 10, 0), part(u32::MAX, 10, 5)] {
            assert_eq!(fetches.handle_part(now, RETRY, id(1), &bad), (vec![], None));
        }
        let stranger = fetches.handle_part(now, RETRY, id(2), &part(0, 10, 10));
        assert_eq!(stranger, (vec![], None));
        let (_, done) = fetches.handle_part(now, RETRY, id(1), &part(0, 10, 10));
        assert_eq!(done, Some(vec![0; 10]));
    }
}
