//! Gradient noise (Perlin 2002, "Improving noise") summed over octaves to a spectrum as steep as that of photos.

use super::{Random, span};

/// Noise of one picture: a field over the plane.
#[derive(Clone, Copy)]
pub struct Noise {
    salt: u32,
    octaves: u32,
    /// amplitude from an octave to the next, finer one
    gain: f32,
    /// place in pixels to place in the field: rotation, stretch and frequency
    matrix: [f32; 4],
    /// how far the field is bent by itself
    warp: f32,
    /// sharp crests instead of soft hills
    ridged: bool,
}

/// A mixed 32-bit hash (after "lowbias32" by Chris Wellons).
pub fn hash(mut value: u32) -> u32 {
    value ^= value >> 16;
    value = value.wrapping_mul(0x7feb_352d);
    value ^= value >> 15;
    value = value.wrapping_mul(0x846c_a68b);
    value ^ (value >> 16)
}

/// A number in [0, 1) for a cell of a lattice.
pub fn cell(x: i32, y: i32, salt: u32) -> f32 {
    hash((x as u32).wrapping_mul(0x9e37_79b9) ^ hash((y as u32) ^ salt)) as f32 / 4_294_967_296.0
}

/// Noise of one octave, near [-1, 1], with cells of side 1.
pub fn gradient(x: f32, y: f32, salt: u32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let (cx, cy) = (fx as i32, fy as i32);
    let (dx, dy) = (x - fx, y - fy);
    let rows = [hash(cy as u32 ^ salt), hash(cy.wrapping_add(1) as u32 ^ salt)];
    let columns = [cx as u32, cx.wrapping_add(1) as u32].map(|c| c.wrapping_mul(0x9e37_79b9));
    let corner = |i: usize, j: usize| {
        let (px, py) = (dx - i as f32, dy - j as f32);
        let code = hash(columns[i] ^ rows[j]);
        // Two independent numbers in [-1, 1] are gradient enough, and need no sine.
        let gx = (code & 0xffff) as f32 / 32767.5 - 1.0;
        let gy = (code >> 16) as f32 / 32767.5 - 1.0;
        gx * px + gy * py
    };
    let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
    let (u, v) = (fade(dx), fade(dy));
    let top = corner(0, 0) + u * (corner(1, 0) - corner(0, 0));
    let bottom = corner(0, 1) + u * (corner(1, 1) - corner(0, 1));
    1.6 * (top + v * (bottom - top))
}

impl Noise {
    /// A plain field whose coarsest features are `size` pixels wide.
    pub fn plain(size: f32, octaves: u32, gain: f32, random: &mut Random) -> Self {
        let turn = span(random, 0.0, std::f32::consts::TAU);
        let (sin, cos) = turn.sin_cos();
        let matrix = [cos, -sin, sin, cos].map(|v| v / size);
        Noise { salt: random.index(1 << 32) as u32, octaves, gain, matrix, warp: 0.0, ridged: false }
    }

    /// Any material: stretched, bent, ridged or not, down to the grain of a pixel.
    pub fn material(size: f32, random: &mut Random) -> Self {
        let octaves = (size.log2().floor() as u32).clamp(1, 7);
        // Rough ones (gravel, foliage, carpets) have nearly as much in every octave.
        let gain = if random.chance(0.2) { span(random, 0.75, 1.0) } else { span(random, 0.48, 0.68) };
        let mut noise = Noise::plain(size, octaves, gain, random);
        if random.chance(0.35) {
            let stretch = span(random, 2.0, 10.0);
            noise.matrix[0] *= stretch;
            noise.matrix[1] *= stretch;
        }
        if random.chance(0.4) {
            noise.warp = span(random, 0.3, 1.5);
        }
        noise.ridged = random.chance(0.25);
        noise
    }

    /// Near [-1, 1].
    pub fn at(&self, x: f32, y: f32) -> f32 {
        let [a, b, c, d] = self.matrix;
        let (mut u, mut v) = (a * x + b * y, c * x + d * y);
        if self.warp > 0.0 {
            let (s, t) = (gradient(u, v, self.salt ^ 0x51ed), gradient(u, v, self.salt ^ 0xa3c1));
            (u, v) = (u + self.warp * s, v + self.warp * t);
        }
        let (mut sum, mut amplitude, mut total) = (0.0, 1.0, 0.0);
        for octave in 0..self.octaves {
            let value = gradient(u, v, self.salt.wrapping_add(octave));
            sum += amplitude * if self.ridged { 0.7 - 2.0 * value.abs() } else { value };
            total += amplitude;
            amplitude *= self.gain;
            // Not quite doubled, so that the lattices of octaves do not coincide.
            (u, v) = (u * 1.97 + 11.3, v * 1.97 - 7.7);
        }
        1.4 * sum / total
    }
}
