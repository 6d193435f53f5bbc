//! Line plots as SVG text that needs nothing else: no script, no font, no style but the classes of the page's own sheet
//! (`html`). A plot is drawn for a card of about 360 units width, so that it can be read on a telephone.
//!
//! What is drawn is decided by the caller; a series without finite points draws nothing.

use std::fmt::Write as _;

use super::html::escape;
use super::number::short;

/// One plot: time or rank to the right, a quantity that starts at zero upwards.
pub(super) struct Plot<'a> {
    pub title: &'a str,
    /// Of the quantity, beside the title.
    pub unit: &'a str,
    pub x: Axis<'a>,
    pub series: Vec<Series<'a>>,
}

pub(super) struct Axis<'a> {
    pub label: &'a str,
    /// Labelled places; empty: chosen from the points.
    pub marks: Vec<(f64, String)>,
    /// From where to where; `None`: as far as the points reach.
    pub range: Option<(f64, f64)>,
    /// A part that is set off from the rest.
    pub shade: Option<(f64, f64)>,
}

pub(super) struct Series<'a> {
    pub name: &'a str,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;
const MARKS_WANTED: f64 = 4.0;
/// More would be finer than the screen; of longer series the greatest of each step is drawn, so that no peak is lost.
const POINTS_MAX: usize = 400;

impl Plot<'_> {
    /// A `figure` with its legend. Series are told apart by the classes `s0`, `s1`, ...
    pub(super) fn to_html(&self) -> String {
        let mut out = format!("<figure><figcaption><b>{}</b> <span>{}</span>", escape(self.title), escape(self.unit));
        if self.series.len() > 1 {
            out.push_str("<ul>");
            for (n, series) in self.series.iter().enumerate().filter(|(_, series)| !series.points.is_empty()) {
                _ = write!(out, "<li class=\"s{n}\">{}</li>", escape(series.name));
            }
            out.push_str("</ul>");
        }
        out.push_str("</figcaption>");
        match self.frame() {
            Some(frame) => self.draw(&frame, &mut out),
            None => out.push_str("<p class=\"none\">Nothing was measured.</p>"),
        }
        out.push_str("</figure>");
        out
    }

    fn frame(&self) -> Option<Frame> {
        let points = || self.series.iter().flat_map(|series| &series.points).filter(|p| is_drawable(p));
        let found = (points().map(|p| p.0).reduce(f64::min)?, points().map(|p| p.0).reduce(f64::max)?);
        let (x_min, x_max) = self.x.range.unwrap_or(found);
        let y_top = points().map(|p| p.1).fold(0.0, f64::max);
        let y_marks = nice_marks(0.0, if y_top > 0.0 { y_top } else { 1.0 });
        let y_max = y_marks.last().copied()?;
        Some(Frame { x_min, x_max: if x_max > x_min { x_max } else { x_min + 1.0 }, y_max, y_marks })
    }

    fn draw(&self, frame: &Frame, out: &mut String) {
        _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} {}\">",
            escape(self.title),
            escape(self.unit)
        );
        if let Some((from, to)) = self.x.shade {
            let (x, width) = (frame.x(from), (frame.x(to) - frame.x(from)).max(1.0));
            let height = HEIGHT - TOP - BOTTOM;
            _ = write!(
                out,
                "<rect class=\"measured\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"/>"
            );
        }
        for mark in &frame.y_marks {
            let y = frame.y(*mark);
            let right = WIDTH - RIGHT;
            _ = write!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            let (x, baseline) = (LEFT - 6.0, y + 3.5);
            _ = write!(out, "<text class=\"end\" x=\"{x}\" y=\"{baseline:.1}\">{}</text>", short(*mark));
        }
        self.draw_x_axis(frame, out);
        for (n, series) in self.series.iter().enumerate() {
            let points = thinned(&series.points);
            let path = points.iter().map(|p| format!("{:.1},{:.1}", frame.x(p.0), frame.y(p.1)));
            let path = path.collect::<Vec<_>>().join(" ");
            match points[..] {
                [] => {}
                [p] => {
                    _ = write!(
                        out,
                        "<circle class=\"s{n}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                        frame.x(p.0),
                        frame.y(p.1)
                    );
                }
                _ => _ = write!(out, "<polyline class=\"s{n}\" points=\"{path}\"/>"),
            }
        }
        out.push_str("</svg>");
    }

    fn draw_x_axis(&self, frame: &Frame, out: &mut String) {
        let round;
        let marks = if self.x.marks.is_empty() {
            round = nice_marks(frame.x_min, frame.x_max).into_iter().map(|mark| (mark, short(mark))).collect();
            &round
        } else {
            &self.x.marks
        };
        let y = HEIGHT - BOTTOM + 15.0;
        for (mark, label) in marks.iter().filter(|(mark, _)| (frame.x_min..=frame.x_max).contains(mark)) {
            let x = frame.x(*mark);
            _ = write!(out, "<text class=\"mid\" x=\"{x:.1}\" y=\"{y}\">{}</text>", escape(label));
        }
        let (x, y) = (WIDTH - RIGHT, HEIGHT - 4.0);
        _ = write!(out, "<text class=\"end\" x=\"{x}\" y=\"{y}\">{}</text>", escape(self.x.label));
    }
}

