//! A cell and a map with one writer and any number of wait-free readers: the only unsafe code.
//!
//! ```text
//!  EpochMap ──> cell ──> Table: lines of 8 slots      Block (one per key, whole cache lines)
//!  (readers)     ^       [ ptr|tag  ptr|tag  null .. ] ──> { hash, key, Some(value) }
//!  MapWriter ────┘       [ null     ptr|tag       .. ] ──> { hash, key, None }     (removed)
//! ```
//!
//! - A slot given to a key stays its own until the table is replaced, and a block never changes
//!   once a slot points to it. So an update or a removal is a new block and one release store
//!   into the slot; growth, shrinking and the purge of removed keys are a new table over the same
//!   blocks and one release store into the cell.
//! - A reader loads the table, probes at most [`PROBE_LINES`] lines and is done: it never retries,
//!   locks, allocates or frees. The writer grows the table rather than exceed that bound.
//! - What the writer took out of reach it keeps in a list ([`Reclaimer`]) and frees itself, once a
//!   *ticket* has run: a tiny call deferred to crossbeam-epoch, one at a time, that only stores a
//!   number. Destructors deferred there would mostly run on readers, as every 128th pin collects.
//!
//! The scheme of reclamation is behind four calls: [`EpochGuard::enter`], dropping that guard,
//! [`Reclaimer::retire`] and [`Reclaimer::poll`].
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::mem;
use std::ptr::{self, NonNull};

pub(super) use super::guard::EpochGuard;
use super::sync::{Arc, AtomicBool, AtomicPtr, AtomicU64, Mutex, Ordering, PoisonError};

#[cfg(test)]
mod tests;

/// The store that hands a block, a table or a value to the readers.
///
/// A build with a `rolecall_twin` is one of the broken versions of this file that `tests/verify`
/// must find out.
const PUBLISH: Ordering =
    if cfg!(rolecall_twin = "relaxed_publish") { Ordering::Relaxed } else { Ordering::Release };

/// Slots in one line of a table: 8 pointers of 8 bytes fill a cache line.
const SLOTS_PER_LINE: usize = 8;

/// Most lines that a lookup reads; the writer grows the table rather than exceed it.
pub(super) const PROBE_LINES: usize = 8;

/// The part of a slot's address that block alignment leaves free, and bits of the hash use.
const TAG_MASK: usize = align_of::<Block<(), ()>>() - 1;

/// Removed keys that a table may keep, however few live ones it has, before they are purged.
const REMOVED_KEPT: usize = 32;

/// Lines per key past which the hash function, not chance, must be why keys do not fit.
const MAX_LINES_PER_KEY: usize = 64;

/// Most blocks and tables that one [`Reclaimer::poll`] frees, beyond what was retired since the
/// one before. Counting that too keeps the list bounded under any rate of updates.
pub(super) const FREES_PER_POLL: usize = 256;

/// Attempts of one [`Reclaimer::poll`] to advance the epoch: two free garbage that nobody holds,
/// one more makes up for a reader that came in between.
const ADVANCES_PER_POLL: usize = 3;

/// Bytes that a value keeps on the heap and that are likely its own.
pub(super) trait HeapBytes {
    fn heap_bytes(&self) -> usize;
}

/// Something out of reach of new readers, which old ones may still hold.
struct Retired {
    what: NonNull<dyn Send>,
    bytes: usize,
}

// SAFETY: it owns what it points to, and that is `Send`.
unsafe impl Send for Retired {}

impl Retired {
    /// Runs the destructor and frees the memory.
    ///
    /// # Safety
    /// No reference to it is left anywhere.
    unsafe fn free(self) {
        // SAFETY: `Reclaimer::retire` took a pointer that came from a box, and by the caller's
        // promise nobody else uses it.
        drop(unsafe { Box::from_raw(self.what.as_ptr()) });
    }
}

/// What a dropped writer could not free yet. Every map and cell of that writer holds on to it, so
/// it is freed with the last of them, when no reader is left to hold a reference.
#[derive(Default)]
pub(super) struct Graveyard(Mutex<VecDeque<Retired>>);

impl Drop for Graveyard {
    fn drop(&mut self) {
        let left = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for retired in left.drain(..) {
            // SAFETY: a reader's reference borrows from a handle to the map or cell it read, and
            // that holds an `Arc` of this graveyard; this is the last one.
            unsafe { retired.free() };
        }
    }
}

