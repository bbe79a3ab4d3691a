//! Rows of figures, as a table or as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

/// The same in all rows of a table: they go above it.
const COMMON: [&str; 3] = ["scenario", "nodes", "seed"];

/// The figures of one system.
#[derive(Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Row(Map<String, Value>);

impl Row {
    pub(crate) fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    pub(crate) fn number(&self, key: &str) -> f64 {
        self.0[key].as_f64().expect("it was put as a number")
    }
}

/// Prints a table with one row for each.
pub(crate) fn table(rows: &[Row]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let keys: Vec<&String> = first.0.keys().filter(|key| !is_common(key)).collect();
    let cell = |row: &Row, key: &str| match &row.0[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let mut text = String::new();
    for key in COMMON {
        let _ = write!(text, "{key} {}  ", cell(first, key));
    }
    text.push('\n');
    for key in &keys {
        let _ = write!(text, "{:>1$}  ", key, width(rows, key, cell));
    }
    for row in rows {
        text.push('\n');
        for key in &keys {
            let _ = write!(text, "{:>1$}  ", cell(row, key), width(rows, key, cell));
        }
    }
    text
}

fn is_common(key: &str) -> bool {
    COMMON.contains(&key)
}

fn width(rows: &[Row], key: &str, cell: impl Fn(&Row, &str) -> String) -> usize {
    let cells = rows.iter().map(|row| cell(row, key).len());
    cells.chain([key.len()]).max().unwrap_or_default()
}

/// The value below which this share of all lies; none of none.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> Option<Duration> {
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "few")]
    #[expect(clippy::cast_sign_loss, reason = "shares are positive")]
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied()
}

pub(crate) fn millis(time: Option<Duration>) -> Option<f64> {
    time.map(|time| rounded(time.as_secs_f64() * 1e3))
}

/// Three decimals are more than any figure here is worth.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut times: Vec<_> = (1..=100).rev().map(Duration::from_secs).collect();
        let mut at = |share| percentile(&mut times, share).map(|time| time.as_secs());
        assert_eq!([at(0.5), at(0.99), at(1.0)], [Some(50), Some(99), Some(100)]);
        assert_eq!(percentile(&mut [], 0.5), None);
    }
}
