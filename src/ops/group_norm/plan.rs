//! The launches of kernels/norm/group_norm.cu: which tensors are read, in how many tiles and slices, and where
//! the moments of their channels go.

use crate::device::gpu::Grid;
use crate::error::{Error, Result};
use crate::ops::columns::{CHANNELS, Columns, THREADS};

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

/// What a launch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub columns: Columns,
    pub grid: Grid,
}

impl Plan {
    /// # Errors
    /// An image of more pixels or channels than a launch counts.
    pub fn new(images: usize, area: usize, tiles: usize, pairs: bool, multiprocessors: u32) -> Result<Self> {
        let columns = Columns::new(images, area, tiles, resident(pairs), multiprocessors)?;
        let shared = if pairs { 12304 } else { 4112 };
        Ok(Plan { columns, grid: columns.grid(shared) })
    }

    /// f32 of scratch for any concatenation of these sizes on any GPU: moments of slices, then of channels.
    pub fn scratch([images, area, channels]: [usize; 3], pairs: bool) -> usize {
        Columns::scratch(area, sums(pairs), resident(pairs)) + 2 * images * channels
    }

    /// f32 before the moments of channels in the scratch.
    pub fn partial(&self, pairs: bool) -> usize {
        self.columns.partial(sums(pairs))
    }

    /// Counters of a launch.
    pub fn counters(&self) -> usize {
        self.columns.groups * (self.columns.tiles + 1)
    }
}

/// f32 that a block leaves of a channel: mean and spread of each of its moments.
fn sums(pairs: bool) -> usize {
    if pairs { 6 } else { 2 }
}

/// Blocks that a multiprocessor runs at once: those that read pairs keep three times the sums.
fn resident(pairs: bool) -> usize {
    if pairs { 2 } else { 4 }
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
    fn the_moments_fit_the_scratch() {
        for size @ [images, area, channels] in
            [[1, 64, 1280usize], [2, 4096, 320], [9, 65, 8], [1, 262_144, 128]]
        {
            for pairs in [false, true] {
                for multiprocessors in [1, 108, 400] {
                    let tiles = channels.div_ceil(CHANNELS);
                    let plan = Plan::new(images, area, tiles, pairs, multiprocessors).unwrap();
                    let used = plan.partial(pairs) + 2 * images * channels;
                    assert!(used <= Plan::scratch(size, pairs), "{plan:?}");
                    assert_eq!(plan.counters(), images * (tiles + 1));
                }
            }
        }
    }
}