/// The writer's list of what it retired, and the ticket that tells when to free it.
#[derive(Default)]
pub(super) struct Reclaimer {
    /// In the order in which it was retired. Everything is numbered from 0 in that order.
    retired: VecDeque<Retired>,
    pending_bytes: usize,
    /// The number of the front of `retired`.
    freed: u64,
    /// All numbers below it are out of every reader's reach.
    ripe: u64,
    /// The ticket under way, if any: when it has run, all numbers below it are ripe.
    ticket: Option<u64>,
    /// The last ticket that ran.
    stamped: Arc<AtomicU64>,
    /// How many were retired since the last poll.
    fresh: usize,
    graveyard: Arc<Graveyard>,
}

impl Reclaimer {
    /// What maps and cells written with this reclaimer hold on to.
    pub(super) fn graveyard(&self) -> &Arc<Graveyard> {
        &self.graveyard
    }

    /// Things retired since the last poll.
    pub(super) fn fresh_count(&self) -> usize {
        self.fresh
    }

    /// Things retired and not yet freed.
    pub(super) fn pending_count(&self) -> usize {
        self.retired.len()
    }

    /// About how many bytes they keep.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Panics unless the map or cell with this graveyard is to be written with this reclaimer.
    fn assert_serves(&self, graveyard: &Arc<Graveyard>) {
        assert!(Arc::ptr_eq(graveyard, &self.graveyard), "written with another one's reclaimer");
    }

    /// Keeps `what` until no reader can hold it, then frees it. Null is nothing.
    ///
    /// # Safety
    /// `what` came from [`Box::into_raw`], is retired once, and no reader that enters from now on
    /// can reach it. Readers that hold it borrow from something that holds the graveyard of this
    /// reclaimer.
    unsafe fn retire<T: HeapBytes + Send + 'static>(&mut self, what: *mut T) {
        let Some(what) = NonNull::new(what) else { return };
        // SAFETY: not freed yet, and from now on only ever shared.
        let bytes = size_of::<T>() + unsafe { what.as_ref() }.heap_bytes();
        self.retired.push_back(Retired { what, bytes });
        self.pending_bytes += bytes;
        self.fresh += 1;
        if cfg!(rolecall_twin = "early_free") {
            self.ripe = self.freed + self.retired.len() as u64;
        }
    }

    /// Frees what no reader can hold any more, a bounded number of things; returns how many.
    ///
    /// Needs no reads to make progress, and costs nothing when nothing is pending.
    pub(super) fn poll(&mut self) -> usize {
        if self.retired.is_empty() {
            return 0;
        }
        let mut guard = EpochGuard::enter().0;
        for _ in 0..ADVANCES_PER_POLL {
            self.take_ticket();
            let retired_until = self.freed + self.retired.len() as u64;
            if self.ticket.is_none() {
                if self.ripe == retired_until {
                    break;
                }
                self.ticket = Some(retired_until);
                let stamped = Arc::clone(&self.stamped);
                guard.defer(move || stamped.store(retired_until, Ordering::Release));
            }
            guard.flush();
            guard.repin();
        }
        drop(guard);
        self.take_ticket();

        let limit = FREES_PER_POLL + mem::take(&mut self.fresh);
        let mut count = 0;
        while self.freed < self.ripe && count < limit {
            let retired = self.retired.pop_front().expect("what is ripe is not yet freed");
            self.freed += 1;
            self.pending_bytes -= retired.bytes;
            count += 1;
            // SAFETY: it was out of reach before the ticket that covers it was deferred, and that
            // ticket has run: every reader that was in then has left since.
            unsafe { retired.free() };
        }
        count
    }

    /// Notes it when the ticket has run.
    fn take_ticket(&mut self) {
        // Acquire: the ticket ran after the last reader of what it covers had left, and the
        // destructors must come after that too.
        if self.ticket.is_some_and(|ticket| ticket == self.stamped.load(Ordering::Acquire)) {
            self.ripe = self.ticket.take().expect("checked above");
        }
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        while self.poll() > 0 {}
        let mut left = self.graveyard.0.lock().unwrap_or_else(PoisonError::into_inner);
        left.append(&mut self.retired);
    }
}

/// What the writer and the readers of one cell share. It owns the value.
struct CellRoot<T> {
    /// Never null.
    value: AtomicPtr<T>,
    graveyard: Arc<Graveyard>,
    owns: PhantomData<T>,
}

impl<T> Drop for CellRoot<T> {
    fn drop(&mut self) {
        // SAFETY: the value came from a box, and the last handle is gone; a reader's reference
        // would borrow from one.
        drop(unsafe { Box::from_raw(self.value.load(Ordering::Relaxed)) });
    }
}

/// The readers' side of a single value.
pub(super) struct EpochCell<T>(Arc<CellRoot<T>>);

