//! `rolecall sim lifeguard`: the tables of the Lifeguard paper, with ours beside them.

use std::time::Instant;

use clap::Args;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rolecall::sim::lifeguard::{self, Cell, Grid, Latencies, Row};
use serde_json::json;

use crate::args::PlainArgs;
use crate::job::Progress;
use crate::table;

/// Rerun the experiments of the Lifeguard paper, and print its tables with ours beside them
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Clusters of 128 nodes, some of which block over and over; three protocols: SWIM with suspicions,
Lifeguard, and rolecall as it is. The paper made 4,320 runs of each protocol, which are 10 repeats
of 432. On two cores one repeat takes about 8 minutes, --quick less than one.

Examples:
  rolecall sim lifeguard --quick
  rolecall sim lifeguard --repeats 10 --json > lifeguard.json")]
pub(crate) struct LifeguardArgs {
    /// Only 36 of the 432 combinations, once each
    #[arg(long, conflicts_with = "repeats")]
    quick: bool,
    /// Runs of each combination; the paper has 10
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    repeats: u64,
    #[command(flatten)]
    output: PlainArgs,
}

/// A row, and whose it is.
type Of<'a> = (&'a str, &'a Row);

impl LifeguardArgs {
    /// Makes all runs; returns what there is to print.
    pub(crate) fn run(&self) -> String {
        let grid = if self.quick { Grid::quick() } else { Grid::full(self.repeats) };
        self.measure(grid.cells())
    }

    fn measure(&self, cells: Vec<Cell>) -> String {
        let start = Instant::now();
        let runs = cells.len();
        let progress = Progress::new(&self.output, runs, "runs");
        let run = |cell: Cell| {
            let trial = cell.run();
            progress.step();
            (cell, trial)
        };
        let made: Vec<_> = cells.into_par_iter().map(run).collect();
        drop(progress);
        let wall_s = start.elapsed().as_secs_f64();
        let (paper, ours) = (lifeguard::paper(), lifeguard::tables(&made));
        if self.output.json {
            let report = json!({
                "scenario": "lifeguard",
                "wall_s": table::rounded(wall_s),
                "runs": runs,
                "paper": paper,
                "ours": ours,
            });
            return format!("{report}\n");
        }
        let title = format!("lifeguard: {runs} runs, in {} s", table::number(wall_s));
        format!("{title}\n\n{}", tables(&paper, &ours))
    }
}

/// The paper's Tables IV, V and VI, the paper's rows first.
fn tables(paper: &[Row], ours: &[Row]) -> String {
    let rows: Vec<Of<'_>> = (paper.iter().map(|row| ("paper", row)))
        .chain(ours.iter().map(|row| ("here", row)))
        .collect();
    let swim = |whose: &str| {
        let all = if whose == "paper" { paper } else { ours };
        all.iter().find(|row| row.name == "swim").unwrap_or(&all[0])
    };
    let table = |header: &[&str], cells: &dyn Fn(&Row, &Row) -> Vec<String>| {
        let cells = |(whose, row): &Of<'_>| {
            let names = [(*whose).to_string(), row.name.to_string()];
            names.into_iter().chain(cells(row, swim(whose))).collect()
        };
        let header = ["", "protocol"].iter().chain(header);
        table::plain(header, rows.iter().map(cells), 2)
    };
    let share = |part: f64, of: f64| match of {
        0.0 => table::NONE.to_string(),
        of => format!("{} %", table::number(part / of * 100.0)),
    };
    let number = table::number;
    let false_positives = table(
        &["runs", "fp", "of swim's", "per run", "fp at healthy", "of swim's", "per run"],
        &|row, swim| {
            let [fp, healthy] = [row.fp, row.fp_healthy].map(float);
            let [all, all_healthy] = [swim.fp, swim.fp_healthy].map(float);
            let runs = float(row.runs);
            vec![
                number(runs),
                number(fp),
                share(fp / runs, all / float(swim.runs)),
                number(fp / runs),
                number(healthy),
                share(healthy / runs, all_healthy / float(swim.runs)),
                number(healthy / runs),
            ]
        },
    );
    let latencies =
        table(&["first 50 %", "99 %", "99.9 %", "all 50 %", "99 %", "99.9 %"], &|row, _| {
            [row.first, row.full].iter().flat_map(seconds).collect()
        });
    let load = table(
        &["messages, M", "of swim's", "per run", "GiB", "of swim's", "MiB per run"],
        &|row, swim| {
            let (runs, all) = (float(row.runs), float(swim.runs));
            vec![
                number(row.messages_m),
                share(row.messages_m / runs, swim.messages_m / all),
                number(row.messages_m / runs * 1e6),
                number(row.gib),
                share(row.gib / runs, swim.gib / all),
                number(row.gib / runs * 1024.0),
            ]
        },
    );
    format!(
        "Table IV: false positives, which are healthy nodes declared down\n{false_positives}\n\n\
         Table V: seconds until a blocked node is declared down by a first healthy node, and by all\
         \n{latencies}\n\n\
         Table VI: what all nodes sent\n{load}\n"
    )
}

