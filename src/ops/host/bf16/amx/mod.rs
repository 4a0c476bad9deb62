//! The microkernel of AMX: `tdpbf16ps` adds the products of a 16x32 and a 32x16 tile to 16x16 f32 sums.
//!
//! A block is up to 32 rows by 32 outputs: four tiles of sums, two of rows, two of weights, so each loaded tile is
//! used twice. The algorithm is written once over [`Tiles`], which is the hardware or its emulation: the latter
//! proves on any machine that every tile is shaped, addressed and combined as the instructions define it.

mod emulated;
#[cfg(target_arch = "x86_64")]
mod hardware;
#[cfg(test)]
mod tests;

use half::bf16;

use super::{COLUMNS, Call, Kernel, STEP};

/// Rows of a tile, and f32 of one of its rows.
const SIDE: usize = 16;
/// Bytes of a tile's row.
const ROW_BYTES: usize = 64;

#[cfg(target_arch = "x86_64")]
pub const KERNEL: Kernel = Kernel { rows: 2 * SIDE, multiply: multiply::<hardware::Hardware> };
pub const EMULATED: Kernel = Kernel { rows: 2 * SIDE, multiply: multiply::<emulated::Emulated> };

/// What `ldtilecfg` reads: the shapes of the eight tiles.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}
const _: () = assert!(size_of::<Config>() == 64);

/// The tiles of a block: numbers of registers.
const SUMS: [[u8; 2]; 2] = [[0, 1], [2, 3]];
const ROWS: [u8; 2] = [4, 5];
const WEIGHTS: [u8; 2] = [6, 7];

impl Config {
    /// For blocks of `rows` rows, 1 to 32.
    fn of(rows: usize) -> Self {
        let halves = [rows.min(SIDE), rows.saturating_sub(SIDE)];
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (half, rows) in halves.into_iter().enumerate() {
            // The lower half of a small block is never used; its shape only has to be a legal one.
            let rows = if rows == 0 { SIDE } else { rows } as u8;
            for tile in SUMS[half].into_iter().chain([ROWS[half]]) {
                config.rows[usize::from(tile)] = rows;
            }
            config.rows[usize::from(WEIGHTS[half])] = (STEP / 2) as u8;
        }
        config.row_bytes[..8].fill(ROW_BYTES as u16);
        config
    }
}

/// Eight tile registers. Numbers of registers are constants, as the instructions hold them.
///
/// # Safety
/// Every method may only be called where the unit exists and after `configure`; addresses must be valid for the
/// shape of the tile.
trait Tiles: Default {
    unsafe fn configure(&mut self, config: &Config);
    unsafe fn zero<const T: u8>(&mut self);
    /// Rows of the tile from `from` on, `stride` bytes apart.
    unsafe fn load<const T: u8>(&mut self, from: *const u8, stride: usize);
    unsafe fn store<const T: u8>(&mut self, to: *mut u8, stride: usize);
    /// Adds to f32 tile `C` the products of the bf16 pairs of tiles `A` and `B`.
    unsafe fn multiply<const C: u8, const A: u8, const B: u8>(&mut self);
    /// Gives the tiles back, so that the system need not save them.
    unsafe fn release(&mut self);
}

unsafe fn multiply<T: Tiles>(call: &Call) {
    let mut tiles = T::default();
    let mut shaped = 0;
    for block in call.blocks {
        // SAFETY: the caller's promise holds for each block; the tiles are shaped for its rows.
        unsafe {
            if block.rows != shaped {
                tiles.configure(&Config::of(block.rows));
                shaped = block.rows;
            }
            let sums = call.sums.add(block.sums * call.sums_stride);
            match block.rows > SIDE {
                true => rows::<T, true>(&mut tiles, call, block.first, sums),
                false => rows::<T, false>(&mut tiles, call, block.first, sums),
            }
        }
    }
    if shaped > 0 {
        // SAFETY: the tiles were shaped.
        unsafe { tiles.release() };
    }
}

/// One block, with more rows than a tile has if `TWO`.
///
/// # Safety
/// As [`Kernel::multiply`]'s field asks; the tiles have the block's shape.
unsafe fn rows<T: Tiles, const TWO: bool>(tiles: &mut T, call: &Call, first: usize, sums: *mut f32) {
    let f32_bytes = size_of::<f32>();
    let sums_bytes = call.sums_stride * f32_bytes;
    let row_bytes = call.stride * size_of::<bf16>();
    // A pair of inputs for 32 outputs; a tile of weights has 16 of them.
    let pair_bytes = 2 * COLUMNS * size_of::<bf16>();
    // SAFETY: sums are 32 f32 a row, rows are readable to the end of each step, and the panel has every step.
    unsafe {
        let upper = sums.cast::<u8>();
        let right = SIDE * f32_bytes;
        let lower = upper.add(if TWO { SIDE * sums_bytes } else { 0 });
        if call.accumulate {
            tiles.load::<{ SUMS[0][0] }>(upper, sums_bytes);
            tiles.load::<{ SUMS[0][1] }>(upper.add(right), sums_bytes);
            if TWO {
                tiles.load::<{ SUMS[1][0] }>(lower, sums_bytes);
                tiles.load::<{ SUMS[1][1] }>(lower.add(right), sums_bytes);
            }
        } else {
            tiles.zero::<{ SUMS[0][0] }>();
            tiles.zero::<{ SUMS[0][1] }>();
            if TWO {
                tiles.zero::<{ SUMS[1][0] }>();
                tiles.zero::<{ SUMS[1][1] }>();
            }
        }
        let mut b = call.b.cast::<u8>();
        for span in call.spans {
            let mut a = call.a.add(first + span.offset).cast::<u8>();
            for _ in 0..span.length.div_ceil(STEP) {
                tiles.load::<{ WEIGHTS[0] }>(b, pair_bytes);
                tiles.load::<{ WEIGHTS[1] }>(b.add(ROW_BYTES), pair_bytes);
                tiles.load::<{ ROWS[0] }>(a, row_bytes);
                tiles.multiply::<{ SUMS[0][0] }, { ROWS[0] }, { WEIGHTS[0] }>();
                tiles.multiply::<{ SUMS[0][1] }, { ROWS[0] }, { WEIGHTS[1] }>();
                if TWO {
                    tiles.load::<{ ROWS[1] }>(a.add(SIDE * row_bytes), row_bytes);
                    tiles.multiply::<{ SUMS[1][0] }, { ROWS[1] }, { WEIGHTS[0] }>();
                    tiles.multiply::<{ SUMS[1][1] }, { ROWS[1] }, { WEIGHTS[1] }>();
                }
                a = a.add(STEP * size_of::<bf16>());
                b = b.add(STEP / 2 * pair_bytes);
            }
        }
        tiles.store::<{ SUMS[0][0] }>(upper, sums_bytes);
        tiles.store::<{ SUMS[0][1] }>(upper.add(right), sums_bytes);
        if TWO {
            tiles.store::<{ SUMS[1][0] }>(lower, sums_bytes);
            tiles.store::<{ SUMS[1][1] }>(lower.add(right), sums_bytes);
        }
    }
}