/// The writer's side of a single value: there is one per cell.
pub(super) struct CellWriter<T>(Arc<CellRoot<T>>);

/// A cell with this value, to be written with the reclaimer of this graveyard.
pub(super) fn epoch_cell<T>(graveyard: &Arc<Graveyard>, value: T) -> (CellWriter<T>, EpochCell<T>)
where
    T: HeapBytes + Send + Sync + 'static,
{
    let root = Arc::new(CellRoot {
        value: AtomicPtr::new(Box::into_raw(Box::new(value))),
        graveyard: Arc::clone(graveyard),
        owns: PhantomData,
    });
    (CellWriter(Arc::clone(&root)), EpochCell(root))
}

impl<T> EpochCell<T> {
    /// The value of this moment. Wait-free.
    #[inline]
    pub(super) fn load<'g>(&'g self, _guard: &'g EpochGuard) -> &'g T {
        // SAFETY: it was reachable after the guard had entered, so it is freed only after the
        // guard has left. Acquire pairs with the release in `store`.
        unsafe { &*self.0.value.load(Ordering::Acquire) }
    }
}

impl<T: HeapBytes + Send + Sync + 'static> CellWriter<T> {
    /// The value, as readers see it.
    pub(super) fn get(&self) -> &T {
        // SAFETY: only `&mut self` replaces and retires it.
        unsafe { &*self.0.value.load(Ordering::Relaxed) }
    }

    /// Replaces the value.
    pub(super) fn store(&mut self, reclaimer: &mut Reclaimer, value: T) {
        reclaimer.assert_serves(&self.0.graveyard);
        let old = self.0.value.load(Ordering::Relaxed);
        self.0.value.store(Box::into_raw(Box::new(value)), PUBLISH);
        // SAFETY: it came from a box, the cell no longer points to it, and its readers borrow from
        // an `EpochCell`, which holds the graveyard that was checked above.
        unsafe { reclaimer.retire(old) };
    }
}

/// One key's entry: never changed once published. A line of its own, so that nothing written
/// nearby disturbs its readers.
#[repr(align(64))]
struct Block<K, V> {
    hash: u64,
    key: K,
    /// `None`: the key was removed, and the slot waits for it to come back or for a purge.
    value: Option<V>,
}

impl<K, V: HeapBytes> HeapBytes for Block<K, V> {
    fn heap_bytes(&self) -> usize {
        self.value.as_ref().map_or(0, HeapBytes::heap_bytes)
    }
}

/// The address of a block, with bits of its key's hash where alignment leaves zeros; or null.
type Slot<K, V> = AtomicPtr<Block<K, V>>;

#[repr(align(64))]
struct Line<K, V>([Slot<K, V>; SLOTS_PER_LINE]);

/// Open addressing over lines.
struct Table<K, V> {
    lines: Box<[Line<K, V>]>,
    /// Whether the blocks go with this table: only while it is the current one of its map, as its
    /// successor has the same blocks.
    owns_blocks: AtomicBool,
    blocks: PhantomData<Block<K, V>>,
}

/// What a key's probe sequence led to.
enum Found<'t, K, V> {
    /// The key's slot and its block.
    Block(&'t Slot<K, V>, &'t Block<K, V>),
    /// The key is not there; its slot would be this one.
    Free(&'t Slot<K, V>),
    /// The key is not there, and there is no room for it within the probe bound.
    Full,
}

