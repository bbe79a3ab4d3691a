//! Who takes part: each a table from names of roles to nodes, read in its cheapest idiomatic way.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex, RwLock};

use arc_swap::{ArcSwap, Cache};
use clap::ValueEnum;
use crossbeam_skiplist::SkipMap;
use dashmap::DashMap;
use left_right::{Absorb, ReadHandleFactory, WriteHandle};
use rolecall::Node;

use super::data::{Change, Data, Map};
use super::ours::{Key, Ours, Way};
use super::watched::Watched;

/// Looks the roles of these numbers up and returns how many nodes they have in all.
pub(super) type Reader<'t> = Box<dyn FnMut(&[usize]) -> usize + 't>;
/// Makes these changes visible: each by itself, or all at once where that is cheaper.
pub(super) type Writer<'t> = Box<dyn FnMut(&[Change]) + 't>;

/// A table that threads share.
pub(super) trait Table: Sync {
    /// What one thread reads with; made on that thread.
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t>;
    /// What the one writer writes with; `None` if it cannot be written while it is read.
    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub(super) enum Contender {
    Hashmap,
    HashmapClone,
    RwlockStd,
    RwlockParkingLot,
    Dashmap,
    Papaya,
    PapayaPinned,
    Flurry,
    SccHashmap,
    SccHashindex,
    LeftRight,
    ArcSwap,
    ArcSwapCache,
    Skipmap,
    NodesStr,
    NodesRole,
    WithNodesStr,
    WithNodesRole,
    ViewStr,
    ViewRole,
    Watch,
}

impl Contender {
    /// The map that nothing protects: what all others are compared with.
    pub(super) const FLOOR: Contender = Contender::Hashmap;

    pub(super) fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    pub(super) fn build(self, data: &Data) -> Box<dyn Table> {
        match self {
            Contender::Hashmap => Box::new(Plain { map: data.entries().collect(), clones: false }),
            Contender::HashmapClone => {
                Box::new(Plain { map: data.entries().collect(), clones: true })
            }
            Contender::RwlockStd => Box::new(RwLock::<Map>::new(data.entries().collect())),
            Contender::RwlockParkingLot => {
                Box::new(parking_lot::RwLock::<Map>::new(data.entries().collect()))
            }
            Contender::Dashmap => Box::new(data.entries().collect::<DashMap<_, _>>()),
            Contender::Papaya => Box::new(Papaya { map: data.entries().collect(), pinned: false }),
            Contender::PapayaPinned => {
                Box::new(Papaya { map: data.entries().collect(), pinned: true })
            }
            Contender::Flurry => Box::new(data.entries().collect::<flurry::HashMap<_, _>>()),
            Contender::SccHashmap => Box::new(data.entries().collect::<scc::HashMap<_, _>>()),
            Contender::SccHashindex => Box::new(data.entries().collect::<scc::HashIndex<_, _>>()),
            Contender::LeftRight => Box::new(LeftRight::new(data)),
            Contender::ArcSwap => Box::new(Swapped::new(data, false)),
            Contender::ArcSwapCache => Box::new(Swapped::new(data, true)),
            Contender::Skipmap => Box::new(data.entries().collect::<SkipMap<_, _>>()),
            Contender::NodesStr => Box::new(Ours::new(data, Way::Owned, Key::Str)),
            Contender::NodesRole => Box::new(Ours::new(data, Way::Owned, Key::Role)),
            Contender::WithNodesStr => Box::new(Ours::new(data, Way::Borrowed, Key::Str)),
            Contender::WithNodesRole => Box::new(Ours::new(data, Way::Borrowed, Key::Role)),
            Contender::ViewStr => Box::new(Ours::new(data, Way::View, Key::Str)),
            Contender::ViewRole => Box::new(Ours::new(data, Way::View, Key::Role)),
            Contender::Watch => Box::new(Watched::new(data)),
        }
    }

    /// What its table is called where reading does not matter; `None` if that one is measured with
    /// another way to read it.
    pub(super) fn table_name(self) -> Option<String> {
        match self {
            Contender::Hashmap
            | Contender::HashmapClone
            | Contender::PapayaPinned
            | Contender::ArcSwapCache
            | Contender::Watch
            | Contender::NodesStr
            | Contender::NodesRole
            | Contender::WithNodesRole
            | Contender::ViewStr
            | Contender::ViewRole => None,
            Contender::WithNodesStr => Some("rolecall".to_owned()),
            other => Some(other.name()),
        }
    }
}

/// The sum of what each lookup finds; no lookup can be left out or known before.
pub(super) fn sum(order: &[usize], mut look_up: impl FnMut(usize) -> usize) -> usize {
    order.iter().map(|&role| look_up(black_box(role))).sum()
}

/// What every reader does with what it found.
pub(super) fn len(nodes: &[Node]) -> usize {
    black_box(nodes).len()
}

/// Not synchronised, so nobody can write it while it is read: no table of a service.
struct Plain {
    map: Map,
    clones: bool,
}

impl Table for Plain {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        if self.clones {
            let clone = |role| Arc::clone(&self.map[data.name(role)]);
            Box::new(move |order| sum(order, |role| len(&clone(role))))
        } else {
            Box::new(|order| sum(order, |role| len(&self.map[data.name(role)])))
        }
    }

    fn writer<'t>(&'t self, _data: &'t Data) -> Option<Writer<'t>> {
        None
    }
}

impl Table for RwLock<Map> {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        let read = || self.read().expect("no writer panics");
        Box::new(move |order| sum(order, |role| len(&read()[data.name(role)])))
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(each(data, |name, nodes| {
            self.write().expect("no writer panics").insert(name, nodes);
        }))
    }
}

