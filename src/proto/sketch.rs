//! A sketch of a table, by which two nodes find the entries that they do not have in common at a
//! cost that follows their number (Yang, Gilad and Alizadeh, "Practical Rateless Set
//! Reconciliation", SIGCOMM 2024).
//!
//! A table is an endless sequence of cells, each the sum of some of its entries. Cell by cell, the
//! difference of two nodes' sequences is the sequence of the entries that only one of them has, and
//! its first cells are enough to take it apart. The first cells are kept up to date; those after
//! them are made from the entries when somebody needs them.

use crate::node::NodeId;
use crate::wire::cell::{Cell, low_half};
use crate::wire::entry_hash;
use crate::wire::frame::{Stamp, Summary, Table};
use crate::wire::limits::MAX_SKETCH_CELLS;

/// A table, whose entry it is there, and its stamp.
pub(super) type Entry = (Table, NodeId, Stamp);

/// Cells of each table that are kept up to date.
pub(super) const STORED_CELLS: usize = 64;

/// The cells that an entry is in, in order. They depend on its hash only, so that every node puts
/// it into the same ones.
#[derive(Clone, Debug)]
struct Walk {
    at: u64,
    state: u64,
}

impl Walk {
    /// Every entry is in the first cell (section 4), which therefore tells how many there are.
    const fn of(hash: u64) -> Walk {
        Walk { at: 0, state: hash }
    }

    /// The number of the cell.
    fn cell(&self) -> usize {
        usize::try_from(self.at).unwrap_or(usize::MAX)
    }

    /// Goes on to the next cell that the entry is in.
    ///
    /// Section 4: from cell i the gap is ceil((i + 1.5) (1 / sqrt(u) - 1)) with u uniform in
    /// (0, 1], so that an entry is in cell i with probability 1 / (1 + i / 2). The larger of two
    /// uniform numbers is distributed as sqrt(u) is. With it integers are enough, which are quick
    /// and the same on every platform.
    fn step(&mut self) {
        const ONE: u32 = 1 << 12;
        let bits = self.draw();
        let root = low_half(bits >> 32).max(low_half(bits)) >> 12;
        // In units of 1 / ONE: at least that, at most u32::MAX.
        let reciprocal = u32::MAX / root.max(1);
        let gap =
            (2 * self.at + 3).saturating_mul(u64::from(reciprocal - ONE)) / u64::from(2 * ONE);
        // Rounded down, and one more: never the same cell again.
        self.at += gap + 1;
    }

    /// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014: the
    /// mixing of one number does not wait for that of the one before.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn meets(mut self, cell: usize) -> bool {
        while self.cell() < cell {
            self.step();
        }
        self.cell() == cell
    }
}

/// A cell of one table, with the whole hash.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Stored {
    id: u64,
    stamp: u64,
    check: u64,
    print: u32,
    count: i32,
}

/// The first cells of one table.
#[derive(Debug)]
pub(super) struct Sketch {
    table: Table,
    cells: Box<[Stored; STORED_CELLS]>,
}

impl Sketch {
    /// Of a table without entries.
    pub(super) fn new(table: Table) -> Sketch {
        Sketch { table, cells: Box::new([Stored::default(); STORED_CELLS]) }
    }

    /// Notes an entry that was not there.
    pub(super) fn insert(&mut self, id: NodeId, stamp: Stamp) {
        self.change(id, stamp, 1);
    }

    /// Forgets an entry that is there.
    pub(super) fn remove(&mut self, id: NodeId, stamp: Stamp) {
        self.change(id, stamp, -1);
    }

    fn change(&mut self, id: NodeId, stamp: Stamp, by: i32) {
        let check = entry_hash(self.table, id, stamp);
        let mut walk = Walk::of(check);
        while let Some(cell) = self.cells.get_mut(walk.cell()) {
            cell.id ^= id.as_u64();
            cell.stamp ^= stamp.number;
            cell.print ^= stamp.print;
            cell.check ^= check;
            cell.count += by;
            walk.step();
        }
    }

