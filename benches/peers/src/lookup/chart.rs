//! Every contender's ratio to the floor, as a picture.

use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle};
use plotters::style::{BLACK, Color, HSLColor, IntoFont, WHITE};

use super::report::Figure;

/// Pixels.
const WIDTH: i32 = 1_000;
const LABEL_WIDTH: i32 = 190;
const TITLE_HEIGHT: i32 = 70;
const BAR_HEIGHT: i32 = 9;
const GAP: i32 = 10;
/// Longer bars end here, with their number beside them.
const MAX_RATIO: f64 = 5.0;

type Failure = DrawingAreaErrorKind<std::io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A group of bars for each contender, a bar for each number of roles: one reader alone.
pub(super) fn draw(path: &Path, figures: &[Figure]) -> Result<(), Failure> {
    let shown: Vec<&Figure> = figures.iter().filter(|one| one.setting == "1-reader").collect();
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    for figure in &shown {
        if !names.contains(&&figure.contender) {
            names.push(&figure.contender);
        }
        if !sizes.contains(&figure.roles) {
            sizes.push(figure.roles);
        }
    }
    let group = BAR_HEIGHT * pixels(sizes.len()) + GAP;
    let height = TITLE_HEIGHT + group * pixels(names.len()) + GAP;
    let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    title(&area, &sizes)?;
    for (row, name) in names.iter().enumerate() {
        let top = TITLE_HEIGHT + group * pixels(row);
        let style = ("sans-serif", 15).into_font().into();
        area.draw_text(name, &style, (12, top + (group - GAP) / 2 - 8))?;
        for figure in shown.iter().filter(|one| one.contender == **name) {
            let bar = sizes.iter().position(|size| *size == figure.roles).unwrap_or_default();
            draw_bar(&area, top + BAR_HEIGHT * pixels(bar), hue(bar), figure)?;
        }
    }
    let line = [(x_of(1.0), TITLE_HEIGHT - GAP), (x_of(1.0), height - GAP)];
    area.draw(&PathElement::new(line, BLACK.mix(0.6)))?;
    area.present()
}

fn title(area: &Area<'_>, sizes: &[usize]) -> Result<(), Failure> {
    let text = "A lookup, by that in a HashMap that nothing protects (1 reader, medians)";
    area.draw_text(text, &("sans-serif", 20).into_font().into(), (12, 10))?;
    for (bar, size) in sizes.iter().enumerate() {
        let style = ("sans-serif", 15).into_font().color(&hue(bar));
        area.draw_text(&format!("{size} roles"), &style, (LABEL_WIDTH + 130 * pixels(bar), 38))?;
    }
    Ok(())
}

fn draw_bar(area: &Area<'_>, top: i32, hue: HSLColor, figure: &Figure) -> Result<(), Failure> {
    let Some(ratio) = figure.ratio_to_floor else { return Ok(()) };
    let corners = [(x_of(0.0), top), (x_of(ratio), top + BAR_HEIGHT - 1)];
    area.draw(&Rectangle::new(corners, hue.filled()))?;
    let style = ("sans-serif", 10).into_font().into();
    area.draw_text(&format!("{ratio:.2}"), &style, (x_of(ratio) + 4, top - 1))
}

#[expect(clippy::cast_possible_truncation, reason = "within the picture")]
fn x_of(ratio: f64) -> i32 {
    let width = f64::from(WIDTH - LABEL_WIDTH - 50);
    LABEL_WIDTH + (width * ratio.clamp(0.0, MAX_RATIO) / MAX_RATIO) as i32
}

fn pixels(count: usize) -> i32 {
    i32::try_from(count).expect("a few")
}

fn hue(bar: usize) -> HSLColor {
    HSLColor(0.6 - 0.25 * f64::from(pixels(bar % 3)), 0.7, 0.45)
}
