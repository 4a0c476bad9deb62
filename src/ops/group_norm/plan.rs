//! The launches of kernels/norm/group_norm.cu: which tensors are read, in how many tiles and slices, and where
//! the moments of their channels go.

use crate::device::gpu::Grid;
use crate::error::{Error, Result};

/// Channels of a block, rows that it reads at once, its threads.
const CHANNELS: usize = 64;
const ROWS: usize = 32;
const THREADS: u32 = 256;
/// A slice is worth a block from this many rows on.
const LEAST_ROWS: usize = 64;
/// Blocks that a multiprocessor runs at once, and the most multiprocessors that get as many.
const RESIDENT: usize = 4;
const MOST_MULTIPROCESSORS: usize = 160;
/// Rows of a block of `normalise`.
const NORMALISE_ROWS: usize = 128;
/// Sources of one launch.
pub const MAX_SOURCES: usize = 8;

/// A tensor by its address and channels.
pub type Key = (u64, usize);

/// One part of the concatenation: a tensor, and what is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub tensor: Key,
    pub plus: Option<Key>,
}

/// A tensor, or two that are read together, and where the moments of `a`, of `b` and of `a + b` go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub a: Key,
    pub b: Option<Key>,
    pub slots: [Option<usize>; 3],
}

/// What is read, each tensor once where parts allow, and where each part finds its moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    pub sources: Vec<Source>,
    pub part_slots: Vec<usize>,
    /// length of a row of moments
    pub slots: usize,
}

impl Sources {
    /// # Errors
    /// More distinct tensors than a launch takes.
    pub fn of(parts: &[Part]) -> Result<Self> {
        let mut sources: Vec<Source> = Vec::new();
        // Pairs first: a part that is one of a pair's tensors is read with it.
        for part in parts.iter().filter(|part| part.plus.is_some()) {
            if !sources.iter().any(|source| (source.a, source.b) == (part.tensor, part.plus)) {
                sources.push(Source { a: part.tensor, b: part.plus, slots: [None; 3] });
            }
        }
        let mut slots = 0;
        let mut part_slots = Vec::new();
        for part in parts {
            let place = |source: &Source| match part.plus {
                Some(_) => ((source.a, source.b) == (part.tensor, part.plus)).then_some(2),
                None if source.a == part.tensor => Some(0),
                None => (source.b == Some(part.tensor)).then_some(1),
            };
            let found = sources.iter().enumerate().find_map(|(i, source)| Some((i, place(source)?)));
            let (source, stat) = found.unwrap_or_else(|| {
                sources.push(Source { a: part.tensor, b: None, slots: [None; 3] });
                (sources.len() - 1, 0)
            });
            let slot = sources[source].slots[stat].get_or_insert(slots);
            if *slot == slots {
                slots += part.tensor.1;
            }
            part_slots.push(*slot);
        }
        if sources.len() > MAX_SOURCES {
            return Err(Error::internal(format!("a norm of {} tensors", sources.len())));
        }
        Ok(Sources { sources, part_slots, slots })
    }

    /// Tiles of each source and those before it.
    pub fn tile_ends(&self) -> Vec<usize> {
        self.sources
            .iter()
            .scan(0, |end, source| {
                *end += source.a.1.div_ceil(CHANNELS);
                Some(*end)
            })
            .collect()
    }

    /// True when tensors are read in pairs.
    pub fn pairs(&self) -> bool {
        self.sources.iter().any(|source| source.b.is_some())
    }
}

/// How the rows of an image are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub slices: usize,
    /// rows of a slice; the last has what is left
    pub rows: usize,
    pub tiles: usize,
    pub grid: Grid,
}

impl Plan {
    /// One wave of blocks, as far as there are rows for them.
    ///
    /// # Errors
    /// An image of more pixels or channels than a launch counts.
    pub fn new(images: usize, area: usize, tiles: usize, pairs: bool, multiprocessors: u32) -> Result<Self> {
        if area > 1 << 24 || tiles > 1 << 16 {
            return Err(Error::internal(format!("a group norm over {area} pixels in {tiles} tiles")));
        }
        let blocks = (multiprocessors as usize).min(MOST_MULTIPROCESSORS) * resident(pairs);
        let wanted = (blocks / (images * tiles).max(1)).clamp(1, area.div_ceil(LEAST_ROWS).max(1));
        let rows = area.div_ceil(wanted).next_multiple_of(ROWS).max(ROWS);
        let slices = area.div_ceil(rows);
        let shared = if pairs { 12304 } else { 4112 };
        let grid = Grid {
            blocks: [(tiles * slices) as u32, images as u32, 1],
            threads: THREADS,
            shared_bytes: shared,
        };
        Ok(Plan { slices, rows, tiles, grid })
    }

