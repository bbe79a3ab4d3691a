//! Figures as a picture: who knows what when, and what a knob buys for which price.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, EmptyElement, PathElement, Text};
use plotters::series::LineSeries;
use plotters::style::{BLACK, Color, HSLColor, IntoFont, WHITE};
use rolecall::sim::scenario::Curve;

use crate::axis::Axis;
use crate::table;

/// Pixels.
const WIDTH: u32 = 1080;
const LEGEND_WIDTH: u32 = 210;
const TITLE_HEIGHT: u32 = 56;
const PANEL_HEIGHT: u32 = 420;

/// Names that a legend has room for.
const MAX_NAMES: usize = 16;

/// A line is drawn through so many points at most; the eye sees no more.
const MAX_POINTS: usize = 500;

/// Where the picture goes, known to be writable.
#[derive(Debug)]
pub(crate) struct Canvas(PathBuf);

impl Canvas {
    /// Checks the path before a long run, without touching what is there.
    pub(crate) fn new(path: &Path) -> Result<Canvas, String> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        file.map_err(|error| format!("--svg {}: {error}", path.display()))?;
        Ok(Canvas(path.into()))
    }

    /// Draws panels below each other, under a title and a line that says what was run.
    pub(crate) fn draw(&self, title: &str, words: &str, panels: &[Panel]) -> Result<(), String> {
        let text = svg(title, words, panels).map_err(|error| format!("cannot draw: {error}"))?;
        fs::write(&self.0, text).map_err(|error| format!("--svg {}: {error}", self.0.display()))
    }
}

/// A diagram with its axes.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) caption: String,
    pub(crate) x: (String, Axis),
    pub(crate) y: (String, Axis),
    pub(crate) series: Vec<Series>,
    /// Words at points, such as the value of a knob.
    pub(crate) notes: Vec<(f64, f64, String)>,
    /// Whether its points are few, and each worth a mark.
    pub(crate) marks: bool,
}

/// A line in a diagram.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Panel {
    /// Curves by the names that they are to have. The caption says what they count.
    pub(crate) fn of_curves(caption: &str, curves: &[(String, &Curve)]) -> Panel {
        let points = || curves.iter().flat_map(|(_, curve)| curve.points.iter().copied());
        let shares = points().all(|(_, y)| y <= 1.0);
        let (x, y) = if shares {
            let x = Axis::of(points().map(|(x, _)| x));
            (x, ("share, %".to_string(), Axis::linear(0.0, 102.0)))
        } else {
            // Something that goes on, moment by moment.
            let x = Axis::linear(0.0, points().map(|(x, _)| x).fold(0.0, f64::max));
            (x, (caption.to_string(), Axis::of(points().map(|(_, y)| y).chain([0.0]))))
        };
        let series = curves.iter().map(|(label, curve)| Series {
            label: label.clone(),
            points: if shares { stairs(&curve.points, x.high()) } else { curve.points.clone() },
        });
        let series = series.collect();
        let x = ("virtual time, ms".to_string(), x);
        Panel { caption: caption.into(), x, y, series, notes: Vec::new(), marks: false }
    }
}

/// A share in per cent that rises by steps, and stays where it is at last.
fn stairs(points: &[(f64, f64)], end: f64) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(MAX_POINTS).max(1);
    let last = points.last().copied();
    let kept = points.iter().copied().step_by(every).chain(last);
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for (x, share) in kept {
        if let Some((_, before)) = steps.last().copied() {
            steps.push((x, before));
        }
        steps.push((x, share * 100.0));
    }
    if let Some((_, share)) = last {
        steps.push((end, share * 100.0));
    }
    steps
}

type Failure = DrawingAreaErrorKind<std::io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn svg(title: &str, words: &str, panels: &[Panel]) -> Result<String, Failure> {
    let mut text = String::new();
    let count = u32::try_from(panels.len()).expect("a few panels");
    let backend = SVGBackend::with_string(&mut text, (WIDTH, TITLE_HEIGHT + PANEL_HEIGHT * count));
    let root = backend.into_drawing_area();
    root.fill(&WHITE)?;
    root.draw_text(title, &("sans-serif", 23).into_font().into(), (16, 10))?;
    root.draw_text(words, &("sans-serif", 16).into_font().color(&BLACK.mix(0.7)), (16, 36))?;
    let (_, rest) = root.split_vertically(TITLE_HEIGHT);
    for (area, panel) in rest.split_evenly((panels.len().max(1), 1)).iter().zip(panels) {
        diagram(area, panel)?;
    }
    root.present()?;
    drop(rest);
    drop(root);
    Ok(text)
}

fn diagram(area: &Area<'_>, panel: &Panel) -> Result<(), Failure> {
    let (x, y) = (panel.x.1.clone(), panel.y.1.clone());
    let (area, beside) = area.split_horizontally(WIDTH - LEGEND_WIDTH);
    let mut chart = ChartBuilder::on(&area)
        .caption(&panel.caption, ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_labels(10)
        .y_labels(8)
        .max_light_lines(1)
        .light_line_style(WHITE.mix(0.0))
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .x_desc(&panel.x.0)
        .y_desc(&panel.y.0)
        .draw()?;
    for (n, series) in panel.series.iter().enumerate() {
        let color = hue(n, panel.series.len());
        let line = LineSeries::new(series.points.iter().copied(), color.stroke_width(2));
        chart.draw_series(line)?;
        if panel.marks {
            let mark = |point: &(f64, f64)| Circle::new(*point, 3, color.filled());
            chart.draw_series(series.points.iter().map(mark))?;
        }
    }
    let note = |(x, y, text): &(f64, f64, String)| {
        let style = ("sans-serif", 14).into_font();
        EmptyElement::at((*x, *y)) + Text::new(text.clone(), (5, -16), style)
    };
    chart.draw_series(panel.notes.iter().map(note))?;
    legend(&beside, &panel.series)
}

/// Beside the diagram, so that it hides nothing; if the lines are many, some of them by name.
fn legend(area: &Area<'_>, series: &[Series]) -> Result<(), Failure> {
    let every = series.len().div_ceil(MAX_NAMES).max(1);
    for (row, (n, one)) in series.iter().enumerate().step_by(every).enumerate() {
        let y = 52 + 20 * i32::try_from(row).expect("a few rows");
        let line = [(0, y), (18, y)];
        area.draw(&PathElement::new(line, hue(n, series.len()).stroke_width(3)))?;
        let style = ("sans-serif", 15).into_font().into();
        area.draw_text(&one.label, &style, (24, y - 6))?;
    }
    Ok(())
}

/// Colours in the order of the rainbow, so that neighbours look alike and the ends do not.
fn hue(n: usize, of: usize) -> HSLColor {
    let share = table::ratio(n, of.max(2) - 1);
    HSLColor(0.6 * (1.0 - share), 0.85, 0.42)
}