struct Frame {
    x_min: f64,
    x_max: f64,
    y_max: f64,
    y_marks: Vec<f64>,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.x_min) / (self.x_max - self.x_min) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.y_max * (HEIGHT - TOP - BOTTOM)
    }
}

fn is_drawable(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let drawable = points.iter().copied().filter(is_drawable).collect::<Vec<_>>();
    let step = drawable.len().div_ceil(POINTS_MAX).max(1);
    let greatest = |chunk: &[(f64, f64)]| chunk.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
    drawable.chunks(step).filter_map(greatest).collect()
}

/// Round values from at or below `min` to at or above `max`, in steps of 1, 2 or 5 times a power of ten.
fn nice_marks(min: f64, max: f64) -> Vec<f64> {
    let raw = (max - min).max(f64::MIN_POSITIVE) / MARKS_WANTED;
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= raw * 0.999);
    let step = step.unwrap_or(raw);
    let first = (min / step).floor();
    // MARKS_WANTED and two for the rounding at both ends.
    (0..=6_u8)
        .map(|n| (first + f64::from(n)) * step)
        .scan(false, |done, mark| {
            let before = *done;
            *done = mark >= max - step * 1e-9;
            (!before).then_some(mark)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> String {
        let series = vec![Series { name: "one", points }];
        Plot {
            title: "T < 1",
            unit: "ms",
            x: Axis { label: "s", marks: Vec::new(), range: None, shade: None },
            series,
        }
        .to_html()
    }

    #[test]
    fn marks_are_round_and_cover_the_range() {
        assert_eq!(nice_marks(0.0, 10.0), [0.0, 5.0, 10.0]);
        assert_eq!(nice_marks(0.0, 7.3), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(nice_marks(0.0, 49_803.0), [0.0, 20_000.0, 40_000.0, 60_000.0]);
    }

    #[test]
    fn a_plot_is_drawn_from_its_points_alone() {
        assert!(plot(vec![(0.0, 1.0), (1.0, 3.0)]).contains("<polyline class=\"s0\""));
        assert!(plot(vec![(0.0, 1.0)]).contains("<circle"));
        assert!(plot(vec![(f64::NAN, 1.0)]).contains("Nothing was measured"));
        assert!(plot(Vec::new()).contains("T &lt; 1"));
    }

    #[test]
    fn a_long_series_keeps_its_peak() {
        let mut points = (0..10_000).map(|n| (f64::from(n), 1.0)).collect::<Vec<_>>();
        points[7777].1 = 9.0;
        let kept = thinned(&points);
        assert!(kept.len() <= POINTS_MAX);
        assert!(kept.iter().any(|p| p.1 > 8.0));
    }

    proptest! {
        #[test]
        fn marks_end_at_or_above_the_greatest(max in 1e-6..1e12_f64) {
            let marks = nice_marks(0.0, max);
            prop_assert!((2..=7).contains(&marks.len()), "{marks:?}");
            prop_assert!(marks.last().is_some_and(|last| *last >= max * 0.999), "{marks:?}");
        }
    }
}