    /// The table in short: its first cell, which all entries are in.
    pub(super) fn summary(&self) -> Summary {
        let Stored { count, check, .. } = self.cells[0];
        let count = u32::try_from(count).expect("only entries that are there are removed");
        Summary { count, hash: check }
    }

    /// Adds the table's cells from number `first` on to these ones. Its entries are asked for when
    /// not all of the cells are kept.
    pub(super) fn add_to<I: Iterator<Item = (NodeId, Stamp)>>(
        &self,
        first: usize,
        cells: &mut [Cell],
        entries: impl FnOnce() -> I,
    ) {
        let stored = self.cells.get(first..).unwrap_or_default();
        let (kept, rest) = cells.split_at_mut(stored.len().min(cells.len()));
        for (cell, stored) in kept.iter_mut().zip(stored) {
            let Stored { id, stamp: number, check, print, count } = *stored;
            let stamp = Stamp { number, print };
            cell.combine(&Cell::of(self.table, (id, stamp, check), count));
        }
        if !rest.is_empty() {
            add_cells(self.table, entries(), first + kept.len(), rest);
        }
    }

    /// What must always hold: the sketch is of these entries.
    #[cfg(any(test, debug_assertions, feature = "sim"))]
    pub(super) fn check(&self, entries: impl Iterator<Item = (NodeId, Stamp)>) {
        let mut fresh = Sketch::new(self.table);
        entries.for_each(|(id, stamp)| fresh.insert(id, stamp));
        assert!(self.cells == fresh.cells, "the sketch follows the table");
    }
}

/// Adds the cells from number `first` on of a table with these entries.
fn add_cells(
    table: Table,
    entries: impl Iterator<Item = (NodeId, Stamp)>,
    first: usize,
    cells: &mut [Cell],
) {
    let end = first + cells.len();
    for (id, stamp) in entries {
        let check = entry_hash(table, id, stamp);
        let item = Cell::of(table, (id.as_u64(), stamp, check), 1);
        let mut walk = Walk::of(check);
        while walk.cell() < end {
            if let Some(at) = walk.cell().checked_sub(first) {
                cells[at].combine(&item);
            }
            walk.step();
        }
    }
}

/// Puts a stamp in the place of an entry's, in a table's cells from number `first` on.
pub(super) fn restamp(
    table: Table,
    (id, from, to): (NodeId, Stamp, Stamp),
    first: usize,
    cells: &mut [Cell],
) {
    let mut old = vec![Cell::default(); cells.len()];
    add_cells(table, std::iter::once((id, from)), first, &mut old);
    cells.iter_mut().zip(&old).for_each(|(cell, old)| cell.subtract(old));
    add_cells(table, std::iter::once((id, to)), first, cells);
}

/// The entries that only one side has, in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Decoded {
    pub(super) ours: Vec<Entry>,
    pub(super) theirs: Vec<Entry>,
}

/// How far the decoding is.
#[must_use]
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Progress {
    /// The next cells are needed.
    More,
    /// The whole difference is known.
    Decoded(Decoded),
    /// The cells contradict themselves, or the difference is too large for as many as there may be.
    Hopeless,
}

/// A cell of the difference, less what was found in it.
#[derive(Debug)]
struct Residue {
    cell: Cell,
    /// Whether an entry was alone in it. Then it is empty for good.
    peeled: bool,
}

/// An entry that only one side has.
#[derive(Debug)]
struct Found {
    entry: Entry,
    /// The cell in which it was alone: its count tells whose it is.
    item: Cell,
    /// Leads to the first of its cells that has not come.
    walk: Walk,
}

impl Found {
    /// Takes the entry out of the cells that it has not been taken out of, and names them.
    fn take_out(&mut self, cells: &mut [Residue], mut changed: impl FnMut(usize)) {
        while let Some(residue) = cells.get_mut(self.walk.cell()) {
            residue.cell.subtract(&self.item);
            changed(self.walk.cell());
            self.walk.step();
        }
    }
}

/// Takes apart the difference between a peer's cells and ours.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The tables compared, by what stands for them in a cell.
    tables: Vec<(u32, Table)>,
    cells: Vec<Residue>,
    /// At most one a cell.
    found: Vec<Found>,
    hopeless: bool,
}

