//! Figures, as tables and as JSON.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::report::rounded;

/// What was measured of one contender, at one size, in one setting.
#[derive(Clone, Serialize)]
pub(super) struct Figure {
    pub(super) contender: String,
    pub(super) roles: usize,
    pub(super) setting: String,
    /// Of batches' means where many were timed at once.
    pub(super) p50_ns: f64,
    pub(super) p99_ns: f64,
    /// By the median of what the setting compares with; `None` if there is no such thing.
    pub(super) ratio_to_floor: Option<f64>,
    #[serde(flatten)]
    pub(super) more: Map<String, Value>,
}

impl Figure {
    /// Of sorted times in nanoseconds.
    pub(super) fn new(contender: &str, roles: usize, setting: &str, nanos: &[f64]) -> Figure {
        Figure {
            contender: contender.to_owned(),
            roles,
            setting: setting.to_owned(),
            p50_ns: rounded(at_share(nanos, 0.5)),
            p99_ns: rounded(at_share(nanos, 0.99)),
            ratio_to_floor: None,
            more: Map::new(),
        }
    }

    pub(super) fn beside(mut self, floor: &[f64], nanos: &[f64]) -> Figure {
        self.ratio_to_floor = Some(rounded(at_share(nanos, 0.5) / at_share(floor, 0.5)));
        self
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Figure {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    fn cell(&self, key: &str) -> String {
        match self.more.get(key) {
            None | Some(Value::Null) => "-".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        }
    }
}

/// The time below which this share of the sorted times lies; it is one of them.
pub(super) fn at_share(sorted: &[f64], share: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "few")]
    #[expect(clippy::cast_sign_loss, reason = "shares are positive")]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// One table for the figures of one size and setting.
pub(super) fn table(figures: &[Figure]) -> String {
    let Some(first) = figures.first() else { return String::new() };
    let mut keys: Vec<&String> = Vec::new();
    for key in figures.iter().flat_map(|figure| figure.more.keys()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut text = format!("\n{}, {} roles\n", first.setting, first.roles);
    let _ = write!(text, "{:<20} {:>12} {:>12} {:>9}", "contender", "p50_ns", "p99_ns", "ratio");
    for key in &keys {
        let _ = write!(text, "  {key}");
    }
    for figure in figures {
        let ratio = figure.ratio_to_floor.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let (p50, p99) = (figure.p50_ns, figure.p99_ns);
        let _ = write!(text, "\n{:<20} {p50:>12.1} {p99:>12.1} {ratio:>9}", figure.contender);
        for key in &keys {
            let _ = write!(text, "  {:>1$}", figure.cell(key), key.len());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_times_that_occurred() {
        let times: Vec<f64> = (1..=100).map(f64::from).collect();
        let found = [0.5, 0.99, 1.0].map(|share| at_share(&times, share).to_string());
        assert_eq!(found, ["50", "99", "100"]);
        assert!(at_share(&[], 0.5).is_nan());
    }

    #[test]
    fn json_has_the_common_keys_first() {
        let figure = Figure::new("papaya", 10, "1-reader", &[2.0]).beside(&[1.0], &[2.0]);
        let json = serde_json::to_string(&figure.with("frees", 0)).expect("it is plain");
        let expected = r#"{"contender":"papaya","roles":10,"setting":"1-reader","p50_ns":2.0,"#;
        assert_eq!(json, format!(r#"{expected}"p99_ns":2.0,"ratio_to_floor":2.0,"frees":0}}"#));
    }
}
