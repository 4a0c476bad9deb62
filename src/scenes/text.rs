//! Lettering: pages, signs and labels, in a stroke alphabet or in fonts that the user has.

use std::path::{Path, PathBuf};

use ab_glyph::{Font, FontVec, ScaleFont, point};

use super::canvas::{Canvas, Rgb};
use super::colour::Palette;
use super::glyphs;
use super::paint::Paint;
use super::shape::{Shape, Style};
use super::strokes::stroke;
use super::{Random, span};
use crate::error::{Error, Result};

/// Fonts that text is set in, besides the stroke alphabet.
#[derive(Default)]
pub struct Fonts(Vec<FontVec>);

impl Fonts {
    /// Every TrueType and OpenType font of a folder (and of the folders within), in the order of their paths.
    ///
    /// # Errors
    /// The folder cannot be read, or has no font that can be used.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        collect(folder, &mut paths)?;
        paths.sort();
        let mut fonts = Vec::new();
        for path in &paths {
            let bytes = std::fs::read(path).map_err(|error| Error::io("read the font", path, &error))?;
            // A font of symbols has no letters to set, and a damaged one none that can be read.
            let font = FontVec::try_from_vec(bytes).ok();
            fonts.extend(font.filter(|font| "aeRT3".chars().all(|c| font.glyph_id(c).0 != 0)));
        }
        if fonts.is_empty() {
            return Err(Error::input("no .ttf or .otf font with Latin letters is here")
                .at(folder.display().to_string())
                .fix("give a folder of fonts, or leave --fonts out"));
        }
        Ok(Fonts(fonts))
    }
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("read the folder of fonts", folder, &error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("ttf") || e.eq_ignore_ascii_case("otf"))
        {
            paths.push(path);
        }
    }
    Ok(())
}

/// How letters look: of the stroke alphabet, or a font.
enum Hand<'a> {
    /// width of a letter, slant, weight (in heights), how far points stray, rounded or not
    Pen {
        wide: f32,
        slant: f32,
        weight: f32,
        stray: f32,
        round: bool,
    },
    Font(&'a FontVec),
}

impl<'a> Hand<'a> {
    fn draw(fonts: &'a Fonts, random: &mut Random) -> Self {
        if !fonts.0.is_empty() && random.chance(0.75) {
            return Hand::Font(&fonts.0[random.index(fonts.0.len())]);
        }
        Hand::Pen {
            wide: span(random, 0.4, 0.75),
            slant: if random.chance(0.3) { span(random, -0.1, 0.35) } else { 0.0 },
            weight: span(random, 0.05, 0.18),
            stray: if random.chance(0.25) { span(random, 0.02, 0.07) } else { 0.0 },
            round: random.chance(0.7),
        }
    }
}

/// Where a line of text starts and how it runs.
#[derive(Clone, Copy)]
struct Line {
    /// left end of the base line in pixels
    start: [f32; 2],
    /// height of a capital in pixels
    height: f32,
    /// direction of the base line; fonts are set level
    angle: f32,
    /// pixels that it may take
    room: f32,
}

/// A made-up word: syllables, now and then a number.
fn word(random: &mut Random) -> String {
    if random.chance(0.12) {
        let digits = 1 + random.index(5);
        return (0..digits).map(|_| char::from(b'0' + random.index(10) as u8)).collect();
    }
    let (starts, vowels, ends) = (
        [
            "b", "br", "d", "fl", "g", "h", "j", "k", "l", "m", "n", "p", "qu", "r", "s", "st", "t", "tr",
            "v", "w", "z", "",
        ],
        ["a", "e", "i", "o", "u", "ea", "ou", "y"],
        ["", "", "n", "r", "nd", "t", "l", "rf", "x", "m"],
    );
    let mut word = String::new();
    for _ in 0..1 + random.index(3) {
        word.push_str(starts[random.index(starts.len())]);
        word.push_str(vowels[random.index(vowels.len())]);
        word.push_str(ends[random.index(ends.len())]);
    }
    match random.choose(&[0.6, 0.25, 0.15]) {
        0 => word,
        1 => word[..1].to_uppercase() + &word[1..],
        _ => word.to_uppercase(),
    }
}

