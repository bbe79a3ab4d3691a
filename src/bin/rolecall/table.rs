//! Figures as a person reads them.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::Value;

use crate::job::Outcome;

/// Columns of a table with words in it.
const WIDTH: u16 = 100;

/// Where there is no value.
pub(crate) const NONE: &str = "–";

/// A row for each figure.
pub(crate) fn report(outcome: &Outcome) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(["figure", "value", "unit", "meaning"]);
    for (name, meaning) in &outcome.figures {
        table.add_row([*name, &outcome.text(name), unit(name), &meaning.replace('\n', " ")]);
    }
    let values = table.column_mut(1).expect("there are four columns");
    values.set_cell_alignment(CellAlignment::Right);
    let title = |key: &str| outcome.text(key);
    table.add_row(["virtual_s", &title("virtual_s"), "s", "Simulated time, of all trials."]);
    table.add_row(["wall_s", &title("wall_s"), "s", "Real time."]);
    table
}

/// A row for each value of a knob, a column for each figure.
pub(crate) fn sweep<'a>(key: &str, rows: impl Iterator<Item = (String, &'a Outcome)>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    for (value, outcome) in rows {
        let names = || outcome.figures.iter().map(|(name, _)| *name);
        table.set_header(std::iter::once(key).chain(names()));
        table.add_row(std::iter::once(value).chain(names().map(|name| outcome.text(name))));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A row for each of some kinds of things, and how often it happened.
pub(crate) fn exercised(groups: &[(&str, &[(&str, u64)])]) -> Table {
    let rows = groups.iter().flat_map(|(group, counts)| {
        let row = |(kind, count): &(&str, u64)| {
            vec![(*group).to_string(), (*kind).to_string(), grouped(&count.to_string())]
        };
        counts.iter().map(row)
    });
    plain(["", "kind", "times"].iter(), rows, 2)
}

/// A table whose first columns are words, and the others numbers.
pub(crate) fn plain<'a>(
    header: impl Iterator<Item = &'a &'a str>,
    rows: impl Iterator<Item = Vec<String>>,
    words: usize,
) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A value as people write it; a dash for none.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => NONE.into(),
        Value::Number(it) if it.is_f64() => number(it.as_f64().unwrap_or(f64::NAN)),
        Value::Number(it) => grouped(&it.to_string()),
        Value::String(it) => it.clone(),
        other => other.to_string(),
    }
}

/// Four digits or more, thousands apart.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        large if large >= 1000.0 => 0,
        large if large >= 100.0 => 1,
        large if large >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    match text.split_once('.') {
        Some((whole, part)) => {
            let part = part.trim_end_matches('0');
            let point = if part.is_empty() { "" } else { "." };
            format!("{}{point}{part}", grouped(whole))
        }
        None => grouped(&text),
    }
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        let left = digits.len() - at;
        if left.is_multiple_of(3) && text.ends_with(|c: char| c.is_ascii_digit()) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// To the millisecond, if it is seconds.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Figures carry their unit in their name.
pub(crate) fn unit(name: &str) -> &'static str {
    let bytes = name.contains("bytes");
    match name {
        _ if name.ends_with("_ms") => "ms",
        _ if name.contains("_us_") => "µs/s",
        _ if bytes && name.ends_with("_s") => "B/s",
        _ if bytes => "B",
        _ if name.ends_with("_per_node_s") => "1/s",
        _ => "",
    }
}

/// A share of a whole.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(crate) fn ratio(part: usize, of: usize) -> f64 {
    part as f64 / of as f64
}