fn seconds(of: &Latencies) -> [String; 3] {
    let text = |seconds: f64| {
        if seconds.is_nan() { table::NONE.to_string() } else { format!("{seconds:.2}") }
    };
    [of.p50, of.p99, of.p999].map(text)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_papers_rows_and_ours() {
        let mut ours = lifeguard::paper().to_vec();
        ours[0].runs = 432;
        ours[0].fp = 43_200;
        ours[1].first.p999 = f64::NAN;
        let text = tables(&lifeguard::paper(), &ours);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with('│'))
            .map(|line| line.split('│').flat_map(str::split_whitespace).collect())
            .collect();
        assert_eq!(rows.len(), 3 * 5, "{text}");
        let [four, five, six] = [0, 5, 10].map(|from| &rows[from + 1..from + 5]);
        let paper = "paper lifeguard 4,320 5,193 1.532 % 1.202 25 1.885 % 0.006";
        assert_eq!(four[1].join(" "), paper, "{text}");
        assert!(four[2].join(" ").starts_with("here swim 432 43,200 100 % 100 1,326 100 %"));
        assert_eq!(five[0].join(" "), "paper swim 12.44 16.96 19.40 12.90 16.93 20.17");
        assert_eq!(five[3].join(" "), "here lifeguard 12.45 17.90 – 12.91 18.05 21.68");
        assert!(
            six[1].join(" ").starts_with("paper lifeguard 481.4 110.6 % 111,440 146.1 97.98 %")
        );
    }

    #[test]
    fn runs_are_added_up() {
        // One run with recurring anomalies and one with a single one, both of plain SWIM.
        let all = Grid::quick().cells();
        let [mut recurring, single] = [false, true].map(|threshold| {
            *all.iter().find(|cell| cell.anomaly.threshold == threshold).expect("there are both")
        });
        recurring.anomaly.interval = std::time::Duration::from_secs(16);
        let cells = vec![recurring, single];
        let output = PlainArgs { json: true, quiet: true };
        let text = LifeguardArgs { quick: true, repeats: 1, output }.measure(cells);
        let report: serde_json::Value = serde_json::from_str(&text).expect("one object");
        assert_eq!((&report["scenario"], &report["runs"]), (&"lifeguard".into(), &2.into()));
        assert_eq!(report["paper"][0]["fp"], 339_002);
        assert_eq!(report["ours"][0]["runs"], 1);
        assert!(report["ours"][0]["first"]["p50"].as_f64().is_some_and(|s| s > 5.0), "{report}");
        assert!(report["ours"][0]["messages_m"].as_f64().is_some_and(|m| m > 0.01), "{report}");
    }
}
