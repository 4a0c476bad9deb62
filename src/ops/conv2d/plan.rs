//! The launches of kernels/conv/conv.cu: which tile, which rectangle of pixels, how many splits of the channels.

use crate::device::gpu::Grid;
use crate::device::gpu::kernels::{self, Family};
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Input channels of one step; weights are padded to whole blocks of them.
pub const BLOCK_CHANNELS: usize = 32;
/// Rows of weights that lie together.
pub const WEIGHT_ROWS: usize = 16;
/// Threads of every block of the tensor-core kernels.
const THREADS: u32 = 128;
/// Shared memory of a block that every GPU from sm_80 on has.
const MOST_SHARED: usize = 99 << 10;
/// Blocks of a launch that splits its channels, and splits: they bound the scratch, whatever the GPU.
pub(super) const MOST_SPLIT_BLOCKS: usize = 512;
pub(super) const MOST_SPLITS: usize = 32;

/// How the convolved image comes from the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    Stored,
    /// Every pixel doubled in height and width: upsampling.
    Doubled,
    /// Zeros between the pixels: the gradient of stride 2.
    Spread,
}

/// One convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    pub images: usize,
    /// the stored image
    pub h: usize,
    pub w: usize,
    pub channels: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    /// zeros above and left
    pub pad: usize,
    pub view: View,
    pub out_h: usize,
    pub out_w: usize,
    pub dtype: DType,
    /// The input is a sum, normed or unaligned: it comes through registers.
    pub fused: bool,
    /// It is normed: pixels know their image.
    pub normed: bool,
}

/// A kernel: pixels and outputs of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub pixels: usize,
    pub outputs: usize,
    /// tiles of weights on their way
    stages: usize,
    /// outputs of a warp
    warp_outputs: usize,
}

/// The pixels of a block: powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    pub w: usize,
    pub h: usize,
    pub images: usize,
}

/// What to launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub tile: Tile,
    pub rectangle: Rectangle,
    pub patch_w: usize,
    pub patch_h: usize,
    /// pixels of the patch, padded to an even number
    pub patch_pixels: usize,
    pub tiles: [usize; 4],
    /// channel blocks of a split
    pub split_blocks: usize,
    pub splits: usize,
    pub grid: Grid,
}

pub(super) const fn tile(pixels: usize, outputs: usize, stages: usize, warp_outputs: usize) -> Tile {
    Tile { pixels, outputs, stages, warp_outputs }
}

/// Tiles of plain inputs, of those that come through registers, and of f32.
const PLAIN: [Tile; 4] =
    [tile(128, 128, 3, 64), tile(128, 64, 4, 32), tile(64, 64, 4, 32), tile(128, 32, 4, 32)];
const FUSED: [Tile; 4] =
    [tile(128, 128, 3, 64), tile(128, 64, 4, 32), tile(64, 64, 4, 32), tile(128, 16, 4, 16)];
const F32: [Tile; 1] = [tile(64, 64, 1, 64)];

impl Problem {
    /// Whether the input comes through registers. With few outputs the input is all there is to move, and there is
    /// one kernel for it.
    fn through_registers(&self) -> bool {
        self.fused || self.outputs <= 16
    }