impl<K, V> Table<K, V> {
    /// A table without keys. The number of lines is a power of two.
    fn new(lines: usize) -> Table<K, V> {
        assert!(lines.is_power_of_two());
        let line = || Line(std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())));
        Table {
            lines: std::iter::repeat_with(line).take(lines).collect(),
            owns_blocks: AtomicBool::new(false),
            blocks: PhantomData,
        }
    }

    /// A table of these blocks, all of different keys; `None` if one of them does not fit, or one
    /// more of hash `room_for` would not.
    ///
    /// # Safety
    /// The pointers are untagged and point to blocks that live as long as the table is used.
    unsafe fn with_blocks(
        lines: usize,
        blocks: &[*mut Block<K, V>],
        room_for: Option<u64>,
    ) -> Option<Table<K, V>> {
        let table = Table::new(lines);
        // SAFETY: all blocks in the table are of these, which live by the caller's promise.
        let free_slot = |hash| match unsafe { table.find(hash, |_| false) } {
            Found::Free(slot) => Some(slot),
            Found::Block(..) | Found::Full => None,
        };
        for &block in blocks {
            // SAFETY: by the caller's promise.
            let hash = unsafe { (*block).hash };
            free_slot(hash)?.store(tagged(block, hash), Ordering::Relaxed);
        }
        if let Some(hash) = room_for {
            free_slot(hash)?;
        }
        Some(table)
    }

    /// Follows the probe sequence of a hash: the lines in triangular steps, so that a power of two
    /// of them are all reached; within a line, all slots from one that the hash picks.
    ///
    /// # Safety
    /// For as long as the result is used, no block is freed that this table had when this was
    /// called or got since.
    #[inline]
    unsafe fn find(&self, hash: u64, is_key: impl Fn(&K) -> bool) -> Found<'_, K, V> {
        let last_line = self.lines.len() - 1;
        let (mut line, first, tag) = place(hash);
        for step in 1..=PROBE_LINES {
            let slots = &self.lines[line & last_line].0;
            for offset in 0..SLOTS_PER_LINE {
                let slot = &slots[(first + offset) % SLOTS_PER_LINE];
                // Acquire: pairs with the release store of the slot, or with that of the cell for
                // blocks that came with the table; the block is seen as it was made.
                let block = slot.load(Ordering::Acquire);
                if block.is_null() {
                    return Found::Free(slot);
                }
                if block.addr() & TAG_MASK == tag {
                    // SAFETY: a slot that is not null points to a block, not freed by the caller's
                    // promise and never written to since it was published.
                    let block = unsafe { &*untagged(block) };
                    if block.hash == hash && is_key(&block.key) {
                        return Found::Block(slot, block);
                    }
                }
            }
            line = line.wrapping_add(step);
        }
        Found::Full
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<K, V>> {
        self.lines.iter().flat_map(|line| &line.0)
    }
}

impl<K, V> Drop for Table<K, V> {
    fn drop(&mut self) {
        if !self.owns_blocks.load(Ordering::Relaxed) {
            return;
        }
        for slot in self.slots() {
            let block = untagged(slot.load(Ordering::Relaxed));
            if !block.is_null() {
                // SAFETY: this was the map's current table, and goes with the last handle to the
                // map, from which any reference would borrow. Each block is in one of its slots,
                // came from a box, and is not retired, as those are in no current table.
                drop(unsafe { Box::from_raw(block) });
            }
        }
    }
}

impl<K, V> HeapBytes for Table<K, V> {
    fn heap_bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }
}

/// Where a hash belongs: its line (to be reduced to the table's size), its first slot there, and
/// its tag. Each has bits of its own.
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is wanted")]
#[inline]
fn place(hash: u64) -> (usize, usize, usize) {
    (hash as usize, (hash >> 48) as usize % SLOTS_PER_LINE, (hash >> 56) as usize & TAG_MASK)
}

#[inline]
fn tagged<K, V>(block: *mut Block<K, V>, hash: u64) -> *mut Block<K, V> {
    let (_, _, tag) = place(hash);
    block.map_addr(|addr| addr | tag)
}

#[inline]
fn untagged<K, V>(block: *mut Block<K, V>) -> *mut Block<K, V> {
    block.map_addr(|addr| addr & !TAG_MASK)
}

/// The readers' side of a map, to be shared by any number of threads.
pub(super) struct EpochMap<K, V>(EpochCell<Table<K, V>>);

/// The writer's side of a map: there is one per map, and it changes it by `&mut self` only.
pub(super) struct MapWriter<K, V> {
    table: CellWriter<Table<K, V>>,
    /// Keys that have a value.
    live: usize,
    /// Slots given to keys, removed ones included.
    used: usize,
}

/// An empty map, to be written with the reclaimer of this graveyard.
pub(super) fn epoch_map<K, V>(graveyard: &Arc<Graveyard>) -> (MapWriter<K, V>, EpochMap<K, V>)
where
    K: Clone + Send + Sync + 'static,
    V: HeapBytes + Send + Sync + 'static,
{
    let table = Table::new(1);
    table.owns_blocks.store(true, Ordering::Relaxed);
    let (writer, reader) = epoch_cell(graveyard, table);
    (MapWriter { table: writer, live: 0, used: 0 }, EpochMap(reader))
}

impl<K, V> EpochMap<K, V> {
    /// The value of the key with this hash that `is_key` recognises. Wait-free.
    #[inline]
    pub(super) fn get<'g>(
        &'g self,
        guard: &'g EpochGuard,
        hash: u64,
        is_key: impl Fn(&K) -> bool,
    ) -> Option<&'g V> {
        // SAFETY: while the guard is in, no block is freed that it can reach. One that was retired
        // before it entered it cannot: the slot or the whole table had been replaced by then.
        match unsafe { self.0.load(guard).find(hash, is_key) } {
            Found::Block(_, block) => block.value.as_ref(),
            Found::Free(_) | Found::Full => None,
        }
    }
}

