//! The published view does what a model of std maps does, for random operations.

#[path = "support/view_model.rs"]
mod view_model;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn the_view_does_what_the_model_does(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        view_model::run(&view_model::decode(&bytes));
    }
}
