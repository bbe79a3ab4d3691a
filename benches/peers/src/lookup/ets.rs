//! The same lookup in Erlang, run by its own machine: `ets/lookup.erl`.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::report::Figure;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ets/lookup.erl");

/// What the script prints for each number of roles.
#[derive(Deserialize)]
struct Line {
    roles: usize,
    p50_ns: f64,
    p99_ns: f64,
    loop_ns: f64,
}

/// Compiles the script and runs it for this number of roles; `floor_ns` is what it is compared
/// with.
pub(super) fn measure(roles: usize, floor_ns: Option<f64>) -> Result<Figure, String> {
    let directory = std::env::temp_dir().join(format!("rolecall-ets-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let output = compile_and_run(&directory, roles);
    let _ = std::fs::remove_dir_all(&directory); // only a leftover
    let line: Line = serde_json::from_str(&output?).map_err(|error| error.to_string())?;
    let figure = Figure::new("ets-lookup", line.roles, "1-reader", &[line.p50_ns]);
    let ratio = floor_ns.map(|floor| line.p50_ns / floor);
    let figure = Figure { p99_ns: line.p99_ns, ratio_to_floor: ratio, ..figure };
    Ok(figure.with("loop_ns", line.loop_ns))
}

fn compile_and_run(directory: &Path, roles: usize) -> Result<String, String> {
    output(Command::new("erlc").arg("-o").arg(directory).arg(SCRIPT))?;
    let mut erl = Command::new("erl");
    erl.args(["-noshell", "-pa"]).arg(directory).args(["-s", "lookup", "main", "-extra"]);
    output(erl.arg(roles.to_string()))
}

fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", error.trim()));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{program}: {error}"))
}
