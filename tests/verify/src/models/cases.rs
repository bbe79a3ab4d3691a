//! Small conversations of one writer with its readers, in which every step may come at any time.
//! Compiled once per model checker, beside the real `epoch_map.rs` over that checker's `sync`.

use super::epoch_map::{
    CellWriter, EpochCell, EpochGuard, EpochMap, HeapBytes, MapWriter, Reclaimer, epoch_cell,
    epoch_map,
};
use super::sync::{Arc, Canary, spawn, yield_now};

/// Keys of the smallest table that is full.
const FULL: u64 = 6;

/// Removed keys that bring about a purge.
const PURGED: u64 = 33;

/// Polls after which everything is freed once no reader is left.
const POLLS_UNTIL_FREED: usize = 8;

/// A value whose making and end the checker sees, so that it can tell whether both are ordered
/// with every read.
pub(super) struct Tracked {
    version: u64,
    canary: Canary,
}

impl Tracked {
    fn new(version: u64) -> Tracked {
        Tracked { version, canary: Canary::new() }
    }

    /// The version, after a look at whether the value is alive.
    fn read(&self) -> u64 {
        assert!(self.canary.is_alive(), "a freed value was read");
        self.version
    }
}

impl HeapBytes for Tracked {
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// Places neighbours in slots next to each other, so that lookups take few steps.
fn hash(key: u64) -> u64 {
    key << 48 | key
}

type Map = EpochMap<u64, Tracked>;

fn get<'g>(map: &'g Map, guard: &'g EpochGuard, key: u64) -> Option<&'g Tracked> {
    map.get(guard, hash(key), |known| *known == key)
}

/// The writer's side of the map under test.
struct Writer {
    map: MapWriter<u64, Tracked>,
    reclaimer: Reclaimer,
}

impl Writer {
    /// A map with these keys, all of version 1, and nothing to be freed.
    fn with_keys(keys: u64) -> (Writer, Arc<Map>) {
        let reclaimer = Reclaimer::default();
        let (writer, map) = epoch_map(reclaimer.graveyard());
        let mut writer = Writer { map: writer, reclaimer };
        (0..keys).for_each(|key| writer.insert(key, 1));
        writer.free_replaced();
        (writer, Arc::new(map))
    }

    fn insert(&mut self, key: u64, version: u64) {
        self.map.insert(&mut self.reclaimer, hash(key), key, Tracked::new(version));
    }

    /// Frees all, as no reader has started yet.
    fn free_replaced(&mut self) {
        while self.reclaimer.poll() > 0 {}
        assert_eq!(self.reclaimer.pending_count(), 0);
    }

    fn remove(&mut self, key: u64) {
        assert!(self.map.remove(&mut self.reclaimer, hash(key), &key));
    }
}

fn cell() -> (Reclaimer, CellWriter<Tracked>, Arc<EpochCell<Tracked>>) {
    let reclaimer = Reclaimer::default();
    let (writer, cell) = epoch_cell(reclaimer.graveyard(), Tracked::new(1));
    (reclaimer, writer, Arc::new(cell))
}

/// Runs the writer beside some readers of the same thing until all have ended.
fn beside<T: Send + Sync + 'static>(
    readers: usize,
    shared: &Arc<T>,
    read: fn(&T),
    write: impl FnOnce(),
) {
    let start = || {
        let shared = Arc::clone(shared);
        spawn(move || read(&shared))
    };
    let threads: Vec<_> = std::iter::repeat_with(start).take(readers).collect();
    write();
    threads.into_iter().for_each(|thread| thread.join().expect("no reader fails"));
}

/// Frees all once the readers have been joined; they may still be at signing off.
fn free_all(reclaimer: &mut Reclaimer) {
    for _ in 0..POLLS_UNTIL_FREED {
        reclaimer.poll();
        yield_now();
    }
    assert_eq!(reclaimer.pending_count(), 0, "without readers all is freed");
}

/// A cell is replaced: readers see whole values that never go back, and keep what they hold.
pub(crate) fn publish(readers: usize) {
    let (mut reclaimer, mut writer, cell) = cell();
    let read = |cell: &EpochCell<Tracked>| {
        let guard = EpochGuard::enter();
        let held = cell.load(&guard);
        let version = held.read();
        assert!(cell.load(&guard).read() >= version, "a cell went back");
    };
    beside(readers, &cell, read, || writer.store(&mut reclaimer, Tracked::new(2)));
}

