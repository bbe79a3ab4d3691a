//! The command `rolecall`: what it prints, and what it says to bad arguments.
#![cfg(feature = "cli")]

use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

use rolecall::Config;
use serde_json::{Map, Value};

const COMMON: [&str; 7] = ["scenario", "nodes", "trials", "seed", "loss", "wall_s", "virtual_s"];

/// The keys of each scenario, as they are promised to programs that read them.
const SCENARIOS: [(&str, &[&str]); 17] = [
    (
        "steady",
        &[
            "bytes_per_node_s",
            "datagrams_per_node_s",
            "false_suspicions",
            "false_downs",
            "heap_bytes_per_pair",
            "cpu_us_per_node_s",
        ],
    ),
    ("spread", &["p50_ms", "p99_ms", "max_ms", "missed", "bytes_per_node", "datagrams_per_node"]),
    ("crash", &CRASH),
    ("crash --victims 3 --adjacent", &CRASH),
    (
        "join",
        &[
            "known_by_all_p50_ms",
            "known_by_all_p99_ms",
            "knows_all_p50_ms",
            "knows_all_p99_ms",
            "bytes_total",
        ],
    ),
    ("storm", &["all_converged_ms", "p99_converged_ms", "bytes_per_node"]),
    ("anomaly --concurrent 2", &["fp", "fp_healthy", "messages", "bytes"]),
    ("pauses --duration 20s", &["pauses", "false_downs", "suspicions", "bytes_per_node_s"]),
    ("links --duration 20s", &LINKS),
    ("links --duration 20s --fault mute --faulty 20%", &LINKS),
    ("links --duration 45s --fault flapping", &LINKS),
    (
        "links --duration 20s --fault apart --faulty 30%",
        &["healthy_downs", "reached_indirectly", "suspicions", "bytes_per_node_s"],
    ),
    ("partition --duration 5s", &["agreed_ms", "lost_updates"]),
    ("churn --duration 10s", &["lost_updates", "false_downs", "max_disagreement_ms"]),
    (
        "changes --duration 2s --rate 50",
        &[
            "known_p50_ms",
            "known_p99_ms",
            "known_max_ms",
            "late_by_node_p50_ms",
            "late_by_node_max_ms",
            "caught_up_ms",
            "bytes_per_node_s",
            "bytes_per_change_and_node",
            "changes",
            "lost_updates",
            "false_downs",
            "apart",
        ],
    ),
    (
        "repair --differences 3",
        &[
            "agreed_ms",
            "agreed_max_ms",
            "bytes_total",
            "bytes_total_max",
            "datagrams_there",
            "datagrams_there_max",
            "datagrams_back",
            "datagrams_back_max",
            "differences",
            "apart",
        ],
    ),
    ("spread --dead 20% --via gossip", &["p50_ms", "missed", "bytes_per_node"]),
];

const CRASH: [&str; 8] = [
    "first_p50_ms",
    "first_p99_ms",
    "all_p50_ms",
    "all_p99_ms",
    "all_max_ms",
    "batches_p50",
    "batches_max",
    "false_downs",
];

const LINKS: [&str; 7] = [
    "healthy_downs",
    "healthy_downs_at_faulty",
    "faulty_down_p50_ms",
    "faulty_downs_max",
    "faulty_downs_p50",
    "suspicions",
    "bytes_per_node_s",
];

/// What `anomaly --threshold` has beside that.
const THRESHOLD: [&str; 4] = ["first_p50_ms", "first_p99_ms", "full_p50_ms", "full_p99_ms"];

/// Figures that depend on the machine, not on the seed alone.
const OF_THE_MACHINE: [&str; 3] = ["wall_s", "heap_bytes_per_pair", "cpu_us_per_node_s"];

fn rolecall(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rolecall"));
    command.args(line.split_whitespace());
    command
}

fn output(line: &str) -> Output {
    rolecall(line).output().expect("it runs")
}

