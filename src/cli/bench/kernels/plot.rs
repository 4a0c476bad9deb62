//! The measured calls under the roofline, as a picture.

use std::fmt::Write;
use std::path::Path;

use super::Row;
use super::measure::Roof;
use crate::error::{Error, Result};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 600.0;
const MARGIN: f64 = 70.0;
/// Operations a byte at the ends of the axis.
const RANGE: (f64, f64) = (0.05, 20_000.0);
/// Powers of ten below the roof.
const DECADES: f64 = 4.0;

/// The colour of each op.
const COLOURS: [(&str, &str); 6] = [
    ("conv2d", "#1f77b4"),
    ("linear", "#2ca02c"),
    ("linear_geglu", "#17becf"),
    ("attention", "#d62728"),
    ("adapter_gate", "#9467bd"),
    ("", "#7f7f7f"),
];

fn colour(op: &str) -> &'static str {
    COLOURS.iter().find(|(name, _)| *name == op || name.is_empty()).map_or("#7f7f7f", |(_, colour)| colour)
}

/// The picture: operations a byte across, operations a second up, both logarithmic. A disc's area is its share of an
/// image's time; what has no products counts one operation a byte moved and lies on the slope.
pub fn svg(rows: &[Row], roof: &Roof) -> String {
    let (low, high) = (RANGE.0.log10(), RANGE.1.log10());
    let top = roof.flops.log10() + 0.2;
    let x = |intensity: f64| {
        let share = (intensity.clamp(RANGE.0, RANGE.1).log10() - low) / (high - low);
        MARGIN + share * (WIDTH - 2.0 * MARGIN)
    };
    let y = |rate: f64| {
        let share = ((top - rate.max(1.0).log10()) / DECADES).clamp(0.0, 1.0);
        MARGIN + share * (HEIGHT - 2.0 * MARGIN)
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let title =
        rows.first().map_or(String::new(), |row| format!("{}, {}; {}", row.device, row.dtype, row.clock));
    let _ = writeln!(text, "<text x=\"{MARGIN}\" y=\"24\" font-size=\"15\">{}</text>", escape(&title));
    let _ = writeln!(
        text,
        "<text x=\"{MARGIN}\" y=\"44\">roofline {:.2} TFLOP/s, {:.0} GB/s, measured in the same run</text>",
        roof.flops / 1e12,
        roof.bytes / 1e9
    );
    let ridge = roof.flops / roof.bytes;
    let _ = writeln!(
        text,
        "<polyline fill=\"none\" stroke=\"black\" stroke-width=\"1.5\" points=\"{:.1},{:.1} {:.1},{:.1} {:.1},{:.1}\"/>",
        x(RANGE.0),
        y(RANGE.0 * roof.bytes),
        x(ridge),
        y(roof.flops),
        x(RANGE.1),
        y(roof.flops)
    );
    for exponent in (low.ceil() as i32)..=(high.floor() as i32) {
        let at = x(10f64.powi(exponent));
        let _ = writeln!(
            text,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - MARGIN + 18.0,
            10f64.powi(exponent)
        );
    }
    for decade in 0..=DECADES as i32 {
        let rate = 10f64.powf(top.floor() - f64::from(decade));
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} TFLOP/s</text>",
            MARGIN - 6.0 + 60.0,
            y(rate) - 3.0,
            rate / 1e12
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">operations a byte</text>",
        WIDTH / 2.0,
        HEIGHT - 20.0
    );
    let total: f64 = rows.iter().map(|row| row.total_ms).sum();
    for row in rows {
        let work = if row.flops > 0.0 { row.flops } else { row.bytes };
        let radius = 3.0 + 40.0 * (row.total_ms / total.max(f64::MIN_POSITIVE)).sqrt();
        let _ = writeln!(
            text,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\" fill=\"{}\" fill-opacity=\"0.45\"><title>{}</title></circle>",
            x(work / row.bytes.max(1.0)),
            y(work / (row.us / 1e6)),
            colour(row.op),
            escape(&format!(
                "{} {}: {:.2} us, {:.0} % of the roof, {:.3} ms an image",
                row.op, row.shape, row.us, row.percent_of_roof, row.total_ms
            ))
        );
    }
    for (place, (name, colour)) in COLOURS.iter().enumerate() {
        let (at, name) = (MARGIN + 20.0 * place as f64, if name.is_empty() { "other ops" } else { name });
        let _ = writeln!(
            text,
            "<circle cx=\"{0}\" cy=\"{at}\" r=\"6\" fill=\"{colour}\"/><text x=\"{1}\" y=\"{2}\">{name}</text>",
            WIDTH - 150.0,
            WIDTH - 138.0,
            at + 4.0
        );
    }
    text.push_str("</svg>\n");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Writes the picture to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, rows: &[Row], roof: &Roof) -> Result<()> {
    std::fs::write(path, svg(rows, roof)).map_err(|error| Error::io("write", path, &error))
}
