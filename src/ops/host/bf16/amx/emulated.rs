//! Tile registers in plain Rust, as Intel's manual (volume 2, TDPBF16PS and its neighbours) defines them. What the
//! processor would refuse with a fault is a panic here.

use half::bf16;

use super::{Config, ROW_BYTES, SIDE, Tiles};

type Tile = [[u8; ROW_BYTES]; SIDE];

pub struct Emulated {
    config: Option<Config>,
    tiles: [Tile; 8],
}

impl Default for Emulated {
    /// Registers of unknown content: whoever reads one before it is written gets NaN.
    fn default() -> Self {
        Emulated { config: None, tiles: [[[0xff; ROW_BYTES]; SIDE]; 8] }
    }
}

impl Emulated {
    /// Rows and bytes of a row of tile `T`.
    fn shape<const T: u8>(&self) -> (usize, usize) {
        let tile = usize::from(T);
        let config = self.config.as_ref();
        let shape = config.map(|c| (usize::from(c.rows[tile]), usize::from(c.row_bytes[tile])));
        let shape = shape.unwrap_or((0, 0));
        assert!(shape.0 > 0 && shape.1 > 0, "tile {T} is not configured");
        shape
    }
}

fn f32_at(row: &[u8; ROW_BYTES], i: usize) -> f32 {
    f32::from_le_bytes([row[4 * i], row[4 * i + 1], row[4 * i + 2], row[4 * i + 3]])
}

fn bf16_at(row: &[u8; ROW_BYTES], i: usize) -> f32 {
    bf16::from_le_bytes([row[2 * i], row[2 * i + 1]]).to_f32()
}

impl Tiles for Emulated {
    unsafe fn configure(&mut self, config: &Config) {
        let legal = |i: usize| {
            let (rows, bytes) = (usize::from(config.rows[i]), usize::from(config.row_bytes[i]));
            rows <= SIDE && bytes <= ROW_BYTES && bytes.is_multiple_of(4) && (rows == 0) == (bytes == 0)
        };
        assert!(config.palette == 1 && config.start_row == 0 && config.reserved == [0; 14], "{config:?}");
        assert!((0..8).all(legal), "{config:?}");
        assert!(config.rows[8..] == [0; 8] && config.row_bytes[8..] == [0; 8], "{config:?}");
        self.config = Some(*config);
        self.tiles = [[[0; ROW_BYTES]; SIDE]; 8];
    }

    unsafe fn zero<const T: u8>(&mut self) {
        self.shape::<T>();
        self.tiles[usize::from(T)] = [[0; ROW_BYTES]; SIDE];
    }

    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize) {
        let (rows, bytes) = self.shape::<T>();
        let tile = &mut self.tiles[usize::from(T)];
        *tile = [[0; ROW_BYTES]; SIDE];
        for (i, row) in tile.iter_mut().enumerate().take(rows) {
            // SAFETY: the caller's promise for each row of the tile.
            unsafe { from.add(i * stride).copy_to_nonoverlapping(row.as_mut_ptr(), bytes) };
        }
    }

    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize) {
        let (rows, bytes) = self.shape::<T>();
        for (i, row) in self.tiles[usize::from(T)].iter().enumerate().take(rows) {
            // SAFETY: the caller's promise for each row of the tile.
            unsafe { to.add(i * stride).copy_from_nonoverlapping(row.as_ptr(), bytes) };
        }
    }

    unsafe fn multiply<const C: u8, const A: u8, const B: u8>(&mut self) {
        let ((c_rows, c_bytes), (a_rows, a_bytes), (b_rows, b_bytes)) =
            (self.shape::<C>(), self.shape::<A>(), self.shape::<B>());
        assert!(C != A && C != B && A != B, "tiles {C}, {A} and {B} must differ");
        assert!(a_rows == c_rows && b_bytes == c_bytes && a_bytes == 4 * b_rows, "shapes do not fit");
        let (a, b) = (self.tiles[usize::from(A)], self.tiles[usize::from(B)]);
        for (a, c) in a.iter().zip(&mut self.tiles[usize::from(C)]).take(c_rows) {
            // Even and odd products are summed apart and then added to the tile.
            let mut sums = [[0f32; 2]; SIDE];
            for (pair, b) in b.iter().enumerate().take(b_rows) {
                for (n, sum) in sums.iter_mut().enumerate().take(c_bytes / 4) {
                    for (odd, sum) in sum.iter_mut().enumerate() {
                        *sum += bf16_at(a, 2 * pair + odd) * bf16_at(b, 2 * n + odd);
                    }
                }
            }
            for (n, [even, odd]) in sums.into_iter().enumerate().take(c_bytes / 4) {
                let total = f32_at(c, n) + (even + odd);
                c[4 * n..][..4].copy_from_slice(&total.to_le_bytes());
            }
        }
    }

    unsafe fn release(&mut self) {
        self.config = None;
    }
}
