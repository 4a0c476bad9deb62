//! Weights in panels: packed once, read by every microkernel as they lie.

use half::bf16;

use super::{COLUMNS, STEP, Span};
use crate::ops::host::element::HostElement;

/// Inputs of one chunk of a convolution of several taps: all taps of few channels, whose rows then stay in cache.
const TAPPED_CHANNELS: usize = 64;
/// Inputs of one chunk else.
const CHANNELS: usize = 512;

/// How weights [O, C, taps] lie in panels.
///
/// Channels are cut into groups; the depth runs over groups, then taps, then the channels of the group, each tap's
/// padded with zeros to a multiple of [`STEP`]. Outputs are padded to whole panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub outputs: usize,
    pub channels: usize,
    pub taps: usize,
}

/// What a microkernel multiplies at once: spans of the rows, and their part of each panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// inputs before the chunk in the panel's depth
    pub start: usize,
    pub depth: usize,
    pub spans: Vec<Span>,
}

impl Layout {
    fn group(&self) -> usize {
        if self.taps > 1 { TAPPED_CHANNELS } else { CHANNELS }
    }

    /// Inputs of a panel, with padding.
    pub fn depth(&self) -> usize {
        self.taps * self.channels.next_multiple_of(STEP)
    }

    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(COLUMNS)
    }

    /// Elements of the packed weights.
    pub fn elements(&self) -> usize {
        self.panels() * COLUMNS * self.depth()
    }

    /// The chunks in order, with tap t of a row `tap(t)` elements from its first.
    pub fn chunks(&self, tap: impl Fn(usize) -> usize) -> Vec<Chunk> {
        let group = self.group();
        (0..self.channels)
            .step_by(group)
            .map(|first| {
                let length = group.min(self.channels - first);
                let spans = (0..self.taps).map(|t| Span { offset: tap(t) + first, length }).collect();
                let depth = self.taps * length.next_multiple_of(STEP);
                Chunk { start: self.taps * first, depth, spans }
            })
            .collect()
    }

    /// Packs `values` [O, C, taps], rounded, to [`Layout::elements`] elements.
    pub fn pack(&self, values: &[f32], out: &mut [bf16]) {
        use rayon::prelude::*;
        let Layout { outputs, channels, taps } = *self;
        assert!(values.len() == outputs * channels * taps && out.len() == self.elements(), "another size");
        if values.is_empty() {
            return;
        }
        let chunks = self.chunks(|_| 0);
        out.par_chunks_exact_mut(self.depth() * COLUMNS).enumerate().for_each(|(panel, out)| {
            out.fill(bf16::ZERO);
            let columns = COLUMNS.min(outputs - panel * COLUMNS);
            for chunk in &chunks {
                for column in 0..columns {
                    let line = &values[(panel * COLUMNS + column) * channels * taps..][..channels * taps];
                    chunk.places(taps, column, |value, place| out[place] = HostElement::narrow(line[value]));
                }
            }
        });
    }

    /// The reverse of [`Layout::pack`]: `values` [O, C, taps] from packed weights.
    pub fn unpack(&self, packed: &[bf16], values: &mut [f32]) {
        use rayon::prelude::*;
        let Layout { outputs, channels, taps } = *self;
        assert!(values.len() == outputs * channels * taps && packed.len() == self.elements(), "another size");
        if values.is_empty() {
            return;
        }
        let chunks = self.chunks(|_| 0);
        values.par_chunks_exact_mut(channels * taps).enumerate().for_each(|(output, line)| {
            let packed = &packed[output / COLUMNS * self.depth() * COLUMNS..];
            for chunk in &chunks {
                chunk.places(taps, output % COLUMNS, |value, place| line[value] = packed[place].wide());
            }
        });
    }
}

impl Chunk {
    /// For every weight of the chunk in a column of a panel: its place in the output's weights [C, taps], and in the
    /// panel, where inputs lie in pairs. The chunk's spans begin at their first channel.
    fn places(&self, taps: usize, column: usize, mut each: impl FnMut(usize, usize)) {
        let padded = self.depth / taps;
        for (tap, span) in self.spans.iter().enumerate() {
            for channel in 0..span.length {
                let depth = self.start + tap * padded + channel;
                each((span.offset + channel) * taps + tap, depth / 2 * 2 * COLUMNS + 2 * column + depth % 2);
            }
        }
    }
}

/// Packed weights.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    data: &'a [bf16],
    depth: usize,
}

impl<'a> Panels<'a> {
    /// Panels of `depth` inputs each.
    pub fn new(data: &'a [bf16], depth: usize) -> Self {
        Panels { data, depth }
    }

    /// The part of `panel` that belongs to a chunk.
    pub fn part(&self, panel: usize, chunk: &Chunk) -> &'a [bf16] {
        &self.data[(panel * self.depth + chunk.start) * COLUMNS..][..chunk.depth * COLUMNS]
    }
}