impl Decoder {
    /// Of a comparison of these tables together.
    pub(super) fn new(tables: impl IntoIterator<Item = Table>) -> Decoder {
        let marked = tables.into_iter().map(|table| (low_half(table.as_u64()), table));
        let mut tables: Vec<_> = marked.collect();
        tables.sort_unstable();
        Decoder { tables, cells: Vec::new(), found: Vec::new(), hopeless: false }
    }

    /// The number of the cell that has to come next.
    pub(super) fn next_cell(&self) -> usize {
        self.cells.len()
    }

    /// Takes in the peer's next cells and ours of the same numbers.
    pub(super) fn feed(&mut self, theirs: &[Cell], ours: &[Cell]) -> Progress {
        assert_eq!(theirs.len(), ours.len(), "the caller makes as many as the peer sent");
        let first = self.cells.len();
        self.hopeless |= first + theirs.len() > MAX_SKETCH_CELLS;
        if self.hopeless {
            return Progress::Hopeless;
        }
        self.cells.extend(ours.iter().zip(theirs).map(|(ours, theirs)| {
            let mut cell = *ours;
            cell.subtract(theirs);
            Residue { cell, peeled: false }
        }));
        for found in &mut self.found {
            found.take_out(&mut self.cells, |_| {});
        }
        self.hopeless |= !self.peel((first..self.cells.len()).rev().collect());
        self.progress()
    }

    /// Section 3: an entry that is alone in a cell is taken out of all its cells, which may leave
    /// others alone. Looks at these cells, the last first, and at all that it changes; says whether
    /// nothing was contradictory.
    fn peel(&mut self, mut looks: Vec<usize>) -> bool {
        while let Some(at) = looks.pop() {
            let Some((entry, walk)) = self.alone_in(at) else { continue };
            // In cells that were not tampered with, an entry that has been taken out is nowhere,
            // and where one was alone there is no other. This is what makes an end: each cell
            // gives one entry at most, and each entry is taken out once.
            let known = self.found.iter().any(|found| found.entry == entry);
            let Residue { cell: item, peeled } = &mut self.cells[at];
            if known || std::mem::replace(peeled, true) {
                return false;
            }
            let mut found = Found { entry, item: *item, walk };
            found.take_out(&mut self.cells, |changed| looks.push(changed));
            self.found.push(found);
            assert!(self.found.len() <= self.cells.len(), "each cell gives one entry at most");
        }
        true
    }

    /// The entry that is alone in a cell, if it is one that belongs there.
    fn alone_in(&self, at: usize) -> Option<(Entry, Walk)> {
        let cell = &self.cells[at].cell;
        if !matches!(cell.count, -1 | 1) {
            return None;
        }
        let id = NodeId::from_u64(cell.id)?;
        let stamp = Stamp { number: cell.stamp, print: cell.print };
        let from = self.tables.partition_point(|(mark, _)| *mark < cell.scope);
        let tables = self.tables[from..].iter().take_while(|(mark, _)| *mark == cell.scope);
        tables.map(|(_, table)| *table).find_map(|table| {
            let hash = entry_hash(table, id, stamp);
            let walk = Walk::of(hash);
            let alone = low_half(hash) == cell.check && walk.clone().meets(at);
            alone.then_some(((table, id, stamp), walk))
        })
    }

    fn progress(&self) -> Progress {
        let complete = !self.cells.is_empty() && self.cells.iter().all(|it| it.cell.is_zero());
        if self.hopeless || (!complete && self.cells.len() == MAX_SKETCH_CELLS) {
            return Progress::Hopeless;
        }
        if !complete {
            return Progress::More;
        }
        let mut decoded = Decoded::default();
        for Found { entry, item, .. } in &self.found {
            let side = if item.count > 0 { &mut decoded.ours } else { &mut decoded.theirs };
            side.push(*entry);
        }
        decoded.ours.sort_unstable();
        decoded.theirs.sort_unstable();
        Progress::Decoded(decoded)
    }
}

#[cfg(test)]
mod tests;
