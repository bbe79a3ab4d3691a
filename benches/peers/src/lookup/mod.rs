//! The lookup table: what it costs to read who plays a role, beside other maps that threads share.

mod chart;
mod contenders;
mod data;
mod ets;
mod ours;
mod pin;
mod publishing;
mod reading;
mod report;
mod watched;
mod writing;

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::contenders::{Contender, Table};
use self::data::Data;
use self::reading::{BATCH_LOOKUPS, Companion, Reading};
use self::report::Figure;
use crate::heap::HeapCounts;
use crate::report::rounded;

/// How many nodes there are where all of them are asked for.
const ALL_NODES: [usize; 3] = [1_000, 10_000, 100_000];

#[derive(Args)]
pub(crate) struct Options {
    /// How many roles there are.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 100_000],
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    roles: Vec<u32>,
    /// What is measured; all of it by default.
    #[arg(long, value_delimiter = ',')]
    settings: Vec<Setting>,
    /// Who takes part beside `hashmap`, which all are compared with; all by default.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// How many turns each contender has.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Write all figures to this file, as one JSON array.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draw the ratios of one reader to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Run the same lookup in Erlang too: `erl` and `erlc` are needed.
    #[arg(long)]
    ets: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Setting {
    /// One reader, and nobody else.
    #[value(name = "1-reader")]
    OneReader,
    /// The measured reader, and another one that looks up the same.
    #[value(name = "2-readers")]
    TwoReaders,
    /// One reader, and 1,000 updates per second.
    #[value(name = "writer-1000")]
    Writer1000,
    /// One reader, and 100,000 updates per second.
    #[value(name = "writer-100000")]
    Writer100000,
    /// What an update costs.
    Update,
    /// The longest single lookup beside 100,000 updates per second.
    Pin,
    /// The set of all nodes.
    AllNodes,
    /// Nodes that join, and roles that change at once.
    Join,
}

impl Setting {
    fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    /// What happens beside the measured reader, if this is about reading.
    fn companion(self) -> Option<Companion> {
        match self {
            Setting::OneReader => Some(Companion::Sleeps),
            Setting::TwoReaders => Some(Companion::Reads),
            Setting::Writer1000 => Some(Companion::Writes(Duration::from_millis(1))),
            Setting::Writer100000 => Some(Companion::Writes(Duration::from_micros(10))),
            Setting::Update | Setting::Pin | Setting::AllNodes | Setting::Join => None,
        }
    }
}

/// One table with the contender that reads it, and the bytes it asked for.
struct Entry {
    contender: Contender,
    table: Box<dyn Table>,
    bytes: i64,
}

/// Runs what the options ask for.
pub(crate) fn run(options: &Options) -> ExitCode {
    match measure_and_write(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

fn measure_and_write(options: &Options) -> Result<(), String> {
    // Before a long run, without touching what is there.
    for path in [&options.json, &options.svg].into_iter().flatten() {
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let figures = measure(options)?;
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&figures).expect("figures are plain");
        fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &options.svg {
        chart::draw(path, &figures).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn measure(options: &Options) -> Result<Vec<Figure>, String> {
    let rounds = options.rounds as usize;
    let mut figures = Vec::new();
    for &roles in &options.roles {
        figures.extend(of_size(options, roles as usize));
        if options.ets {
            let is_floor = |one: &&Figure| {
                one.roles == roles as usize
                    && one.setting == Setting::OneReader.name()
                    && one.contender == Contender::FLOOR.name()
            };
            let floor = figures.iter().find(is_floor).map(|floor| floor.p50_ns);
            let found =
                ets::measure(roles as usize, floor).map_err(|error| format!("--ets: {error}"))?;
            print(std::slice::from_ref(&found));
            figures.push(found);
        }
    }
    if options.wants(Setting::AllNodes) {
        for nodes in ALL_NODES {
            let found = publishing::all_nodes(nodes, rounds.min(100));
            found.chunk_by(|a, b| a.setting == b.setting).for_each(print);
            figures.extend(found);
        }
    }
    if options.wants(Setting::Join) {
        let found = publishing::join(rounds.min(10));
        found.chunk_by(|a, b| a.setting == b.setting).for_each(print);
        figures.extend(found);
    }
    Ok(figures)
}

fn print(figures: &[Figure]) {
    println!("{}", report::table(figures));
}

impl Options {
    fn wants(&self, setting: Setting) -> bool {
        self.settings.is_empty() || self.settings.contains(&setting)
    }

    fn contenders(&self) -> Vec<Contender> {
        let others = Contender::value_variants().iter().copied();
        let asked = |contender: &Contender| {
            *contender != Contender::FLOOR
                && (self.contenders.is_empty() || self.contenders.contains(contender))
        };
        std::iter::once(Contender::FLOOR).chain(others.filter(asked)).collect()
    }
}

/// All that depends on the number of roles.
fn of_size(options: &Options, roles: usize) -> Vec<Figure> {
    let data = Data::new(roles);
    let rounds = options.rounds as usize;
    let mut figures = Vec::new();
    let reading: Vec<Setting> = Setting::value_variants()
        .iter()
        .copied()
        .filter(|setting| setting.companion().is_some() && options.wants(*setting))
        .collect();
    if reading.is_empty() && !options.wants(Setting::Update) && !options.wants(Setting::Pin) {
        return figures;
    }
    let entries: Vec<Entry> =
        options.contenders().into_iter().map(|one| Entry::new(one, &data)).collect();
    figures.extend(of_reading(&data, &entries, &reading, rounds));
    if options.wants(Setting::Update) {
        figures.extend(of_writing(&data, &entries, rounds));
    }
    let ours = entries.iter().find(|entry| entry.contender == Contender::WithNodesStr);
    if options.wants(Setting::Pin)
        && let Some(ours) = ours
    {
        let found = pin::measure(&data, &*ours.table, rounds.min(200));
        print(&found);
        figures.extend(found);
    }
    figures
}

impl Entry {
    fn new(contender: Contender, data: &Data) -> Entry {
        let before = HeapCounts::now().bytes;
        let table = contender.build(data);
        Entry { contender, table, bytes: HeapCounts::now().bytes - before }
    }

    /// Bytes that the table asked for, per role; a watch has no table.
    #[expect(clippy::cast_precision_loss, reason = "no machine has that much")]
    fn bytes_per_role(&self, data: &Data) -> Option<f64> {
        let has_table = self.contender != Contender::Watch;
        has_table.then(|| rounded(self.bytes as f64 / data.len() as f64))
    }
}

fn of_reading(data: &Data, entries: &[Entry], settings: &[Setting], rounds: usize) -> Vec<Figure> {
    let tables: Vec<&dyn Table> = entries.iter().map(|entry| &*entry.table).collect();
    let companions: Vec<Companion> =
        settings.iter().filter_map(|setting| setting.companion()).collect();
    let mut figures = Vec::new();
    let all = reading::measure(data, &tables, &companions, rounds);
    for (setting, readings) in settings.iter().zip(&all) {
        let floor = &readings[0].nanos;
        let found: Vec<Figure> = entries
            .iter()
            .zip(readings)
            .map(|(entry, reading)| of_reader(data, entry, *setting, reading, floor))
            .collect();
        print(&found);
        figures.extend(found);
    }
    figures
}

#[expect(clippy::cast_precision_loss, reason = "few")]
fn of_reader(
    data: &Data,
    entry: &Entry,
    setting: Setting,
    reading: &Reading,
    floor: &[f64],
) -> Figure {
    let (name, nanos) = (entry.contender.name(), &reading.nanos);
    let rate = (!reading.writing.is_zero())
        .then(|| (reading.updates as f64 / reading.writing.as_secs_f64()).round());
    let figure = Figure::new(&name, data.len(), &setting.name(), nanos)
        .beside(floor, nanos)
        .with("lookups", nanos.len() * BATCH_LOOKUPS)
        .with("reader_allocations", reading.allocations)
        .with("reader_frees", reading.frees);
    match setting {
        Setting::OneReader => figure.with("bytes_per_role", entry.bytes_per_role(data)),
        Setting::Writer1000 | Setting::Writer100000 => figure.with("updates_per_s", rate),
        _ => figure,
    }
}

fn of_writing(data: &Data, entries: &[Entry], rounds: usize) -> Vec<Figure> {
    let writable = |entry: &&Entry| entry.contender.table_name().is_some();
    let entries: Vec<&Entry> = entries.iter().filter(writable).collect();
    if entries.is_empty() {
        return Vec::new();
    }
    let tables: Vec<&dyn Table> = entries.iter().map(|entry| &*entry.table).collect();
    let all = writing::measure(data, &tables, rounds.min(100));
    let mut figures = Vec::new();
    for at_once in [false, true] {
        let times = |writing: &writing::Writing| {
            if at_once { writing.at_once.clone() } else { writing.single.clone() }
        };
        let setting = if at_once { "update-100-at-once" } else { "update" };
        let floor = entries.iter().position(|entry| entry.contender == Contender::RwlockStd);
        let floor = floor.map(|index| times(&all[index]));
        let figure = |(entry, writing): (&&Entry, &writing::Writing)| {
            let name = entry.contender.table_name().expect("filtered above");
            let times = times(writing);
            let mut figure = Figure::new(&name, data.len(), setting, &times);
            if let Some(floor) = &floor {
                figure = figure.beside(floor, &times);
            }
            if at_once { figure } else { figure.with("sustained_per_s", writing.sustained.round()) }
        };
        let found: Vec<Figure> = entries.iter().zip(&all).map(figure).collect();
        print(&found);
        figures.extend(found);
    }
    figures
}