#[track_caller]
fn stdout(line: &str) -> String {
    let output = output(line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "rolecall {line}: {stderr}");
    assert_eq!(stderr, "", "rolecall {line}");
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

/// The one object that is printed.
#[track_caller]
fn json(line: &str) -> Map<String, Value> {
    let text = stdout(line);
    assert_eq!(text.lines().count(), 1, "rolecall {line}: {text}");
    serde_json::from_str(&text).expect("one object")
}

/// What stays the same when the seed does.
fn of_the_seed(mut report: Map<String, Value>) -> Map<String, Value> {
    report.retain(|key, _| !OF_THE_MACHINE.contains(&key.as_str()));
    report
}

/// Bad arguments end with code 2, print nothing, and are named.
#[track_caller]
fn assert_refused(line: &str, culprits: &[&str]) {
    let output = output(line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "rolecall {line}: {stderr}");
    assert_eq!(output.stdout, b"", "rolecall {line}");
    assert!(stderr.starts_with("error: "), "rolecall {line}: {stderr}");
    assert!(!stderr.contains("panicked"), "rolecall {line}: {stderr}");
    for culprit in culprits {
        assert!(stderr.contains(culprit), "rolecall {line}: no {culprit} in: {stderr}");
    }
}

fn temporary(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[track_caller]
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "unescaped: {part}");
        let name = tag.split_whitespace().next().expect("a tag has a name");
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{part}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(svg.starts_with("<svg ") && open.is_empty(), "{open:?}");
}

/// The scenario that a line runs.
fn name_of(line: &str) -> &str {
    line.split(' ').next().expect("a line has a word")
}

#[test]
fn every_scenario_has_its_keys() {
    for (line, own) in SCENARIOS {
        let name = name_of(line);
        let report = json(&format!("sim {line} --nodes 6 --trials 2 --seed 3 --loss 0.01 --json"));
        for key in COMMON.iter().chain(own) {
            let value = report.get(*key).unwrap_or_else(|| panic!("{name} has no {key}"));
            let valid = if *key == "scenario" { *value == *name } else { value.is_number() };
            assert!(valid, "{name}: {key} = {value}");
        }
        let given = [("nodes", 6.0), ("trials", 2.0), ("seed", 3.0), ("loss", 0.01)];
        for (key, value) in given {
            assert_eq!(report[key].as_f64(), Some(value), "{name}: {key}");
        }
    }
}

#[test]
fn same_seed_same_figures_on_any_number_of_threads() {
    let line = "sim spread --nodes 12 --trials 6 --loss 5% --json --seed";
    let one = json(&format!("{line} 7"));
    let alone = rolecall(&format!("{line} 7")).env("RAYON_NUM_THREADS", "1").output();
    let alone = serde_json::from_slice(&alone.expect("it runs").stdout).expect("one object");
    assert_eq!(of_the_seed(one.clone()), of_the_seed(alone));
    let other = json(&format!("{line} 8"));
    assert_ne!(one["bytes_per_node"], other["bytes_per_node"]);
}

#[test]
fn a_table_has_a_row_for_each_figure() {
    for (line, own) in SCENARIOS {
        let name = name_of(line);
        let text = stdout(&format!("sim {line} --nodes 5 --trials 1"));
        assert!(text.starts_with(&format!("{name}: 5 nodes, 1 trial, seed 1,")), "{text}");
        for key in own.iter().chain(&["wall_s", "virtual_s"]) {
            assert!(text.contains(&format!("│ {key} ")), "{name} has no row for {key}: {text}");
        }
    }
}

#[test]
fn a_single_anomaly_is_found_out_if_it_is_long() {
    let line = "sim anomaly --nodes 8 --trials 2 --concurrent 1 --anomaly 40s --threshold";
    let long = json(&format!("{line} --json"));
    for key in THRESHOLD {
        let ms = long[key].as_f64().unwrap_or_else(|| panic!("no {key}: {long:?}"));
        assert!((1000.0..40_000.0).contains(&ms), "{key} = {ms}");
    }
    assert_eq!((&long["fp"], &long["undetected"]), (&0.into(), &0.into()));
    let recurring = json("sim anomaly --nodes 8 --trials 1 --concurrent 1 --anomaly 1s --json");
    let table = stdout(line);
    for key in THRESHOLD {
        assert!(table.contains(&format!("│ {key} ")), "no row for {key}: {table}");
        assert!(!recurring.contains_key(key), "{recurring:?}");
    }
    // 15 s of quiet and up to 1 s more, then 120 s of anomalies.
    assert!(recurring["virtual_s"].as_f64().is_some_and(|s| (135.0..138.0).contains(&s)));
}