impl Table for parking_lot::RwLock<Map> {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        Box::new(|order| sum(order, |role| len(&self.read()[data.name(role)])))
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(each(data, |name, nodes| {
            self.write().insert(name, nodes);
        }))
    }
}

impl Table for DashMap<Arc<str>, Arc<[Node]>> {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        let get = |role| self.get(data.name(role)).expect("it is there");
        Box::new(move |order| sum(order, |role| len(&get(role))))
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(each(data, |name, nodes| {
            self.insert(name, nodes);
        }))
    }
}

struct Papaya {
    map: papaya::HashMap<Arc<str>, Arc<[Node]>>,
    /// Whether a batch has one guard, as a `View` is one, or each lookup its own.
    pinned: bool,
}

impl Table for Papaya {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        if self.pinned {
            return Box::new(|order| {
                let map = self.map.pin();
                sum(order, |role| len(map.get(data.name(role)).expect("it is there")))
            });
        }
        Box::new(|order| {
            sum(order, |role| len(self.map.pin().get(data.name(role)).expect("it is there")))
        })
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(each(data, |name, nodes| {
            self.map.pin().insert(name, nodes);
        }))
    }
}

impl Table for flurry::HashMap<Arc<str>, Arc<[Node]>> {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        Box::new(|order| {
            sum(order, |role| len(self.pin().get(data.name(role)).expect("it is there")))
        })
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(each(data, |name, nodes| {
            self.pin().insert(name, nodes);
        }))
    }
}

impl Table for scc::HashMap<Arc<str>, Arc<[Node]>> {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        let read = |role| self.read_sync(data.name(role), |_, nodes| len(nodes));
        Box::new(move |order| sum(order, |role| read(role).expect("it is there")))
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(each(data, |name, nodes| {
            self.upsert_sync(name, nodes);
        }))
    }
}

impl Table for scc::HashIndex<Arc<str>, Arc<[Node]>> {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        let peek = |role| self.peek_with(data.name(role), |_, nodes| len(nodes));
        // A reader that comes while an entry is being updated may find neither the old nor the new.
        Box::new(move |order| sum(order, |role| peek(role).unwrap_or_default()))
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(each(data, |name, nodes| match self.entry_sync(name) {
            scc::hash_index::Entry::Occupied(mut entry) => entry.update(nodes),
            scc::hash_index::Entry::Vacant(entry) => {
                entry.insert_entry(nodes);
            }
        }))
    }
}

impl Table for SkipMap<Arc<str>, Arc<[Node]>> {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        let get = |role| self.get(data.name(role));
        // As above: an insertion takes the old entry away first.
        Box::new(move |order| sum(order, |role| get(role).map_or(0, |entry| len(entry.value()))))
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(each(data, |name, nodes| {
            self.insert(name, nodes);
        }))
    }
}

/// A writer to which one change is like many.
fn each<'t>(data: &'t Data, insert: impl Fn(Arc<str>, Arc<[Node]>) + 't) -> Writer<'t> {
    Box::new(move |changes| {
        for &change in changes {
            insert(data.key(change.role), data.set_after(change));
        }
    })
}

struct LeftRight {
    readers: ReadHandleFactory<Map>,
    writer: Mutex<WriteHandle<Map, Insert>>,
}

#[derive(Clone)]
struct Insert(Arc<str>, Arc<[Node]>);

impl Absorb<Insert> for Map {
    fn absorb_first(&mut self, operation: &mut Insert, _other: &Map) {
        self.insert(operation.0.clone(), operation.1.clone());
    }

    fn absorb_second(&mut self, operation: Insert, _other: &Map) {
        self.insert(operation.0, operation.1);
    }

    fn sync_with(&mut self, first: &Map) {
        self.clone_from(first);
    }
}

impl LeftRight {
    fn new(data: &Data) -> LeftRight {
        let (mut writer, reader) = left_right::new::<Map, Insert>();
        writer.extend(data.entries().map(|(name, nodes)| Insert(name, nodes)));
        writer.publish();
        LeftRight { readers: reader.factory(), writer: Mutex::new(writer) }
    }
}

impl Table for LeftRight {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        let map = self.readers.handle();
        let look_up = move |role| {
            let map = map.enter().expect("the writer lives");
            len(&map[data.name(role)])
        };
        Box::new(move |order| sum(order, &look_up))
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        let mut writer = self.writer.lock().expect("no writer panics");
        Some(Box::new(move |changes| {
            let insert = |&change: &Change| Insert(data.key(change.role), data.set_after(change));
            writer.extend(changes.iter().map(insert));
            writer.publish();
        }))
    }
}

/// A whole map that is replaced by a changed copy.
struct Swapped {
    map: Arc<ArcSwap<Map>>,
    cached: bool,
}

impl Swapped {
    fn new(data: &Data, cached: bool) -> Swapped {
        let map = Arc::new(ArcSwap::from_pointee(data.entries().collect::<HashMap<_, _>>()));
        Swapped { map, cached }
    }
}

impl Table for Swapped {
    fn reader<'t>(&'t self, data: &'t Data) -> Reader<'t> {
        if self.cached {
            let mut cache = Cache::new(Arc::clone(&self.map));
            return Box::new(move |order| sum(order, |role| len(&cache.load()[data.name(role)])));
        }
        Box::new(|order| sum(order, |role| len(&self.map.load()[data.name(role)])))
    }

    fn writer<'t>(&'t self, data: &'t Data) -> Option<Writer<'t>> {
        Some(Box::new(|changes| {
            let mut map = Map::clone(&self.map.load());
            for &change in changes {
                map.insert(data.key(change.role), data.set_after(change));
            }
            self.map.store(Arc::new(map));
        }))
    }
}
