//! One coded symbol of a set of entries, as it travels.

use serde::{Deserialize, Serialize};

use super::codec;
use super::frame::{Stamp, Table};

/// One coded symbol: the sum of the entries mapped to it (Yang, Gilad and Alizadeh, "Practical
/// Rateless Set Reconciliation", SIGCOMM 2024, section 4). The cells of several tables add up to
/// those of the tables together; what they have in common cancels out in a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cell {
    /// The exclusive-or of the ids.
    #[serde(with = "postcard::fixint::le")]
    pub id: u64,
    /// The exclusive-or of the low halves of the scopes; zero for members.
    #[serde(with = "postcard::fixint::le")]
    pub scope: u32,
    /// The exclusive-or of the stamps' numbers.
    #[serde(with = "postcard::fixint::le")]
    pub stamp: u64,
    /// The exclusive-or of their prints.
    #[serde(with = "postcard::fixint::le")]
    pub print: u32,
    /// The exclusive-or of the low halves of the entries' hashes.
    #[serde(with = "postcard::fixint::le")]
    pub check: u32,
    /// How many entries; in a difference, less how many of the other side.
    pub count: i32,
}

/// Consecutive cells, as many as a frame holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cells(#[serde(deserialize_with = "codec::cells")] pub Vec<Cell>);

impl Cell {
    /// A cell of one table: of that many entries, whose ids, stamps and hashes are combined.
    pub(crate) fn of(table: Table, (id, stamp, check): (u64, Stamp, u64), count: i32) -> Cell {
        // An even number of times the same scope is nothing.
        let scope = if count & 1 == 0 { 0 } else { low_half(table.as_u64()) };
        let Stamp { number, print } = stamp;
        Cell { id, scope, stamp: number, print, check: low_half(check), count }
    }

    /// Adds the entries of another cell.
    pub fn combine(&mut self, other: &Cell) {
        self.mix(other);
        self.count = self.count.wrapping_add(other.count);
    }

    /// Takes the entries of another cell away.
    pub fn subtract(&mut self, other: &Cell) {
        self.mix(other);
        self.count = self.count.wrapping_sub(other.count);
    }

    fn mix(&mut self, other: &Cell) {
        self.id ^= other.id;
        self.scope ^= other.scope;
        self.stamp ^= other.stamp;
        self.print ^= other.print;
        self.check ^= other.check;
    }

    /// Whether nothing is in it.
    pub fn is_zero(&self) -> bool {
        *self == Cell::default()
    }
}

/// The half of a hash that cells carry.
pub(crate) fn low_half(bits: u64) -> u32 {
    u32::try_from(bits & 0xffff_ffff).expect("32 bits are left")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ScopeId;
    use crate::wire::limits::MAX_CELLS_PER_FRAME;

    const CELL: Cell = Cell {
        id: 0x0807_0605_0403_0201,
        scope: 0xa1,
        stamp: 0xb2,
        print: 0xd4,
        check: 0xc3,
        count: -2,
    };

    #[test]
    fn a_cell_is_28_bytes_and_a_count() {
        let mut bytes = postcard::to_stdvec(&CELL).unwrap();
        assert_eq!(bytes[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(bytes[8..12], [0xa1, 0, 0, 0]);
        assert_eq!(bytes[12..20], [0xb2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[20..24], [0xd4, 0, 0, 0]);
        assert_eq!(bytes[24..28], [0xc3, 0, 0, 0]);
        assert_eq!(bytes[28..], [3]);
        assert_eq!(postcard::from_bytes::<Cell>(&bytes), Ok(CELL));
        bytes.pop();
        assert!(postcard::from_bytes::<Cell>(&bytes).is_err());
        let most = Cell { count: i32::MIN, ..CELL };
        assert_eq!(postcard::to_stdvec(&most).unwrap().len(), 33);
    }

    #[test]
    fn a_frame_holds_so_many_cells_and_no_more() {
        let encoded = |len| postcard::to_stdvec(&Cells(vec![CELL; len])).unwrap();
        let most = postcard::from_bytes::<Cells>(&encoded(MAX_CELLS_PER_FRAME));
        assert_eq!(most, Ok(Cells(vec![CELL; MAX_CELLS_PER_FRAME])));
        assert!(postcard::from_bytes::<Cells>(&encoded(MAX_CELLS_PER_FRAME + 1)).is_err());
    }

    #[test]
    fn combining_and_subtracting_undo_each_other() {
        let other = Cell {
            count: i32::MIN,
            ..Cell::of(Table::Members, (1, Stamp { number: 2, print: 4 }, 3), 1)
        };
        let mut cell = CELL;
        cell.combine(&other);
        cell.subtract(&other);
        assert_eq!(cell, CELL);
        cell.subtract(&CELL);
        assert!(cell.is_zero());
    }

    #[test]
    fn a_scope_shows_in_cells_of_an_odd_number_of_entries() {
        let scope = ScopeId::of("s");
        let cell = |count| Cell::of(Table::Scope(scope), (0, Stamp::default(), 0), count).scope;
        assert_eq!((cell(0), cell(2), cell(-2)), (0, 0, 0));
        assert_eq!((cell(1), cell(-1), cell(7)), (low_half(scope.as_u64()), cell(1), cell(1)));
        assert_eq!(Cell::of(Table::Members, (0, Stamp::default(), 0), 1).scope, 0);
    }
}