fn write_line(canvas: &mut Canvas, hand: &Hand, line: Line, colour: Rgb, random: &mut Random) {
    let (sin, cos) = line.angle.sin_cos();
    let mut pen = 0.0;
    while pen < line.room {
        let mut text = word(random);
        if random.chance(0.15) {
            let marks: Vec<char> = glyphs::characters().filter(|c| !c.is_alphanumeric()).collect();
            text.push(marks[random.index(marks.len())]);
        }
        for character in text.chars() {
            pen += match hand {
                Hand::Pen { wide, slant, weight, stray, round } => {
                    let unit = line.height / 6.0;
                    for points in glyphs::lines(character) {
                        let points = if *round { glyphs::rounded(&points) } else { points };
                        let moved: Vec<[f32; 2]> = points
                            .iter()
                            .map(|[x, y]| {
                                let jitter =
                                    |random: &mut Random| stray * line.height * random.normal() as f32;
                                let (up, dx, dy) = ((y - 6.0) * unit, jitter(random), jitter(random));
                                let along = pen + x * wide * unit * 1.4 - slant * up + dx;
                                let up = up + dy;
                                [
                                    line.start[0] + cos * along - sin * up,
                                    line.start[1] + sin * along + cos * up,
                                ]
                            })
                            .collect();
                        stroke(canvas, &moved, |_| weight * line.height, |_| colour, 1.0);
                    }
                    line.height * (wide * 1.4 * 4.0 / 6.0 + 1.6 * weight)
                }
                Hand::Font(font) => {
                    set(canvas, font, character, [line.start[0] + pen, line.start[1]], line.height, colour)
                }
            };
            if pen > line.room {
                return;
            }
        }
        pen += 0.5 * line.height;
    }
}

/// Sets a character on its base line and says how far the next one is.
fn set(
    canvas: &mut Canvas,
    font: &FontVec,
    character: char,
    [x, y]: [f32; 2],
    height: f32,
    colour: Rgb,
) -> f32 {
    // A capital takes about 0.7 of a font's em.
    let scaled = font.as_scaled(height * 1.4);
    let id = scaled.glyph_id(character);
    if let Some(outlined) = scaled.outline_glyph(id.with_scale_and_position(scaled.scale(), point(x, y))) {
        let corner = outlined.px_bounds().min;
        let side = canvas.side as f32;
        outlined.draw(|column, row, coverage| {
            let (column, row) = (corner.x + column as f32, corner.y + row as f32);
            if column >= 0.0 && row >= 0.0 && column < side && row < side {
                canvas.blend(column as usize, row as usize, colour, coverage.clamp(0.0, 1.0));
            }
        });
    }
    scaled.h_advance(id)
}

/// A page: lines of text under each other, of one or several sizes.
pub fn page(canvas: &mut Canvas, palette: &Palette, fonts: &Fonts, random: &mut Random) {
    let side = canvas.side as f32;
    let [dark, light] = palette.pair(random, 0.45);
    let (paper, ink) = if random.chance(0.7) { (light, dark) } else { (dark, light) };
    let ground = match random.chance(0.5) {
        true => Paint::Flat(paper),
        false => Paint::material(&Palette::around(paper, 0.02, random), side, random),
    };
    *canvas = Canvas::painted(canvas.side, |x, y| ground.at(x, y));
    let angle = if random.chance(0.4) { span(random, -0.3, 0.3) } else { 0.0 };
    let mut hand = Hand::draw(fonts, random);
    let mut height = side * span(random, 0.012, 0.05).max(6.0 / side);
    let mut y = -0.3 * side;
    while y < 1.3 * side {
        if random.chance(0.15) {
            hand = Hand::draw(fonts, random);
            height = (side * 0.018 * (0.8 * random.normal() as f32).exp()).clamp(6.0, 0.2 * side);
        }
        y += 1.75 * height;
        let line = Line {
            start: [side * span(random, 0.0, 0.06), y],
            height,
            angle,
            room: side * span(random, 0.5, 0.96),
        };
        write_line(canvas, &hand, line, ink, random);
    }
}

/// Signs and labels on whatever is there: panels with one to three lines, or bare letters.
pub fn labels(canvas: &mut Canvas, palette: &Palette, fonts: &Fonts, count: usize, random: &mut Random) {
    let side = canvas.side as f32;
    for _ in 0..count {
        let height = (side * 0.05 * (0.6 * random.normal() as f32).exp()).clamp(7.0, 0.3 * side);
        let rows = 1 + random.index(3);
        let room = (height * span(random, 3.0, 9.0)).min(0.9 * side);
        let corner = [span(random, -0.1 * side, side - 0.6 * room), span(random, 0.0, side)];
        let [dark, light] = palette.pair(random, 0.4);
        let (ground, ink) = if random.chance(0.5) { (light, dark) } else { (dark, light) };
        if random.chance(0.75) {
            let half = [0.5 * room + height, 0.85 * height * rows as f32 + 0.3 * height];
            let middle = [corner[0] + 0.5 * room, corner[1] + 0.85 * height * rows as f32 - 1.2 * height];
            let corner = if random.chance(0.5) { 0.3 * height } else { 0.0 };
            Shape::rectangle(middle, half, corner).fill(canvas, &Paint::Flat(ground), Style::PLAIN);
        }
        let hand = Hand::draw(fonts, random);
        for row in 0..rows {
            let start = [corner[0], corner[1] + 1.7 * height * row as f32];
            write_line(canvas, &hand, Line { start, height, angle: 0.0, room }, ink, random);
        }
    }
}