impl<K, V> MapWriter<K, V>
where
    K: Clone + Eq + Send + Sync + 'static,
    V: HeapBytes + Send + Sync + 'static,
{
    /// Keys that have a value.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// The value of a key, as readers see it.
    pub(super) fn get(&self, hash: u64, key: &K) -> Option<&V> {
        // SAFETY: only `&mut self` retires anything of this map.
        match unsafe { self.table.get().find(hash, |known| known == key) } {
            Found::Block(_, block) => block.value.as_ref(),
            Found::Free(_) | Found::Full => None,
        }
    }

    /// Gives a key its value, new or instead of the one it had.
    pub(super) fn insert(&mut self, reclaimer: &mut Reclaimer, hash: u64, key: K, value: V) {
        reclaimer.assert_serves(&self.table.0.graveyard);
        let (slot, was_used, was_live) = loop {
            // SAFETY: nothing is freed before this call returns, only retired.
            match unsafe { self.table.get().find(hash, |known| *known == key) } {
                Found::Block(slot, block) => break (slot, true, block.value.is_some()),
                Found::Free(slot) if self.has_room() => break (slot, false, false),
                Found::Free(_) | Found::Full => self.rebuild(reclaimer, Some(hash)),
            }
        };
        let old = slot.load(Ordering::Relaxed);
        let new = Box::into_raw(Box::new(Block { hash, key, value: Some(value) }));
        slot.store(tagged(new, hash), PUBLISH);
        self.used += usize::from(!was_used);
        self.live += usize::from(!was_live);
        // SAFETY: a block is in one slot only, and that one was just given another; readers
        // borrow from an `EpochMap`, which holds the graveyard that was checked above.
        unsafe { reclaimer.retire(untagged(old)) };
    }

    /// Takes a key's value away; whether it had one.
    pub(super) fn remove(&mut self, reclaimer: &mut Reclaimer, hash: u64, key: &K) -> bool {
        reclaimer.assert_serves(&self.table.0.graveyard);
        // SAFETY: nothing is freed before this call returns, only retired.
        let found = unsafe { self.table.get().find(hash, |known| known == key) };
        let Found::Block(slot, Block { key, value: Some(_), .. }) = found else { return false };
        if cfg!(rolecall_twin = "lost_removal") {
            return true;
        }
        let removed = Box::new(Block { hash, key: key.clone(), value: None });
        let old = slot.load(Ordering::Relaxed);
        slot.store(tagged(Box::into_raw(removed), hash), PUBLISH);
        self.live -= 1;
        // SAFETY: as in `insert`.
        unsafe { reclaimer.retire(untagged(old)) };
        if self.used - self.live > self.live.max(REMOVED_KEPT) {
            self.rebuild(reclaimer, None);
        }
        true
    }

    /// Whether one more key keeps the table at most three quarters full, where probes are short.
    fn has_room(&self) -> bool {
        4 * (self.used + 1) <= 3 * SLOTS_PER_LINE * self.table.get().lines.len()
    }

    /// Replaces the table by one of the size that fits the live keys, without the removed ones;
    /// with a slot within the probe bound for a key of hash `room_for`, if given.
    fn rebuild(&mut self, reclaimer: &mut Reclaimer, room_for: Option<u64>) {
        let blocks = self.table.get().slots().map(|slot| untagged(slot.load(Ordering::Relaxed)));
        // SAFETY: a block in the table is alive, as only `&mut self` retires it.
        let is_live = |block: &*mut Block<K, V>| unsafe { (**block).value.is_some() };
        let (live, removed): (Vec<_>, Vec<_>) =
            blocks.filter(|block| !block.is_null()).partition(is_live);

        let keys = live.len() + usize::from(room_for.is_some());
        let mut lines = (2 * keys).div_ceil(SLOTS_PER_LINE).next_power_of_two();
        let table = loop {
            // SAFETY: these blocks are untagged; they are in the table now, and are retired only
            // when they leave the table that this becomes.
            if let Some(table) = unsafe { Table::with_blocks(lines, &live, room_for) } {
                break table;
            }
            lines *= 2;
            assert!(lines <= MAX_LINES_PER_KEY * keys, "hashes of keys do not differ");
        };
        table.owns_blocks.store(true, Ordering::Relaxed);
        self.table.get().owns_blocks.store(false, Ordering::Relaxed);
        self.used = live.len();
        self.table.store(reclaimer, table);
        for block in removed {
            // SAFETY: the new table does not have it, and the old one is out of reach; the rest as
            // in `insert`.
            unsafe { reclaimer.retire(block) };
        }
    }
}
