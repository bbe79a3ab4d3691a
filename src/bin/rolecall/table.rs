//! Figures as a person reads them.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::Value;

use crate::job::Outcome;
use crate::tuning::Tuning;

/// Columns of a table with words in it.
const WIDTH: u16 = 100;

/// A title, and a row for each figure.
pub(crate) fn report(outcome: &Outcome, tuning: &Tuning) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(["figure", "value", "unit", "meaning"]);
    for (name, meaning) in &outcome.figures {
        let value = outcome.report.get(*name).unwrap_or(&Value::Null);
        table.add_row([*name, &text(value), unit(name), &meaning.replace('\n', " ")]);
    }
    let values = table.column_mut(1).expect("there are four columns");
    values.set_cell_alignment(CellAlignment::Right);
    format!("{}\n{table}\n", title(outcome, tuning))
}

/// What was run, in a line.
pub(crate) fn title(outcome: &Outcome, tuning: &Tuning) -> String {
    let of = |key: &str| outcome.report.get(key).map(text).unwrap_or_default();
    let per_cent = outcome.report.get("loss").and_then(Value::as_f64).unwrap_or_default() * 100.0;
    let scenario = outcome.report.get("scenario").and_then(Value::as_str).unwrap_or_default();
    format!(
        "{scenario}: {} nodes, {} trial{}, seed {}, loss {} %, {}; {} s of virtual time in {} s",
        of("nodes"),
        of("trials"),
        if of("trials") == "1" { "" } else { "s" },
        outcome.report.get("seed").unwrap_or(&Value::Null),
        number(per_cent),
        tuning.words(),
        of("virtual_s"),
        of("wall_s"),
    )
}

/// A value as people write it; a dash for none.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
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
        if left % 3 == 0 && text.ends_with(|c: char| c.is_ascii_digit()) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
