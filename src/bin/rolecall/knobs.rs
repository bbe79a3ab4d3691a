//! `rolecall config`: every knob, its meaning and where it stands.

use std::fmt::Write;

use clap::Args;
use documented::DocumentedFields;
use rolecall::Config;

use crate::tuning::Tuning;

/// Columns of the comments.
const WIDTH: usize = 90;

/// Print the configuration as TOML: every knob, its meaning and its value.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  rolecall config                                   the defaults, explained
  rolecall config --preset wan > rolecall.toml      a file to start from
  rolecall config --set gossip_fanout=5             with a knob turned, and checked")]
pub(crate) struct Knobs {
    #[command(flatten)]
    tuning: Tuning,
}

impl Knobs {
    /// The text, which reads back as the same configuration.
    pub(crate) fn text(&self) -> Result<String, String> {
        let config = self.tuning.config(None, |_| {})?;
        let values = toml::Table::try_from(&config).expect("a configuration is a table");
        let mut text = format!("# rolecall, {}\n", self.tuning.words());
        for (key, meaning) in Config::FIELD_NAMES.iter().zip(Config::FIELD_DOCS) {
            text.push('\n');
            for line in wrapped(meaning) {
                let _ = writeln!(text, "# {line}");
            }
            let _ = writeln!(text, "{key} = {}", values[*key]);
        }
        Ok(text)
    }
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.into());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines
}