    fn candidates(&self) -> &'static [Tile] {
        match self.dtype {
            DType::F32 => &F32,
            _ if self.through_registers() => &FUSED,
            _ => &PLAIN,
        }
    }

    /// Channel blocks.
    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK_CHANNELS)
    }

    /// The same with the pixels in a row, when no pixel needs to know its place.
    pub fn flattened(self) -> Self {
        let plain = self.kernel == 1 && self.stride == 1 && self.pad == 0 && self.view == View::Stored;
        if plain && !self.normed && (self.h, self.w) == (self.out_h, self.out_w) {
            let pixels = self.images * self.h * self.w;
            return Problem { images: 1, h: 1, w: pixels, out_h: 1, out_w: pixels, ..self };
        }
        self
    }

    fn shared(&self, tile: Tile, patch_pixels: usize) -> usize {
        let table = (patch_pixels * 8).next_multiple_of(128);
        if self.dtype == DType::F32 {
            let row = (BLOCK_CHANNELS + 1) * 4;
            return (table + (tile.outputs + patch_pixels) * row).max(tile.pixels * (tile.outputs + 4) * 4);
        }
        let slots = if self.through_registers() || self.kernel > 1 { 2 } else { tile.stages };
        let ring = tile.stages * tile.outputs * BLOCK_CHANNELS * 2;
        let staging = THREADS as usize / 32 * 16 * (tile.warp_outputs + 4) * 4;
        (table + slots * patch_pixels * BLOCK_CHANNELS * 2 + ring).max(staging)
    }

    /// The plan of one tile, before the channels are split.
    fn whole(&self, tile: Tile) -> Option<Plan> {
        self.fit(tile, |patch_pixels| self.shared(tile, patch_pixels))
    }

    /// The plan of one tile with the rectangle that wastes least, given the shared memory of a patch.
    pub(super) fn fit(&self, tile: Tile, shared: impl Fn(usize) -> usize) -> Option<Plan> {
        let powers = || (0..).map(|power| 1usize << power).take_while(|&size| size <= tile.pixels);
        let rectangles =
            powers().flat_map(|w| powers().map(move |h| (w, h))).filter(|(w, h)| w * h <= tile.pixels);
        let plans = rectangles.filter_map(|(w, h)| {
            let rectangle = Rectangle { w, h, images: tile.pixels / (w * h) };
            let [patch_w, patch_h] = [w, h].map(|size| (size - 1) * self.stride + self.kernel);
            let patch_pixels = (rectangle.images * patch_w * patch_h).next_multiple_of(2);
            let shared = shared(patch_pixels);
            let [x, y, images] =
                [self.out_w.div_ceil(w), self.out_h.div_ceil(h), self.images.div_ceil(rectangle.images)];
            let tiles = [x, y, x * y * images, self.outputs.div_ceil(tile.outputs)];
            let threads = if self.dtype == DType::F32 { 256 } else { THREADS };
            let grid = Grid::linear(u32::try_from(tiles[2] * tiles[3]).ok()?, threads).shared(shared as u32);
            let (split_blocks, splits) = (self.blocks(), 1);
            let plan =
                Plan { tile, rectangle, patch_w, patch_h, patch_pixels, tiles, split_blocks, splits, grid };
            (shared <= MOST_SHARED).then_some(plan)
        });
        // Rows of eight neighbouring pixels are read from shared memory without bank conflicts.
        plans.min_by_key(|plan| {
            (plan.tiles[2], plan.rectangle.w.min(8) < self.out_w.min(8), plan.patch_pixels)
        })
    }

    /// About how many cycles the launch takes on so many multiprocessors.
    fn cycles(&self, plan: &Plan, multiprocessors: usize) -> usize {
        let (tile, taps) = (plan.tile, self.kernel * self.kernel);
        let area = tile.pixels * tile.outputs;
        // Of one step: tensor cores, reads of shared memory, bytes from L2; the longest hides most of the others.
        let warp_pixels = area / 4 / tile.warp_outputs;
        let reads = 2 * (warp_pixels + tile.warp_outputs);
        let parts = [area * BLOCK_CHANNELS / 1024, reads, tile.outputs + plan.patch_pixels / taps];
        let longest = parts.into_iter().max().unwrap_or(0);
        let step = longest + (parts.iter().sum::<usize>() - longest) / 4 + 32;
        let steps = plan.split_blocks * taps * step;
        let rounds = (plan.tiles[2] * plan.tiles[3] * plan.splits).div_ceil(multiprocessors);
        // A lone block has nothing to hide its waiting behind.
        let steps = if rounds == 1 { steps * 5 / 4 } else { steps * rounds };
        let ends = rounds * (1000 + area / 16);
        // Sums of all splits are written, waited for, and read by one block.
        let joining = if plan.splits > 1 { 1500 + (plan.splits + 1) * area / 16 } else { 0 };
        steps + ends + joining
    }

    /// `plan` with its channels in about `splits` parts, if they can be.
    fn split(&self, plan: Plan, splits: usize) -> Option<Plan> {
        let split_blocks = self.blocks().div_ceil(splits);
        let splits = self.blocks().div_ceil(split_blocks);
        let tiles = plan.tiles[2] * plan.tiles[3];
        let fits = splits > 1 && splits <= MOST_SPLITS && tiles * splits <= MOST_SPLIT_BLOCKS;
        let grid = Grid { blocks: [plan.grid.blocks[0], splits as u32, 1], ..plan.grid };
        (fits && self.dtype != DType::F32).then_some(Plan { split_blocks, splits, grid, ..plan })
    }

    /// The launch that is expected to take least on a GPU of so many multiprocessors.
    ///
    /// # Errors
    /// A size beyond what a kernel counts.
    pub fn plan(&self, multiprocessors: u32) -> Result<Plan> {
        let too_large = || Error::internal(format!("{self:?} is too large for one launch"));
        let counts = [
            self.images * self.h * self.w,
            self.images * self.out_h * self.out_w,
            self.outputs,
            self.channels,
        ];
        if counts.iter().any(|&count| count > i32::MAX as usize) {
            return Err(too_large());
        }
        let multiprocessors = multiprocessors.max(1) as usize;
        let whole = self.candidates().iter().filter_map(|&tile| self.whole(tile));
        let all = whole.flat_map(|plan| {
            let splits =
                (2..=self.blocks().min(MOST_SPLITS)).filter_map(move |splits| self.split(plan, splits));
            std::iter::once(plan).chain(splits)
        });
        all.min_by_key(|plan| self.cycles(plan, multiprocessors)).ok_or_else(too_large)
    }

    /// Bytes of scratch, enough for every plan of this problem: the same on all GPUs, so that a run's memory can be
    /// planned without one.
    pub fn scratch(&self) -> usize {
        let whole = self.candidates().iter().filter_map(|&tile| self.whole(tile));
        let bytes = whole.map(|plan| {
            let tiles = plan.tiles[2] * plan.tiles[3];
            let splits = (MOST_SPLIT_BLOCKS / tiles.max(1)).min(MOST_SPLITS).min(self.blocks());
            if self.dtype == DType::F32 || splits < 2 {
                0
            } else {
                tiles * splits * plan.tile.pixels * plan.tile.outputs * 4
            }
        });
        bytes.max().unwrap_or(0)
    }
}

impl Plan {
    /// The kernels of the tile.
    pub fn family(&self, problem: &Problem) -> &'static Family {
        let fused = problem.dtype != DType::F32 && problem.through_registers();
        match (self.tile.pixels, self.tile.outputs, fused) {
            (128, 128, false) => &kernels::CONV_128X128,
            (128, 128, true) => &kernels::CONV_FUSED_128X128,
            (128, 64, false) => &kernels::CONV_128X64,
            (128, 64, true) => &kernels::CONV_FUSED_128X64,
            (128, 32, _) => &kernels::CONV_128X32,
            (128, 16, _) => &kernels::CONV_FUSED_128X16,
            (_, _, true) => &kernels::CONV_FUSED_64X64,
            (_, _, false) => &kernels::CONV_64X64,
        }
    }
}

/// Elements of the weights of a kernel x kernel convolution as the kernels read them.
pub fn packed_elements(outputs: usize, channels: usize, kernel: usize) -> usize {
    outputs.next_multiple_of(WEIGHT_ROWS) * channels.next_multiple_of(BLOCK_CHANNELS) * kernel * kernel
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
