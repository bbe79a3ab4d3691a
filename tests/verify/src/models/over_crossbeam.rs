//! The real file over loom's primitives and the real crossbeam-epoch, which has loom's inside too.

mod sync {
    pub(super) use crate::over_loom::*;
    pub(super) use crossbeam_epoch::{Collector, Guard, LocalHandle};
}

#[path = "../../../../src/view/epoch_map.rs"]
#[expect(dead_code, reason = "the cases need only part of it")]
mod epoch_map;

#[path = "../../../../src/view/guard.rs"]
mod guard;

#[path = "cases.rs"]
pub(crate) mod cases;
