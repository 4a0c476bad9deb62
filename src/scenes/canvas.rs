//! What scenes are painted on: premultiplied colour with coverage, so that a layer can be blurred and laid over another.

/// A colour in [0, 1], display values as a file holds them.
pub type Rgb = [f32; 3];

/// `[side, side, 4]`: red, green and blue multiplied by the coverage, then the coverage.
#[derive(Clone)]
pub struct Canvas {
    pub side: usize,
    pub pixels: Vec<[f32; 4]>,
}

impl Canvas {
    /// Nothing painted.
    pub fn clear(side: usize) -> Self {
        Canvas { side, pixels: vec![[0.0; 4]; side * side] }
    }

    /// A colour for each pixel, given the place of its middle.
    pub fn painted(side: usize, colour: impl Fn(f32, f32) -> Rgb) -> Self {
        let mut canvas = Canvas::clear(side);
        for (i, pixel) in canvas.pixels.iter_mut().enumerate() {
            let [r, g, b] = colour((i % side) as f32 + 0.5, (i / side) as f32 + 0.5);
            *pixel = [r, g, b, 1.0];
        }
        canvas
    }

    /// Lays `colour` over the pixel, opaque by `coverage` in [0, 1].
    pub fn blend(&mut self, x: usize, y: usize, [r, g, b]: Rgb, coverage: f32) {
        let below = 1.0 - coverage;
        let pixel = &mut self.pixels[y * self.side + x];
        for (under, over) in pixel.iter_mut().zip([r, g, b, 1.0]) {
            *under = *under * below + over * coverage;
        }
    }

    /// Lays another canvas of the same side over this one.
    pub fn lay(&mut self, top: &Canvas) {
        for (under, over) in self.pixels.iter_mut().zip(&top.pixels) {
            let below = 1.0 - over[3];
            under.iter_mut().zip(over).for_each(|(u, o)| *u = *u * below + o);
        }
    }

    /// The pixels whose middles may lie within `reach` of `[x, y]`: columns and rows, ends left out.
    pub fn around(&self, [x, y]: [f32; 2], reach: f32) -> [[usize; 2]; 2] {
        self.window([x - reach, y - reach], [x + reach, y + reach])
    }

    /// The pixels of the box from `low` to `high`: columns and rows, ends left out.
    pub fn window(&self, low: [f32; 2], high: [f32; 2]) -> [[usize; 2]; 2] {
        let end = self.side as f32;
        let range = |axis: usize| {
            // A cast saturates, and what is not a number becomes 0.
            [low[axis].floor().clamp(0.0, end) as usize, (high[axis].ceil() + 1.0).clamp(0.0, end) as usize]
        };
        [range(0), range(1)]
    }

    /// Out of focus: two passes of a box of this half width, which is close to a lens's disc seen from far.
    pub fn blur(&mut self, radius: f32) {
        for _ in 0..2 {
            self.box_rows(radius);
            self.transpose();
            self.box_rows(radius);
            self.transpose();
        }
    }

    fn transpose(&mut self) {
        for y in 0..self.side {
            for x in 0..y {
                self.pixels.swap(y * self.side + x, x * self.side + y);
            }
        }
    }

    /// The mean of 2 `radius` + 1 pixels of a row, the outermost by their fraction, borders repeated.
    fn box_rows(&mut self, radius: f32) {
        let (whole, part) = (radius.floor() as isize, radius.fract());
        let scale = 1.0 / (2.0 * radius + 1.0);
        let last = self.side as isize - 1;
        let mut source = vec![[0.0f32; 4]; self.side];
        for row in self.pixels.chunks_exact_mut(self.side) {
            source.copy_from_slice(row);
            let at = |x: isize| source[x.clamp(0, last) as usize];
            let mut sum = [0.0f32; 4];
            (-whole..=whole).for_each(|x| sum.iter_mut().zip(at(x)).for_each(|(s, v)| *s += v));
            for (x, pixel) in row.iter_mut().enumerate() {
                let x = x as isize;
                let (before, after) = (at(x - whole - 1), at(x + whole + 1));
                for c in 0..4 {
                    pixel[c] = (sum[c] + part * (before[c] + after[c])) * scale;
                }
                let leaving = at(x - whole);
                sum.iter_mut().zip(after).zip(leaving).for_each(|((s, a), l)| *s += a - l);
            }
        }
    }
}
