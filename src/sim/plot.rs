//! A run as a picture (SVG 1.1): load, shares of new flows, control traffic and staleness over time, one panel each.

use std::fmt::Write;

use super::report::{Sample, Study};

/// Width of the picture, and of what is left of the axes.
const WIDTH: (f64, f64) = (900.0, 80.0);

/// Height of a panel, and of what is above and below its axes.
const HEIGHT: (f64, f64, f64) = (200.0, 34.0, 30.0);

/// One after the other for the lines of a panel; told apart also by who sees few colours (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Lines that are named at most.
const NAMED: usize = 8;

/// Lines over the same time, each with a name.
struct Panel<'a> {
    title: &'a str,
    lines: Vec<(String, Vec<f64>)>,
}

impl Study {
    /// The picture.
    pub fn svg(&self) -> String {
        let line = |name: &str, value: fn(&Sample) -> f64| (name.to_owned(), self.samples.iter().map(value).collect());
        let systems = self.samples.iter().map(|sample| sample.systems.len()).max().unwrap_or(0);
        let share = |system: usize| {
            let values = self.samples.iter().map(|sample| 100.0 * sample.systems.get(system).copied().unwrap_or(0.0));
            (format!("system{}", system + 1), values.collect())
        };
        let panels = [
            Panel {
                title: "load of the servers; 1 is all that they can do",
                lines: vec![line("highest", |sample| sample.load_max), line("mean", |sample| sample.load_mean)],
            },
            Panel { title: "share of new flows, in percent", lines: (0..systems).map(share).collect::<Vec<_>>() },
            Panel {
                title: "control traffic of all sessions, in kB a second",
                lines: vec![line("traffic", |sample| sample.control_bytes_per_second / 1000.0)],
            },
            Panel {
                title: "oldest news that any router goes by, in seconds",
                lines: vec![line("age", |sample| sample.staleness)],
            },
        ];
        let times: Vec<f64> = self.samples.iter().map(|sample| sample.at).collect();
        let height = HEIGHT.0 * panels.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{height}\" viewBox=\"0 0 {0} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            WIDTH.0
        );
        for (number, panel) in panels.iter().enumerate() {
            panel.draw(&mut svg, &times, HEIGHT.0 * number as f64);
        }
        svg + "</svg>\n"
    }
}

impl Panel<'_> {
    fn draw(&self, svg: &mut String, times: &[f64], top: f64) {
        let (left, right) = (WIDTH.1, WIDTH.0 - WIDTH.1);
        let (above, below) = (top + HEIGHT.1, top + HEIGHT.0 - HEIGHT.2);
        let last = times.last().copied().unwrap_or(1.0).max(1e-9);
        let highest = self.lines.iter().flat_map(|(_, values)| values).copied().fold(0.0, f64::max);
        let (step, most) = scale(highest);
        let x = |time: f64| left + (right - left) * time / last;
        let y = |value: f64| below - (below - above) * value / most;
        let title = top + HEIGHT.1 - 12.0;
        // To a String nothing fails.
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"{title}\" font-weight=\"bold\">{}</text>", self.title);
        for tick in 0..=(most / step).round() as u32 {
            let value = f64::from(tick) * step;
            let at = y(value);
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                at + 4.0,
                short(value)
            );
        }
        let (step, _) = scale(last);
        for tick in 0..=(last / step).floor() as u32 {
            let time = f64::from(tick) * step;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} s</text>",
                x(time),
                below + 16.0,
                short(time)
            );
        }
        for (number, (name, values)) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let points: Vec<String> =
                times.iter().zip(values).map(|(time, value)| format!("{:.1},{:.1}", x(*time), y(*value))).collect();
            let points = points.join(" ");
            let _ = writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"><title>{name}</title></polyline>"
            );
            if self.lines.len() <= NAMED {
                let at = above + 14.0 * (number as f64 + 1.0);
                let _ = writeln!(svg, "<text x=\"{}\" y=\"{at}\" fill=\"{colour}\">{name}</text>", right + 6.0);
            }
        }
    }
}

/// From one mark of an axis to the next, and where the axis ends, so that it has `highest` on it: four to ten marks at round
/// numbers.
fn scale(highest: f64) -> (f64, f64) {
    let highest = if highest > 0.0 && highest.is_finite() { highest } else { 1.0 };
    let power = 10_f64.powf((highest / 4.0).log10().floor());
    let step =
        [5.0, 2.0, 1.0].into_iter().map(|times| times * power).find(|step| highest / step >= 4.0).unwrap_or(power);
    (step, (highest / step).ceil() * step)
}

/// A number without zeros at its end.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_marks_and_hold_the_highest_value() {
        for (highest, expected) in [
            (1.0, (0.2, 1.0)),
            (0.83, (0.2, 1.0)),
            (55.0, (10.0, 60.0)),
            (4.0, (1.0, 4.0)),
            (60.0, (10.0, 60.0)),
            (1999.0, (200.0, 2000.0)),
            (0.0, (0.2, 1.0)),
            (f64::INFINITY, (0.2, 1.0)),
        ] {
            let (step, most) = scale(highest);
            assert!((step - expected.0).abs() < 1e-9 && (most - expected.1).abs() < 1e-9, "{highest}: {step}, {most}");
        }
        assert_eq!([0.0, 0.25, 100.0, 1.0 / 3.0].map(short), ["0", "0.25", "100", "0.333"]);
    }
}
