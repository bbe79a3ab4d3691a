//! An axis of a picture: linear or logarithmic, with round numbers at its ticks.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::table;

/// Values further apart than this are shown on a logarithmic axis.
const DECADES: f64 = 100.0;

/// From the smallest to the largest value, with some room.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    pub(crate) fn linear(low: f64, high: f64) -> Axis {
        let high = if high > low { high } else { low + 1.0 };
        Axis { low, high, logarithmic: false }
    }

    /// Shows these values, whatever they are: logarithmic if they span decades.
    pub(crate) fn of(values: impl Iterator<Item = f64> + Clone) -> Axis {
        let high = values.clone().fold(0.0, f64::max);
        let low = values.filter(|value| *value > 0.0).fold(high, f64::min);
        if low > 0.0 && high / low >= DECADES {
            return Axis { low: low / 1.2, high: high * 1.5, logarithmic: true };
        }
        // Zero is on it, unless that would press all values together at the other end.
        let low = if low > 0.5 * high { low - 0.2 * (high - low) } else { 0.0 };
        Axis::linear(low, high + 0.08 * (high - low))
    }

    pub(crate) fn high(&self) -> f64 {
        self.high
    }

    /// Where a value is, from 0 to 1 along the axis.
    fn place(&self, value: f64) -> f64 {
        let at = |value: f64| if self.logarithmic { value.log10() } else { value };
        let value = value.clamp(self.low, self.high);
        (at(value) - at(self.low)) / (at(self.high) - at(self.low))
    }

    /// At most so many round numbers, the densest of 1, 2 and 5 times a power of ten that fit.
    fn ticks(&self, most: usize) -> Vec<f64> {
        let decades = (self.low.max(1e-9).log10().floor(), self.high.max(1e-9).log10().ceil());
        let decade = |from: f64| std::iter::successors(Some(from), |n| Some(n + 1.0));
        if self.logarithmic {
            let within = |mantissas: &'static [f64]| {
                let decades = decade(decades.0).take_while(|n| *n <= decades.1);
                let all = decades.flat_map(|n| mantissas.iter().map(move |m| m * 10_f64.powf(n)));
                all.filter(|tick| (self.low..=self.high).contains(tick)).collect::<Vec<_>>()
            };
            let dense = within(&[1.0, 2.0, 5.0]);
            return if dense.len() <= most { dense } else { within(&[1.0]) };
        }
        let span = self.high - self.low;
        let steps = decade(span.log10().floor() - 2.0);
        let mut steps = steps.flat_map(|n| [1.0, 2.0, 5.0].map(|m| m * 10_f64.powf(n)));
        let most = u32::try_from(most.max(2)).unwrap_or(u32::MAX);
        let step = steps.find(|step| span / step < f64::from(most)).expect("steps grow");
        let first = (self.low / step).ceil();
        decade(first).map(|n| n * step).take_while(|tick| *tick <= self.high).collect()
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    #[expect(clippy::cast_possible_truncation, reason = "pixels")]
    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (self.place(*value) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.ticks(hint.bold_points())
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        table::number(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_not_too_many() {
        assert_eq!(Axis::linear(0.0, 100.0).ticks(6), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(Axis::linear(0.0, 7.1).ticks(8), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let of = |values: &[f64]| Axis::of(values.iter().copied()).ticks(9);
        assert_eq!(of(&[3.0, 300.0]), [5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        assert_eq!(of(&[0.0, 2.0, 3e5]), [10.0, 100.0, 1e3, 1e4, 1e5]);
        assert_eq!(of(&[700.0, 1000.0]), [650.0, 700.0, 750.0, 800.0, 850.0, 900.0, 950.0, 1000.0]);
        for odd in [&[][..], &[0.0], &[5.0]] {
            assert!((2..=9).contains(&of(odd).len()), "{odd:?}: {:?}", of(odd));
        }
    }
}
