//! A plot of ratios by case, with the line that `cp` is.

use super::row::{Rounds, Row, Spread};

const LEFT: f64 = 330.0;
const WIDTH: f64 = 640.0;
const RIGHT: f64 = 90.0;
const HEIGHT: f64 = 18.0;
const TOP: f64 = 34.0;
/// Ratios at the ends; the scale is logarithmic.
const ENDS: (f64, f64) = (0.02, 50.0);

struct Bar<'a> {
    name: &'a str,
    spread: Spread,
    /// Target and bound, of ours.
    limit: Option<(f64, f64)>,
}

/// The drawing, for the rows whose values are ratios.
pub(super) fn draw(rows: &[Row]) -> String {
    let mut bars = Vec::new();
    for row in rows.iter().filter(|row| row.is_ratio()) {
        let limit = Some((row.case.limit.0, row.case.limit.1));
        bars.extend(bar(row.case.name, &row.ours, limit));
        for (peer, rounds) in row.case.peers.iter().zip(&row.peers) {
            bars.extend(bar(peer.name, rounds, None));
        }
    }
    let count = u32::try_from(bars.len()).map_or(0.0, f64::from);
    let (width, bottom) = (LEFT + WIDTH + RIGHT, TOP + count * HEIGHT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Time of each conversion as a multiple of cp of the same bytes</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        bottom + 14.0
    );
    for mark in [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0] {
        let (x, cp) = (place(mark), (mark - 1.0_f64).abs() < f64::EPSILON);
        let (colour, label) =
            if cp { ("#c00", "cp".to_owned()) } else { ("#ddd", mark.to_string()) };
        out += &format!(
            "<path d=\"M{x:.1} {:.0}V{bottom:.0}\" stroke=\"{colour}\"/>\
             <text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>\n",
            TOP - 8.0,
            TOP - 14.0
        );
    }
    let mut top = TOP;
    for bar in &bars {
        out += &one(bar, top);
        top += HEIGHT;
    }
    out + "</svg>\n"
}

fn bar<'a>(name: &'a str, rounds: &Rounds, limit: Option<(f64, f64)>) -> Option<Bar<'a>> {
    let spread = Spread::of(&rounds.values).filter(|_| rounds.failure.is_none())?;
    Some(Bar { name, spread, limit })
}

fn one(bar: &Bar<'_>, top: f64) -> String {
    let Bar { name, spread, limit } = bar;
    let (end, middle, base) = (place(spread.median), top + HEIGHT / 2.0, top + HEIGHT - 5.0);
    let fill = if limit.is_some() { "#2a6" } else { "#999" };
    let indent = if limit.is_some() { 0.0 } else { 16.0 };
    let mut out = format!(
        "<text x=\"{:.0}\" y=\"{base:.1}\">{}</text>\
         <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{fill}\"/>\
         <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"black\"/>\
         <text x=\"{:.1}\" y=\"{base:.1}\">{:.2}</text>",
        8.0 + indent,
        escape(name),
        top + 3.0,
        end - LEFT,
        HEIGHT - 6.0,
        place(spread.least),
        place(spread.most),
        place(spread.most) + 6.0,
        spread.median,
    );
    for mark in limit.iter().flat_map(|(target, most)| [target, most]) {
        let (x, low, high) = (place(*mark), top + 1.0, top + HEIGHT - 1.0);
        out +=
            &format!("<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"#06c\" stroke-width=\"2\"/>");
    }
    out + "\n"
}

/// Where a ratio lies.
fn place(ratio: f64) -> f64 {
    let (least, most) = ENDS;
    let part = (ratio.clamp(least, most) / least).ln() / (most / least).ln();
    LEFT + WIDTH * part
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_their_place() {
        assert!((place(ENDS.0) - LEFT).abs() < 1e-9);
        assert!((place(1000.0) - LEFT - WIDTH).abs() < 1e-9);
        assert!((place(1.0) - LEFT - WIDTH / 2.0).abs() < 1e-9);
        assert_eq!(escape("a<b & c"), "a&lt;b &amp; c");
    }
}
