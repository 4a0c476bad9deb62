//! Draws maps on a sheet: a row an adapter, a column a step, with its timestep above and its mean beneath.

use super::measure::{Map, Maps};
use crate::scenes::glyphs;

type Rgb = [f32; 3];

/// Height of a capital and thickness of its lines, in pixels.
const LETTER: f32 = 9.0;
const PEN: f32 = 0.75;
/// From letter to letter, in pixels.
const ADVANCE: usize = 9;
/// Pixels around cells.
const GAP: usize = 6;
/// Pixels of a line of text.
const LINE: usize = 18;
const INK: Rgb = [0.1, 0.1, 0.1];
const PAPER: Rgb = [1.0; 3];

/// Colours from the smallest weight to the largest, which get evenly lighter (the map viridis at ninths of its way).
const COLOURS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

/// The colour of `share` of the way from the smallest to the largest.
fn colour(share: f32) -> Rgb {
    let place = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32;
    let first = (place as usize).min(COLOURS.len() - 2);
    let t = place - first as f32;
    [0, 1, 2].map(|c| {
        let [a, b] = [COLOURS[first][c], COLOURS[first + 1][c]].map(|v| f32::from(v) / 255.0);
        a + (b - a) * t
    })
}

/// A sheet in the making, colours in [0, 1].
pub struct Sheet {
    pub width: usize,
    pub height: usize,
    pub colour: Vec<f32>,
}

impl Sheet {
    /// Draws the maps of `adapters` at `steps`, in cells of `side` pixels at their longer side, with colours for the
    /// weights of `range`.
    pub fn of(maps: &Maps, (adapters, steps): (&[usize], &[usize]), side: usize, range: [f32; 2]) -> Self {
        let largest = &maps.maps[adapters[0]][steps[0]];
        let scale = side as f64 / largest.height.max(largest.width) as f64;
        let cell = [largest.height, largest.width].map(|size| ((size as f64 * scale) as usize).max(1));
        // What stands above a column or beneath a cell needs its room, too.
        let step_x = cell[1].max(5 * ADVANCE) + GAP;
        let step_y = cell[0] + LINE + GAP;
        let left = 4 * ADVANCE + GAP;
        let bar = 3 * ADVANCE + 2 * GAP;
        let mut sheet = Sheet::blank(left + steps.len() * step_x + bar, LINE + GAP + adapters.len() * step_y);
        for (column, &step) in steps.iter().enumerate() {
            let label = format!("t={}", maps.timesteps[step]);
            sheet.write(&label, left + column * step_x, GAP / 2);
        }
        for (row, &adapter) in adapters.iter().enumerate() {
            let y = LINE + GAP + row * step_y;
            sheet.write(&format!("{}", adapter + 1), GAP, y + cell[0] / 2 - LETTER as usize / 2);
            for (column, &step) in steps.iter().enumerate() {
                let (map, x) = (&maps.maps[adapter][step], left + column * step_x);
                sheet.draw(map, range, [y, x], cell);
                sheet.write(&format!("{:.2}", map.mean()), x, y + cell[0] + 4);
            }
        }
        sheet.scale(range, [LINE + GAP, left + steps.len() * step_x], cell[0].max(6 * LINE));
        sheet
    }

    fn blank(width: usize, height: usize) -> Self {
        Sheet { width, height, colour: PAPER.repeat(width * height) }
    }

    fn pixel(&mut self, y: usize, x: usize) -> Option<&mut [f32]> {
        let inside = y < self.height && x < self.width;
        inside.then(|| &mut self.colour[(y * self.width + x) * 3..][..3])
    }

    /// A map, each of its pixels as large as fits `cell`.
    fn draw(&mut self, map: &Map, [low, high]: [f32; 2], [y, x]: [usize; 2], [height, width]: [usize; 2]) {
        for row in 0..height {
            for column in 0..width {
                let place = row * map.height / height * map.width + column * map.width / width;
                let shade = colour((map.values[place] - low) / (high - low));
                if let Some(pixel) = self.pixel(y + row, x + column) {
                    pixel.copy_from_slice(&shade);
                }
            }
        }
    }