#[test]
fn a_swarm_tells_what_it_exercised() {
    let report = json("sim swarm --seeds 3..6 --without stall,crash --json");
    let own = ["seeds", "failures", "failing_seeds", "exercised"];
    let keys: Vec<&str> = report.keys().map(String::as_str).collect();
    assert_eq!(keys, [&COMMON[..], &own[..]].concat());
    assert_eq!((&report["scenario"], &report["seed"]), (&"swarm".into(), &3.into()));
    assert_eq!((&report["seeds"], &report["failures"]), (&3.into(), &0.into()));
    assert_eq!(report["failing_seeds"], serde_json::json!([]));
    assert!(report["virtual_s"].as_f64().is_some_and(|s| s > 60.0), "{report:?}");
    let exercised = &report["exercised"];
    assert!(exercised["faults"]["add role"].as_u64().is_some_and(|count| count > 0));
    assert!(exercised["checks"]["own invariants"].as_u64().is_some_and(|count| count > 0));
    for masked in ["stall", "crash"] {
        assert!(exercised["faults"].get(masked).is_none_or(|count| *count == 0), "{exercised}");
    }
    let one = stdout("sim swarm --seeds 4");
    assert!(one.starts_with("swarm: 1 seed (4): 0 failed, in "), "{one}");
    for row in ["weather", "check", "own invariants", "datagrams lost"] {
        assert!(one.contains(row), "no {row} in {one}");
    }
}

#[test]
fn arguments_reach_the_cluster() {
    let line = "sim steady --nodes 8 --json --duration 20s";
    assert_eq!(json(line)["virtual_s"], 30.0);
    let usual = json(line)["datagrams_per_node_s"].as_f64().expect("a number");
    let set = format!("{line} --set probe_interval=200ms");
    let busy = json(&set)["datagrams_per_node_s"].as_f64().expect("a number");
    assert!(busy > 3.0 * usual, "{usual} {busy}");
    let slow = json("sim spread --nodes 8 --trials 2 --latency 40ms..60ms --json");
    assert!(slow["p50_ms"].as_f64().is_some_and(|ms| ms > 40.0), "{slow:?}");
    let same = json("sim spread --nodes 2 --trials 1 --latency 10ms --preset wan --json");
    assert_eq!(same["p50_ms"], 10.0);
    let apart = "--scopes 8 --scopes-per-node 2 --roles 3";
    json(&format!("sim spread --nodes 16 --trials 1 {apart} --json"));
    // Gossip has memberlist's fanout, unless told otherwise.
    let gossip = |set: &str| json(&format!("sim spread --nodes 24 --trials 2 --json --via {set}"));
    let three = of_the_seed(gossip("gossip --set gossip_fanout=3"));
    assert_eq!(of_the_seed(gossip("gossip")), three);
    assert_ne!(of_the_seed(gossip("gossip --set gossip_fanout=8")), three);
    let dead = json("sim spread --nodes 20 --trials 2 --dead 30% --json");
    assert_eq!((&dead["missed"], dead["p50_ms"].is_number()), (&0.into(), true), "{dead:?}");
    // Six that lie in a row are found in another order than six drawn at random.
    let victims = |how: &str| {
        let line = format!("sim crash --nodes 24 --trials 2 --victims 6 --json {how}");
        of_the_seed(json(&line))
    };
    assert_ne!(victims("--adjacent"), victims(""));
    // Twice as many pauses of half the length, and of twice as many nodes.
    let pauses = |how: &str| {
        let line = format!("sim pauses --nodes 20 --trials 1 --duration 20s --json {how}");
        json(&line)["pauses"].as_u64().expect("a number")
    };
    let usual = pauses("");
    assert!((19..=21).contains(&usual), "{usual}");
    for twice in ["--pause 500ms", "--share 10%"].map(pauses) {
        assert!((38..=42).contains(&twice), "{twice}");
    }
    let lossy = json("sim links --fault lossy --nodes 6 --trials 1 --duration 20s --json");
    assert_eq!(lossy["virtual_s"], 30.0);
    assert!(!lossy.contains_key("reached_indirectly"), "{lossy:?}");
    // In per cent it is the same.
    assert_eq!(json("sim storm --nodes 4 --loss 2.5% --json")["loss"], 0.025);
}

#[test]
fn every_key_of_the_configuration_can_be_set() {
    let values = toml::Table::try_from(Config::local()).expect("a table");
    let mut all = String::from("config --preset wan");
    for (key, value) in &values {
        let value = value.as_str().map_or_else(|| value.to_string(), |it| it.replace(' ', ""));
        write!(all, " --set {key}={value}").expect("it grows");
    }
    let config: Config = toml::from_str(&stdout(&all)).expect("a configuration");
    assert_eq!(config, Config::local());
}

