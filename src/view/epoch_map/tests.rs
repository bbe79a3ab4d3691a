//! Tests of the map and of its reclamation, among them the one that hammers it from many threads.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Barrier, mpsc};
use std::thread;

use super::*;

thread_local! {
    static IS_READER: Cell<bool> = const { Cell::new(false) };
}

/// How many tracked values there were, and how many are gone.
#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

impl Counts {
    fn alive(&self) -> usize {
        self.made.load(Ordering::SeqCst) - self.dropped.load(Ordering::SeqCst)
    }
}

const CANARY: u64 = 0x5eed_cafe_f00d_d00d;

/// A value that knows when it is torn, freed twice, or freed by a reader.
struct Tracked {
    key: u64,
    version: u64,
    check: u64,
    counts: Arc<Counts>,
}

impl Tracked {
    fn new(key: u64, version: u64, counts: &Arc<Counts>) -> Tracked {
        counts.made.fetch_add(1, Ordering::SeqCst);
        let check = CANARY ^ key.rotate_left(32) ^ version;
        Tracked { key, version, check, counts: Arc::clone(counts) }
    }

    fn assert_sound(&self) {
        assert_eq!(self.check, CANARY ^ self.key.rotate_left(32) ^ self.version);
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.assert_sound();
        self.check = 0;
        assert!(!IS_READER.get(), "a reader ran a destructor");
        self.counts.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl HeapBytes for Tracked {
    fn heap_bytes(&self) -> usize {
        1_000
    }
}

impl HeapBytes for u64 {
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// A small generator of our own (splitmix64), also as a hash function.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Polls until all is freed. Other tests in this process may be inside for a moment.
fn drain(reclaimer: &mut Reclaimer) {
    for _ in 0..1_000_000 {
        if reclaimer.pending_count() == 0 {
            assert_eq!(reclaimer.pending_bytes(), 0);
            return;
        }
        reclaimer.poll();
        thread::yield_now();
    }
    panic!("{} retired things are still held", reclaimer.pending_count());
}

/// The same random operations on the map and on std's, with this hash of a key.
fn compare_with_std(keys: u64, steps: u64, hash: fn(u64) -> u64) {
    let mut reclaimer = Reclaimer::default();
    let (mut writer, map) = epoch_map::<u64, u64>(reclaimer.graveyard());
    let mut model = BTreeMap::new();
    for step in 0..steps {
        let random = mix(step);
        let key = random % keys;
        if random >> 63 == 0 {
            writer.insert(&mut reclaimer, hash(key), key, step);
            model.insert(key, step);
        } else {
            let removed = writer.remove(&mut reclaimer, hash(key), &key);
            assert_eq!(removed, model.remove(&key).is_some());
        }
        assert_eq!(writer.len(), model.len());
        if step % 16 == 0 {
            let guard = EpochGuard::enter();
            for key in 0..keys {
                let found = map.get(&guard, hash(key), |known| *known == key);
                assert_eq!(found, model.get(&key), "key {key} after step {step}");
                assert_eq!(writer.get(hash(key), &key), found);
            }
        }
        reclaimer.poll();
    }
}

#[test]
fn does_what_a_std_map_does() {
    compare_with_std(10, 2_000, mix);
    compare_with_std(300, 4_000, mix);
}

#[test]
fn keys_whose_hashes_collide_are_told_apart() {
    compare_with_std(40, 2_000, |_| 7);
    compare_with_std(200, 2_000, |key| mix(key % 8));
    compare_with_std(60, 2_000, |key| key << 56); // tags differ, places do not
}

#[test]
fn a_table_grows_shrinks_and_forgets_removed_keys() {
    let mut reclaimer = Reclaimer::default();
    let (mut writer, map) = epoch_map::<u64, u64>(reclaimer.graveyard());
    for key in 0..10_000 {
        writer.insert(&mut reclaimer, mix(key), key, key);
    }
    let slots = SLOTS_PER_LINE * writer.table.get().lines.len();
    assert!((13_334..=40_000).contains(&slots), "{slots} slots");
    for key in 5..10_000 {
        assert!(writer.remove(&mut reclaimer, mix(key), &key));
    }
    assert_eq!(writer.len(), 5);
    assert!(writer.used <= 5 + REMOVED_KEPT);
    assert!(writer.table.get().lines.len() <= 16);
    let guard = EpochGuard::enter();
    for key in 0..10_000 {
        let found = map.get(&guard, mix(key), |known| *known == key);
        assert_eq!(found.copied(), (key < 5).then_some(key));
    }
}

#[test]
fn removing_and_adding_the_same_keys_does_not_grow_the_table() {
    let mut reclaimer = Reclaimer::default();
    let (mut writer, _map) = epoch_map::<u64, u64>(reclaimer.graveyard());
    for round in 0..100_000 {
        // Always a new key, and never more than one at a time.
        writer.insert(&mut reclaimer, mix(round), round, round);
        assert!(writer.remove(&mut reclaimer, mix(round), &round));
        reclaimer.poll();
    }
    assert!(writer.table.get().lines.len() <= 16);
    drain(&mut reclaimer);
}

#[test]
#[should_panic(expected = "hashes of keys do not differ")]
fn a_constant_hash_is_a_bug_and_not_an_endless_loop() {
    let mut reclaimer = Reclaimer::default();
    let (mut writer, _map) = epoch_map::<u64, u64>(reclaimer.graveyard());
    for key in 0..=(SLOTS_PER_LINE * PROBE_LINES) as u64 {
        writer.insert(&mut reclaimer, 7, key, key);
    }
}

#[test]
#[should_panic(expected = "another one's reclaimer")]
fn another_writers_reclaimer_is_refused() {
    let reclaimer = Reclaimer::default();
    let (mut cell, _reader) = epoch_cell(reclaimer.graveyard(), 1_u64);
    cell.store(&mut Reclaimer::default(), 2);
}

#[test]
fn what_nobody_holds_is_freed_without_traffic() {
    let counts = Arc::<Counts>::default();
    let mut reclaimer = Reclaimer::default();
    assert_eq!(reclaimer.poll(), 0);
    let (mut writer, map) = epoch_map(reclaimer.graveyard());
    let (mut cell, _reader) = epoch_cell(reclaimer.graveyard(), Tracked::new(0, 0, &counts));
    for version in 0..100 {
        writer.insert(&mut reclaimer, mix(1), 1_u64, Tracked::new(1, version, &counts));
        cell.store(&mut reclaimer, Tracked::new(2, version, &counts));
    }
    assert_eq!(reclaimer.pending_count(), 199);
    assert!(reclaimer.pending_bytes() > 199_000);
    drain(&mut reclaimer);
    assert_eq!(counts.alive(), 2);
    drop((writer, map, cell));
    assert_eq!(counts.alive(), 1, "the reader of the cell is still there");
}

#[test]
fn a_reader_that_stalls_costs_memory_and_nothing_else() {
    let counts = Arc::<Counts>::default();
    let mut reclaimer = Reclaimer::default();
    let (mut writer, map) = epoch_map(reclaimer.graveyard());
    writer.insert(&mut reclaimer, mix(1), 1_u64, Tracked::new(1, 0, &counts));
    drain(&mut reclaimer);

    let (entered, has_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let map = &map;
        scope.spawn(move || {
            IS_READER.set(true);
            let guard = EpochGuard::enter();
            let held = map.get(&guard, mix(1), |key| *key == 1).expect("it was inserted");
            entered.send(()).expect("the test waits");
            may_leave.recv().expect("the test says when");
            held.assert_sound();
            assert_eq!(held.version, 0);
        });
        has_entered.recv().expect("the reader enters");
        for version in 1..=1_000 {
            writer.insert(&mut reclaimer, mix(1), 1, Tracked::new(1, version, &counts));
            assert_eq!(reclaimer.poll(), 0);
        }
        assert_eq!(reclaimer.pending_count(), 1_000);
        assert!(reclaimer.pending_bytes() > 1_000_000);
        assert_eq!(counts.alive(), 1_001);
        leave.send(()).expect("the reader waits");
    });
    drain(&mut reclaimer);
    assert_eq!(counts.alive(), 1);
}

#[test]
fn a_refreshed_guard_holds_nothing_back() {
    let counts = Arc::<Counts>::default();
    let mut reclaimer = Reclaimer::default();
    let (mut cell, reader) = epoch_cell(reclaimer.graveyard(), Tracked::new(1, 0, &counts));
    let mut guard = EpochGuard::enter();
    for version in 1..=100 {
        assert_eq!(reader.load(&guard).version, version - 1);
        cell.store(&mut reclaimer, Tracked::new(1, version, &counts));
        reclaimer.poll();
        guard.refresh();
    }
    for _ in 0..1_000_000 {
        reclaimer.poll();
        guard.refresh();
        if reclaimer.pending_count() == 0 {
            break;
        }
        thread::yield_now();
    }
    assert_eq!(counts.alive(), 1);
}

#[test]
fn one_poll_frees_a_bounded_number() {
    let mut reclaimer = Reclaimer::default();
    let (mut cell, _reader) = epoch_cell(reclaimer.graveyard(), 0_u64);
    let guard = EpochGuard::enter();
    for value in 0..5_000 {
        cell.store(&mut reclaimer, value);
    }
    assert_eq!(reclaimer.poll(), 0);
    drop(guard);
    let mut polls_that_freed = 0;
    while reclaimer.pending_count() > 0 {
        let freed = reclaimer.poll();
        assert!(freed <= FREES_PER_POLL);
        polls_that_freed += usize::from(freed > 0);
        thread::yield_now();
    }
    assert!(polls_that_freed >= 5_000 / FREES_PER_POLL);
}

#[test]
fn a_dropped_writer_takes_nothing_from_its_readers() {
    let counts = Arc::<Counts>::default();
    let mut reclaimer = Reclaimer::default();
    let (mut writer, map) = epoch_map(reclaimer.graveyard());
    for key in 0..100 {
        writer.insert(&mut reclaimer, mix(key), key, Tracked::new(key, 0, &counts));
    }
    let guard = EpochGuard::enter();
    let held = map.get(&guard, mix(1), |key| *key == 1).expect("it was inserted");
    writer.remove(&mut reclaimer, mix(1), &1);
    drop((writer, reclaimer));

    held.assert_sound();
    let kept = map.get(&guard, mix(2), |key| *key == 2).expect("it was inserted");
    kept.assert_sound();
    assert_eq!(counts.alive(), 100);
    drop(guard);
    drop(map);
    assert_eq!(counts.alive(), 0);
}

#[test]
fn a_thread_that_is_about_to_end_can_still_read() {
    struct ReadsWhenDropped(EpochCell<u64>);
    impl Drop for ReadsWhenDropped {
        fn drop(&mut self) {
            assert_eq!(*self.0.load(&EpochGuard::enter()), 7);
        }
    }
    thread_local! {
        static LATE: Cell<Option<ReadsWhenDropped>> = const { Cell::new(None) };
    }
    let reclaimer = Reclaimer::default();
    let (_cell, reader) = epoch_cell(reclaimer.graveyard(), 7_u64);
    let thread = thread::spawn(move || {
        LATE.set(Some(ReadsWhenDropped(reader)));
        drop(EpochGuard::enter()); // made after `LATE`, so destroyed before it
    });
    thread.join().expect("the destructor read");
}

/// What the stress test's readers and its writer share.
struct Arena {
    map: EpochMap<u64, Tracked>,
    cell: EpochCell<Tracked>,
    /// For each key, the version published last; 0 after a removal.
    floors: Vec<AtomicU64>,
    done: AtomicBool,
}

/// Reads until the writer is done; returns how many lookups found something.
fn hammer(arena: &Arena, seed: u64) -> usize {
    IS_READER.set(true);
    let keys = arena.floors.len() as u64;
    let mut found = 0;
    let mut guard = EpochGuard::enter();
    let mut last_in_cell = 0;
    for round in 0.. {
        if arena.done.load(Ordering::Acquire) {
            break;
        }
        match mix(seed ^ round) % 4 {
            0 => guard.refresh(),
            1 => {
                drop(guard);
                guard = EpochGuard::enter();
            }
            _ => {} // stay, so that what was read must stay too
        }
        let mut held = Vec::with_capacity(16);
        for read in 0..16 {
            let key = mix(seed ^ (round << 8) ^ read) % keys;
            let floor = arena.floors[usize::try_from(key).unwrap()].load(Ordering::Acquire);
            let value = arena.map.get(&guard, mix(key), |known| *known == key);
            if let Some(value) = value {
                assert_eq!(value.key, key);
                assert!(value.version >= floor, "a read went back in time");
                held.push(value);
            }
        }
        let in_cell = arena.cell.load(&guard);
        assert!(in_cell.version >= last_in_cell);
        last_in_cell = in_cell.version;
        in_cell.assert_sound();
        found += held.len();
        for value in held {
            value.assert_sound();
        }
    }
    found
}

#[test]
fn readers_on_many_threads_see_sound_values_and_free_none() {
    const KEYS: u64 = 2_000;
    const STEPS: u64 = 200_000;
    let counts = Arc::<Counts>::default();
    let mut reclaimer = Reclaimer::default();
    let (mut writer, map) = epoch_map(reclaimer.graveyard());
    let (mut cell_writer, cell) = epoch_cell(reclaimer.graveyard(), Tracked::new(0, 0, &counts));
    let floors = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let arena = Arena { map, cell, floors, done: AtomicBool::new(false) };

    let readers = 4;
    let ready = Barrier::new(readers + 1);
    let found = thread::scope(|scope| {
        let threads: Vec<_> = (0..readers as u64)
            .map(|seed| {
                let (arena, ready) = (&arena, &ready);
                scope.spawn(move || {
                    ready.wait();
                    hammer(arena, mix(seed))
                })
            })
            .collect();
        ready.wait();
        for step in 1..=STEPS {
            // The range of keys breathes, so that the table grows, shrinks and is purged.
            let range = 1 + (KEYS - 1) * ((step / 4_000) % 5) / 4;
            let random = mix(step ^ 0xdead);
            let key = random % range;
            let floor = &arena.floors[usize::try_from(key).unwrap()];
            if random >> 62 == 0 {
                floor.store(0, Ordering::Release);
                writer.remove(&mut reclaimer, mix(key), &key);
            } else {
                let value = Tracked::new(key, step, &counts);
                writer.insert(&mut reclaimer, mix(key), key, value);
                floor.store(step, Ordering::Release);
            }
            if step % 8 == 0 {
                cell_writer.store(&mut reclaimer, Tracked::new(0, step, &counts));
                reclaimer.poll();
            }
        }
        arena.done.store(true, Ordering::Release);
        threads.into_iter().map(|thread| thread.join().expect("no reader fails")).sum::<usize>()
    });
    assert!(found > 0);
    drain(&mut reclaimer);
    assert_eq!(counts.alive(), writer.len() + 1);
    drop((writer, cell_writer, reclaimer, arena));
    assert_eq!(counts.alive(), 0);
}
