//! Every node's tuning: a preset, and the knobs that are turned.

use std::fmt::Write;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use documented::DocumentedFields;
use rolecall::Config;
use toml::{Table, Value};

/// A preset with some knobs turned.
#[derive(Args, Clone, Debug)]
pub(crate) struct Tuning {
    /// Where every knob stands at first: for one machine, one data centre, or far apart
    #[arg(long, value_enum, default_value = "lan", help_heading = "Tuning")]
    preset: Preset,
    /// Turn a knob of `rolecall config`, for example `gossip_fanout=5`; repeatable
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Tuning")]
    set: Vec<Assignment>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Preset {
    Local,
    Lan,
    Wan,
}

/// A key of the configuration and its new value, known to be of the right type.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    key: &'static str,
    value: Value,
}

impl Tuning {
    /// The configuration, with one more knob turned if there is one to turn. What was asked for
    /// comes after `tune`.
    pub(crate) fn config(
        &self,
        last: Option<&Assignment>,
        tune: impl FnOnce(&mut Config),
    ) -> Result<Config, String> {
        let mut config = match self.preset {
            Preset::Local => Config::local(),
            Preset::Lan => Config::lan(),
            Preset::Wan => Config::wan(),
        };
        tune(&mut config);
        for assignment in self.set.iter().chain(last) {
            config = assignment.applied_to(&config)?;
        }
        config.validate().map_err(|error| error.to_string())?;
        Ok(config)
    }

    /// What was asked for, as it is written on the command line.
    pub(crate) fn words(&self) -> String {
        let preset = self.preset.to_possible_value().expect("no preset is hidden");
        let mut words = format!("preset {}", preset.get_name());
        for Assignment { key, value } in &self.set {
            let _ = write!(words, ", {key} = {}", plain(value));
        }
        words
    }
}

impl Assignment {
    /// Whether the key exists and its value is of the right type; the range is for
    /// [`Config::validate`], which sees all knobs together.
    pub(crate) fn new(key: &str, value: &str) -> Result<Assignment, String> {
        let known = Config::FIELD_NAMES.iter().find(|known| **known == key);
        let key = known.ok_or_else(|| unknown(key))?;
        let assignment = Assignment { key, value: parse(value) };
        assignment.applied_to(&Config::lan())?;
        Ok(assignment)
    }

    pub(crate) fn key(&self) -> &'static str {
        self.key
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    fn applied_to(&self, config: &Config) -> Result<Config, String> {
        let mut table = Table::try_from(config).expect("a configuration is a table");
        table.insert(self.key.into(), self.value.clone());
        table.try_into().map_err(|error: toml::de::Error| {
            let meaning = Config::get_field_docs(self.key).unwrap_or_default().replace('\n', " ");
            format!("{}\n\n{}: {meaning}", error.message(), self.key)
        })
    }
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Assignment, String> {
        let (key, value) = text.split_once('=').ok_or("it must be KEY=VALUE")?;
        Assignment::new(key.trim(), value.trim())
    }
}

/// A value as TOML has it; whatever is no TOML, such as a bare `500ms`, is a string.
fn parse(text: &str) -> Value {
    let table = format!("it = {text}").parse::<Table>();
    let mut table = table.ok().filter(|table| table.len() == 1);
    let value = table.as_mut().and_then(|table| table.remove("it"));
    value.unwrap_or_else(|| Value::String(text.into()))
}

/// A value as people write it: strings without quotes.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

fn unknown(key: &str) -> String {
    let all = Config::FIELD_NAMES;
    let likeness = |known: &&&str| strsim::jaro_winkler(key, known);
    let nearest = all.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let guess = nearest.filter(|known| likeness(known) > 0.8);
    let guess = guess.map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
    format!("there is no key `{key}`{guess}\n\nThe keys are: {}", all.join(", "))
}