/// A key gets a new value in its slot.
pub(crate) fn update(readers: usize) {
    let (mut writer, map) = Writer::with_keys(1);
    let read = |map: &Map| {
        let guard = EpochGuard::enter();
        let held = get(map, &guard, 0).expect("it is always there").read();
        let next = get(map, &guard, 0).expect("it is always there").read();
        assert!(next >= held, "a key went back");
    };
    beside(readers, &map, read, || writer.insert(0, 2));
}

/// A key is removed: it does not come back, and no reader finds it in the end.
pub(crate) fn remove(readers: usize) {
    let (mut writer, map) = Writer::with_keys(1);
    let read = |map: &Map| {
        let guard = EpochGuard::enter();
        let held = get(map, &guard, 0);
        let again = get(map, &guard, 0);
        assert!(held.is_some() || again.is_none(), "a removed key came back");
        assert!(held.is_none_or(|held| held.read() == 1));
    };
    beside(readers, &map, read, || writer.remove(0));
    assert!(get(&map, &EpochGuard::enter(), 0).is_none(), "a removal was lost");
}

/// A full table grows: all keys are found meanwhile, and the new one stays.
pub(crate) fn grow(readers: usize) {
    let (mut writer, map) = Writer::with_keys(FULL);
    let read = |map: &Map| {
        let guard = EpochGuard::enter();
        let new = get(map, &guard, FULL).map(Tracked::read);
        assert_eq!(get(map, &guard, 0).expect("it is always there").read(), 1);
        assert!(new.is_none() || get(map, &guard, FULL).is_some(), "a new key was lost");
    };
    beside(readers, &map, read, || writer.insert(FULL, 1));
}

/// The removal of one more key purges the table of them: the others are found meanwhile.
pub(crate) fn purge(readers: usize) {
    let (mut writer, map) = Writer::with_keys(1 + PURGED);
    (1..PURGED).for_each(|key| writer.remove(key));
    writer.free_replaced();
    let read = |map: &Map| {
        let guard = EpochGuard::enter();
        let held = get(map, &guard, PURGED);
        assert_eq!(get(map, &guard, 0).expect("it is always there").read(), 1);
        assert!(held.is_none_or(|held| held.read() == 1));
    };
    beside(readers, &map, read, || writer.remove(PURGED));
}

/// What was replaced is freed while readers come and go, and not while one holds it.
pub(crate) fn ticket(readers: usize) {
    let (mut reclaimer, mut writer, cell) = cell();
    let read = |cell: &EpochCell<Tracked>| {
        let guard = EpochGuard::enter();
        let held = cell.load(&guard);
        held.read();
        held.read();
    };
    beside(readers, &cell, read, || {
        writer.store(&mut reclaimer, Tracked::new(2));
        reclaimer.poll();
    });
    free_all(&mut reclaimer);
}

/// The same for a value of a map.
pub(crate) fn ticket_of_a_key(readers: usize) {
    let (mut writer, map) = Writer::with_keys(1);
    let read = |map: &Map| {
        let guard = EpochGuard::enter();
        let held = get(map, &guard, 0).expect("it is always there");
        held.read();
        held.read();
    };
    beside(readers, &map, read, || {
        writer.insert(0, 2);
        writer.reclaimer.poll();
    });
    free_all(&mut writer.reclaimer);
}

/// A reader that stays inside lets go when it refreshes, and of nothing before.
pub(crate) fn refresh(readers: usize) {
    let (mut reclaimer, mut writer, cell) = cell();
    let read = |cell: &EpochCell<Tracked>| {
        let mut guard = EpochGuard::enter();
        let version = cell.load(&guard).read();
        guard.refresh();
        assert!(cell.load(&guard).read() >= version, "a cell went back");
    };
    beside(readers, &cell, read, || {
        writer.store(&mut reclaimer, Tracked::new(2));
        reclaimer.poll();
    });
    free_all(&mut reclaimer);
}

/// A writer is dropped with something to be freed: its readers keep what they hold.
pub(crate) fn outlive(readers: usize) {
    let (mut reclaimer, mut writer, cell) = cell();
    let read = |cell: &EpochCell<Tracked>| {
        let guard = EpochGuard::enter();
        let held = cell.load(&guard);
        held.read();
        held.read();
    };
    beside(readers, &cell, read, || {
        writer.store(&mut reclaimer, Tracked::new(2));
        drop((writer, reclaimer));
    });
}
