//! The real file over loom's primitives and a scheme of reclamation that two readers can afford.

mod sync {
    pub(super) use crate::over_loom::*;
    pub(super) use crate::standin::{Collector, Guard, LocalHandle};
}

#[path = "../../../../src/view/epoch_map.rs"]
#[expect(dead_code, reason = "the cases need only part of it")]
mod epoch_map;

#[path = "../../../../src/view/guard.rs"]
mod guard;

#[path = "cases.rs"]
pub(crate) mod cases;