    /// What the colours mean: the largest weight on top.
    fn scale(&mut self, [low, high]: [f32; 2], [y, x]: [usize; 2], height: usize) {
        let x = x + GAP;
        for row in 0..height {
            let shade = colour(1.0 - row as f32 / (height - 1) as f32);
            for column in 0..ADVANCE {
                if let Some(pixel) = self.pixel(y + row, x + column) {
                    pixel.copy_from_slice(&shade);
                }
            }
        }
        for (share, row) in [(1.0, 0), (0.5, height / 2), (0.0, height - 1)] {
            let row = (y + row).saturating_sub(LETTER as usize / 2);
            self.write(&format!("{}", low + (high - low) * share), x + ADVANCE + GAP / 2, row);
        }
    }

    /// Writes `text` with its upper left corner at a pixel.
    fn write(&mut self, text: &str, x: usize, y: usize) {
        let unit = LETTER / 6.0;
        for (place, character) in text.chars().enumerate() {
            let corner = [(x + place * ADVANCE) as f32 + 1.0, y as f32 + 1.0];
            for line in glyphs::lines(character) {
                let line: Vec<[f32; 2]> =
                    line.iter().map(|[u, v]| [corner[0] + u * unit, corner[1] + v * unit]).collect();
                // A dot is a line that ends where it begins.
                line.windows(2).for_each(|ends| self.stroke(ends[0], ends[1]));
            }
        }
    }

    fn stroke(&mut self, from: [f32; 2], to: [f32; 2]) {
        let reach = PEN + 1.0;
        let low = [0, 1].map(|c| (from[c].min(to[c]) - reach).max(0.0) as usize);
        let high = [0, 1].map(|c| (from[c].max(to[c]) + reach).ceil() as usize);
        for y in low[1]..=high[1] {
            for x in low[0]..=high[0] {
                let coverage =
                    (PEN + 0.5 - distance([x as f32 + 0.5, y as f32 + 0.5], from, to)).clamp(0.0, 1.0);
                if let Some(pixel) = self.pixel(y, x) {
                    pixel.iter_mut().zip(INK).for_each(|(v, ink)| *v += (ink - *v) * coverage);
                }
            }
        }
    }
}

/// From a point to the line between two others.
fn distance(point: [f32; 2], from: [f32; 2], to: [f32; 2]) -> f32 {
    let (along, own) = ([to[0] - from[0], to[1] - from[1]], [point[0] - from[0], point[1] - from[1]]);
    let length = along[0] * along[0] + along[1] * along[1];
    let t =
        if length > 0.0 { ((own[0] * along[0] + own[1] * along[1]) / length).clamp(0.0, 1.0) } else { 0.0 };
    (own[0] - t * along[0]).hypot(own[1] - t * along[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_colours_of_its_map_and_the_text_its_ink() {
        let map = Map { height: 1, width: 2, values: vec![0.0, 1.0] };
        let maps = Maps { timesteps: vec![999], maps: vec![vec![map]] };
        let mut sheet = Sheet::of(&maps, (&[0], &[0]), 40, [0.0, 1.0]);
        let (left, top) = (4 * ADVANCE + GAP, LINE + GAP);
        let mut at = |y: usize, x: usize| sheet.pixel(y, x).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
        assert_eq!(at(top + 3, left + 3), Some(colour(0.0)));
        assert_eq!(at(top + 3, left + 36), Some(colour(1.0)));
        assert!(
            (0..LINE).any(|y| (left..left + 40).any(|x| at(y, x).is_some_and(|p| p[0] < 0.3))),
            "no timestep"
        );
        assert_eq!(colour(0.5), [33.0 / 255.0, 144.0 / 255.0, 141.0 / 255.0]);
    }
}