#[test]
fn the_configuration_is_explained_and_reads_back() {
    for (preset, config) in
        [("local", Config::local()), ("lan", Config::lan()), ("wan", Config::wan())]
    {
        let text = stdout(&format!("config --preset {preset}"));
        assert_eq!(toml::from_str::<Config>(&text).expect("a configuration"), config);
        for key in toml::Table::try_from(&config).expect("a table").keys() {
            let at = text.find(&format!("\n{key} = ")).unwrap_or_else(|| panic!("no {key}"));
            let comment = text[..at].lines().next_back().expect("there is a line");
            assert!(comment.starts_with("# "), "{key} is not explained: {comment}");
        }
    }
    let set = stdout("config --set gossip_fanout=7");
    assert_eq!(toml::from_str::<Config>(&set).expect("a configuration").gossip_fanout, 7);
    assert_eq!(toml::from_str::<Config>(&stdout("config")).ok(), Some(Config::lan()));
}

#[test]
fn bad_arguments_are_named() {
    let bad: [(&str, &[&str]); 37] = [
        ("sim nope", &["nope"]),
        ("sim steady --nodes 0", &["--nodes", "0", "2..="]),
        ("sim steady --nodes 1", &["--nodes", "1", "2..="]),
        ("sim steady --trials 0", &["--trials", "0"]),
        ("sim steady --loss 2", &["--loss", "2", "0 to 1"]),
        ("sim steady --loss 101%", &["--loss", "101%"]),
        ("sim steady --latency 2ms..1ms", &["--latency", "2ms..1ms", "empty"]),
        ("sim steady --latency 2..3", &["--latency", "2..3"]),
        ("sim steady --duration soon", &["--duration", "soon"]),
        ("sim spread --duration 5s", &["--duration", "spread"]),
        ("sim steady --preset moon", &["--preset", "moon", "local, lan, wan"]),
        ("sim steady --scopes-per-node 2", &["--scopes-per-node", "2"]),
        ("sim steady --set gosip_fanout=5", &["gosip_fanout", "`gossip_fanout`", "event_capacity"]),
        ("sim steady --set gossip_fanout", &["--set", "gossip_fanout", "KEY=VALUE"]),
        ("sim steady --set gossip_fanout=many", &["gossip_fanout", "many", "1 to 64"]),
        ("sim steady --set gossip_fanout=65", &["gossip_fanout", "65", "1 to 64"]),
        ("sim steady --set probe_interval=5", &["probe_interval", "5", "10 ms to 10 min"]),
        ("config --set pause_tolerance=2ms", &["pause_tolerance", "2ms", "50ms to 10m"]),
        ("sim steady --svg /no/such/place.svg", &["--svg", "/no/such/place.svg"]),
        ("sim steady --what", &["--what"]),
        ("sim anomaly --nodes 16", &["--concurrent 16", "--nodes", "16"]),
        ("sim anomaly --concurrent 0", &["--concurrent", "0"]),
        ("sim anomaly --anomaly 1us", &["--anomaly 1us", "1ms"]),
        ("sim anomaly --threshold --interval 1s", &["--threshold", "--interval"]),
        ("sim spread --dead 2", &["--dead", "2", "0 to 1"]),
        ("sim spread --via pigeon", &["--via", "pigeon", "fast-path, gossip, piggyback"]),
        ("sim crash --nodes 8 --victims 8 --adjacent", &["--victims 8", "1 to 7", "--nodes"]),
        ("sim pauses --pause 1us", &["--pause 1us", "1ms"]),
        ("sim pauses --share 2", &["--share", "2", "0 to 1"]),
        ("sim links --fault dumb", &["--fault", "dumb", "deaf, mute, apart, lossy, flapping"]),
        ("sim changes --rate 0", &["--rate", "0"]),
        ("sim repair --differences 0", &["--differences", "0"]),
        ("sim repair --nodes 2", &["--nodes 2", "at least 3"]),
        ("sim swarm --seeds 7..7", &["--seeds", "7..7", "excluded"]),
        ("sim swarm --seeds many", &["--seeds", "`many`"]),
        ("sim swarm --without rain", &["--without", "rain", "one-way partition"]),
        ("sim lifeguard --quick --repeats 2", &["--quick", "--repeats"]),
    ];
    for (line, culprits) in bad {
        assert_refused(line, culprits);
    }
}

