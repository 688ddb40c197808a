//! The picture: a line for each work, a panel for each link, a mark for each system, seconds on a
//! logarithmic scale. Written as SVG by hand: text, lines and circles are all it takes.

use super::figures::{Run, Seconds, ratio};
use super::report::{link, rows, title};
use super::show::times;

/// Draws the runs side by side.
pub fn draw(runs: &[Run]) -> String {
    let rows = rows(runs);
    let scale = Scale::of(runs, &rows);
    let width = LABELS + runs.len() as f64 * (PANEL + GAP) + GAP;
    let height = TOP + rows.len() as f64 * ROW + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"Helvetica, Arial, sans-serif\" \
         font-size=\"12\" fill=\"#24292f\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    svg += &legend(runs);
    for (number, row) in (0..).zip(&rows) {
        let y = middle(number);
        if number % 2 == 0 {
            let (top, band) = (y - ROW / 2.0, width - 2.0 * GAP);
            svg += &format!(
                "<rect x=\"{GAP}\" y=\"{top}\" width=\"{band}\" height=\"{ROW}\" fill=\"#f4f6f8\"/>\n"
            );
        }
        svg += &text(LABELS - 8.0, y + 4.0, "end", &plain(title(row)));
    }
    for (number, run) in (0..).zip(runs) {
        let left = LABELS + f64::from(number) * (PANEL + GAP);
        svg += &panel(run, &rows, &scale, left);
    }
    svg + "</svg>\n"
}

/// One link: its name, the scale, the marks, and how many times faster sftpfs is than sshfs.
fn panel(run: &Run, rows: &[String], scale: &Scale, left: f64) -> String {
    let bottom = TOP + rows.len() as f64 * ROW;
    let mut svg = format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>\n",
        left + PANEL / 2.0,
        TOP - 14.0,
        link(run)
    );
    for power in scale.low..=scale.high {
        let x = scale.x(left, 10_f64.powi(power));
        svg += &format!(
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#d0d7de\"/>\n"
        );
        svg += &text(
            x,
            bottom + 16.0,
            "middle",
            &format!("{} s", 10_f64.powi(power)),
        );
    }
    for (number, row) in (0..).zip(rows) {
        svg += &marks(run, row, scale, left, middle(number));
    }
    svg
}

fn marks(run: &Run, row: &str, scale: &Scale, left: f64, y: f64) -> String {
    let ours = run.summary(row, "sftpfs").seconds;
    let theirs = run.summary(row, "sshfs").seconds;
    let mut svg = String::new();
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        let (from, to) = (scale.x(left, length(ours)), scale.x(left, length(theirs)));
        svg += &format!(
            "<line x1=\"{from:.1}\" y1=\"{y}\" x2=\"{to:.1}\" y2=\"{y}\" stroke=\"#afb8c1\" \
             stroke-width=\"2\"/>\n"
        );
        let faster = times(ratio(Some(ours), Some(theirs)));
        let faster = faster.replace('>', "&gt;");
        svg += &text(left + PANEL - 4.0, y + 4.0, "end", &format!("{faster} x"));
    }
    // The one that matters last, so that it is on top.
    for style in STYLES.iter().rev() {
        if let Some(seconds) = run.summary(row, style.system).seconds {
            svg += &style.mark(scale.x(left, length(seconds)), y, seconds);
        }
    }
    svg
}

fn legend(runs: &[Run]) -> String {
    let is_shown = |style: &&Style| {
        let mut rows = runs
            .iter()
            .flat_map(|run| run.rows().into_iter().map(move |r| (run, r)));
        rows.any(|(run, row)| run.summary(row, style.system).seconds.is_some())
    };
    let mut x = LABELS + 8.0;
    let mut svg = String::new();
    for style in STYLES.iter().filter(is_shown) {
        svg += &style.mark(x, 20.0, Seconds::Exactly(0.0));
        svg += &text(x + 10.0, 24.0, "start", style.name);
        x += 36.0 + 6.2 * style.name.len() as f64;
    }
    svg + &text(x, 24.0, "start", "right: times as fast as sshfs")
}

/// How a system is drawn.
struct Style {
    system: &'static str,
    name: &'static str,
    fill: &'static str,
    stroke: &'static str,
    is_round: bool,
}