    /// f32 of scratch for any concatenation of these sizes on any GPU: moments of slices, then of channels.
    pub fn scratch([images, area, channels]: [usize; 3], pairs: bool) -> usize {
        let blocks = if area > LEAST_ROWS { MOST_MULTIPROCESSORS * resident(pairs) } else { 0 };
        2 * (blocks * sums(pairs) * CHANNELS + images * channels)
    }

    /// f32 before the moments of channels in the scratch.
    pub fn partial(&self, images: usize, pairs: bool) -> usize {
        if self.slices == 1 { 0 } else { 2 * images * self.slices * self.tiles * sums(pairs) * CHANNELS }
    }

    /// Counters of a launch.
    pub fn counters(&self, images: usize) -> usize {
        images * (self.tiles + 1)
    }
}

/// Moments that a block takes of a channel.
fn sums(pairs: bool) -> usize {
    if pairs { 3 } else { 1 }
}

/// Blocks that a multiprocessor runs at once: those that read pairs keep three times the sums.
fn resident(pairs: bool) -> usize {
    if pairs { RESIDENT / 2 } else { RESIDENT }
}

/// The launch of `normalise`.
pub fn normalise([images, area, channels]: [usize; 3]) -> Grid {
    let blocks = channels.div_ceil(CHANNELS) * area.div_ceil(NORMALISE_ROWS);
    Grid { blocks: [blocks as u32, images as u32, 1], threads: THREADS, shared_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: Key = (1, 640);
    const S: Key = (2, 320);
    const R: Key = (3, 320);

    fn one(tensor: Key) -> Part {
        Part { tensor, plus: None }
    }

    fn sum(tensor: Key, plus: Key) -> Part {
        Part { tensor, plus: Some(plus) }
    }

    #[test]
    fn an_adapter_reads_each_of_its_three_tensors_once() {
        let parts = [one(H), sum(S, R), one(H), one(S), one(R)];
        let sources = Sources::of(&parts).unwrap();
        assert_eq!(
            sources.sources,
            [
                Source { a: S, b: Some(R), slots: [Some(960), Some(1280), Some(640)] },
                Source { a: H, b: None, slots: [Some(0), None, None] },
            ]
        );
        assert_eq!((sources.part_slots, sources.slots), (vec![0, 640, 0, 960, 1280], 1600));
    }

    #[test]
    fn a_tensor_of_the_same_memory_but_other_channels_is_another() {
        let sources =
            Sources::of(&[one((1, 8)), one((1, 16)), sum((1, 8), (2, 8)), sum((2, 8), (1, 8))]).unwrap();
        assert_eq!(sources.sources.len(), 3);
        assert_eq!(sources.tile_ends(), [1, 2, 3]);
        let many: Vec<Part> = (0..9).map(|i| one((i, 8))).collect();
        assert!(Sources::of(&many[..8]).is_ok() && Sources::of(&many).is_err());
    }

    #[test]
    fn slices_cover_the_rows_and_their_moments_fit_the_scratch() {
        for images in [1, 2, 9] {
            for area in [0, 1, 63, 64, 65, 100, 4096, 262_144] {
                for (tiles, channels) in [(1, 8), (5, 320), (25, 1600)] {
                    for pairs in [false, true] {
                        for multiprocessors in [1, 2, 108, 132, 400] {
                            let plan = Plan::new(images, area, tiles, pairs, multiprocessors).unwrap();
                            assert!(plan.slices * plan.rows >= area);
                            assert!(plan.slices == 0 || (plan.slices - 1) * plan.rows < area);
                            let used = plan.partial(images, pairs) + 2 * images * channels;
                            assert!(used <= Plan::scratch([images, area, channels], pairs), "{plan:?}");
                        }
                    }
                }
            }
        }
        let vae = Plan::new(1, 512 * 512, 2, false, 132).unwrap();
        assert_eq!((vae.slices, vae.rows, vae.grid.blocks), (256, 1024, [512, 1, 1]));
    }
}