#[test]
fn bad_sweeps_are_named() {
    let bad: [(&str, &[&str]); 8] = [
        ("spread", &["--over"]),
        ("--over gossip_fanout spread", &["--over", "gossip_fanout", "KEY=VALUES"]),
        ("--over fanout=2..4 spread", &["fanout", "gossip_fanout"]),
        ("--over gossip_fanout=4..2 spread", &["4..2", "empty"]),
        ("--over gossip_fanout=2..4:0 spread", &["2..4:0", "empty"]),
        ("--over gossip_fanout=1..4000000000 spread", &["1..4000000000", "100 values"]),
        ("--over probe_interval=1s..5s spread", &["1s", "a list"]),
        ("--over gossip_fanout=60..70 spread", &["gossip_fanout", "65", "1 to 64"]),
    ];
    for (line, culprits) in bad {
        assert_refused(&format!("sim sweep {line}"), culprits);
    }
}

#[test]
fn a_picture_is_drawn() {
    for (name, label) in [
        ("steady", "bytes per node and second"),
        ("spread", "have the change"),
        ("join", "the newcomer knows"),
    ] {
        let file = temporary(&format!("{name}.svg"));
        let line = format!("sim {name} --nodes 6 --trials 1 --json --svg");
        let output = rolecall(&line).arg(&file).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let svg = std::fs::read_to_string(&file).expect("it is there");
        assert_well_formed(&svg);
        for text in [name, label, "6 nodes", "virtual time, ms"] {
            assert!(svg.contains(text), "{name}: no {text} in {svg}");
        }
    }
}

#[test]
fn a_sweep_has_a_row_and_a_line_for_each_value() {
    let file = temporary("sweep.svg");
    let line = "sim sweep --over gossip_fanout=1..5:2 spread --nodes 8 --trials 2";
    let output = rolecall(line).arg("--svg").arg(&file).output().expect("it runs");
    let table = String::from_utf8(output.stdout).expect("it prints UTF-8");
    let rows = table.lines().skip(4).filter(|line| line.starts_with('│'));
    let values = rows.map(|row| row.split_whitespace().nth(1).expect("a value"));
    assert_eq!(values.collect::<Vec<_>>(), ["1", "3", "5"], "{table}");
    let svg = std::fs::read_to_string(&file).expect("it is there");
    assert_well_formed(&svg);
    for text in ["gossip_fanout = 1", "gossip_fanout = 5", "p99_ms", "bytes_per_node"] {
        assert!(svg.contains(text), "no {text} in {svg}");
    }

    let all = json(&format!("{line} --json"));
    assert_eq!(
        (&all["sweep"], &all["values"]),
        (&"gossip_fanout".into(), &[1, 3, 5].to_vec().into())
    );
    let reports = all["reports"].as_array().expect("a list");
    assert_eq!(reports.len(), 3);
    // Each is what the scenario alone reports.
    let alone = json("sim spread --nodes 8 --trials 2 --set gossip_fanout=3 --json");
    let report = reports[1].as_object().expect("an object").clone();
    assert_eq!(of_the_seed(report), of_the_seed(alone));

    let more = "--over gossip_fanout=2..3";
    for line in ["changes --duration 1s", "repair --trials 2", "links --duration 5s"] {
        let all = json(&format!("sim sweep {more} {line} --nodes 6 --json"));
        assert_eq!(all["reports"].as_array().map(Vec::len), Some(2), "{line}");
    }
    let durations =
        json("sim sweep --over probe_interval=600ms,1s crash --nodes 5 --trials 1 --json");
    assert_eq!(durations["values"], serde_json::json!(["600ms", "1s"]));
}

#[test]
fn help_has_examples() {
    let own = [
        "sweep",
        "spread",
        "crash",
        "pauses",
        "links",
        "changes",
        "repair",
        "anomaly",
        "swarm",
        "lifeguard",
    ];
    let own = own.map(|it| format!("sim {it}"));
    for line in own.iter().map(String::as_str).chain(["", "sim", "config"]) {
        let text = stdout(&format!("{line} --help"));
        assert!(text.contains("Usage: rolecall"), "{text}");
        assert!(text.contains("  rolecall "), "rolecall {line} has no example: {text}");
    }
    let version = concat!("rolecall ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(stdout("--version"), version);
}