impl Style {
    /// A circle or a diamond; an arrow to the right if it did not finish.
    fn mark(&self, x: f64, y: f64, seconds: Seconds) -> String {
        let Self { fill, stroke, .. } = self;
        let ink = format!("fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"1.5\"");
        if matches!(seconds, Seconds::MoreThan(_)) {
            let (up, down, tip) = (y - 5.0, y + 5.0, x + 8.0);
            return format!("<path d=\"M{x:.1} {up} L{tip:.1} {y} L{x:.1} {down} Z\" {ink}/>\n");
        }
        if self.is_round {
            return format!("<circle cx=\"{x:.1}\" cy=\"{y}\" r=\"4.5\" {ink}/>\n");
        }
        let (left, right, up, down) = (x - 4.0, x + 4.0, y - 4.0, y + 4.0);
        format!(
            "<path d=\"M{left:.1} {y} L{x:.1} {up} L{right:.1} {y} L{x:.1} {down} Z\" {ink}/>\n"
        )
    }
}

/// Seconds to places, the same in all panels.
struct Scale {
    /// Powers of ten.
    low: i32,
    high: i32,
}

impl Scale {
    fn of(runs: &[Run], rows: &[String]) -> Self {
        let mut all: Vec<f64> = Vec::new();
        for run in runs {
            for (row, style) in rows
                .iter()
                .flat_map(|row| STYLES.iter().map(move |s| (row, s)))
            {
                all.extend(run.summary(row, style.system).seconds.map(length));
            }
        }
        let low = all.iter().copied().fold(f64::INFINITY, f64::min).max(0.001);
        let high = all.iter().copied().fold(0.0, f64::max).max(1.0);
        // Whole powers of ten between -3 and 9.
        let power = |value: f64| value as i32;
        let low = if low.is_finite() {
            power(low.log10().floor())
        } else {
            -1
        };
        Self {
            low,
            high: power(high.log10().ceil()).max(low + 1),
        }
    }

    fn x(&self, left: f64, seconds: f64) -> f64 {
        let part =
            (seconds.max(0.001).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        left + MARGIN + part * (PANEL - MARGIN - RATIOS)
    }
}

fn length(seconds: Seconds) -> f64 {
    match seconds {
        Seconds::Exactly(seconds) | Seconds::MoreThan(seconds) => seconds,
    }
}

fn middle(row: i32) -> f64 {
    TOP + (f64::from(row) + 0.5) * ROW
}

fn text(x: f64, y: f64, anchor: &str, content: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{content}</text>\n")
}

/// Without what Markdown wants around commands.
fn plain(title: &str) -> String {
    title.replace('`', "")
}

const STYLES: [Style; 4] = [
    Style {
        system: "sftpfs",
        name: "sftpfs",
        fill: "#1a7f37",
        stroke: "#1a7f37",
        is_round: true,
    },
    Style {
        system: "sshfs",
        name: "sshfs",
        fill: "#ffffff",
        stroke: "#cf222e",
        is_round: true,
    },
    Style {
        system: "rclone",
        name: "rclone mount",
        fill: "#ffffff",
        stroke: "#0969da",
        is_round: true,
    },
    Style {
        system: "ssh",
        name: "the same by ssh, no mount",
        fill: "#57606a",
        stroke: "#57606a",
        is_round: false,
    },
];

const LABELS: f64 = 224.0;
const PANEL: f64 = 270.0;
const GAP: f64 = 12.0;
const MARGIN: f64 = 14.0;
/// Room at the right of a panel for how many times faster.
const RATIOS: f64 = 62.0;
const ROW: f64 = 22.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = 30.0;

#[cfg(test)]
mod tests {
    use super::super::figures::tests::run_of;
    use super::*;

    #[test]
    fn every_mark_is_inside_its_panel() {
        let times = [("read", "sftpfs", 0.004), ("read", "sshfs", 999.0)];
        let runs = [run_of(0.0, &times)];
        let scale = Scale::of(&runs, &["read".into()]);
        for (_, _, seconds) in times {
            let x = scale.x(0.0, seconds);
            assert!(
                (MARGIN..=PANEL - RATIOS).contains(&x),
                "{seconds} s is at {x}"
            );
        }
    }

    #[test]
    fn ten_times_as_long_is_the_same_step_to_the_right() {
        let scale = Scale { low: -2, high: 2 };
        let steps = [0.1, 1.0, 10.0].map(|s| scale.x(0.0, s * 10.0) - scale.x(0.0, s));
        assert!((steps[0] - steps[1]).abs() < 1e-9 && (steps[1] - steps[2]).abs() < 1e-9);
    }

    #[test]
    fn the_picture_names_the_systems_it_shows_and_no_other() {
        let runs = [run_of(
            0.0,
            &[("read", "sftpfs", 1.0), ("read", "sshfs", -60.0)],
        )];
        let svg = draw(&runs);
        assert!(svg.contains(">sshfs<") && !svg.contains("rclone"));
        assert!(svg.contains("&gt; 60 x"));
    }
}
