//! Activation memory: a best-fit allocator of spans inside slabs.
//!
//! The allocator is pure bookkeeping, so the very same code serves real memory (host slabs, device
//! slabs) and the planning device, which allocates nothing and reports the high-water mark that the
//! real run will have. A run with the same sequence of shapes gets the same addresses again, which is
//! what a captured CUDA graph needs, and after the first step nothing is allocated.

use std::collections::BTreeMap;

/// Spans start at multiples of this: a cache line, and what TMA and 128-bit loads ask for.
pub const ALIGNMENT: usize = 256;

/// A piece of a slab, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub slab: usize,
    pub offset: usize,
    pub length: usize,
}

#[derive(Debug)]
struct Slab {
    size: usize,
    /// offset -> length; neighbours are always merged
    free: BTreeMap<usize, usize>,
}

/// Hands out spans; see the module text.
#[derive(Debug, Default)]
pub struct Allocator {
    slabs: Vec<Option<Slab>>,
    live: usize,
    peak: usize,
    /// what was handed out since `watch`
    touched: Option<Vec<Span>>,
}

impl Allocator {
    /// The smallest free span that holds `bytes`, or `None` when a slab has to be added first.
    pub fn allocate(&mut self, bytes: usize) -> Option<Span> {
        let length = bytes.max(1).next_multiple_of(ALIGNMENT);
        let (_, slab, offset) = self
            .slabs
            .iter()
            .enumerate()
            .filter_map(|(i, slab)| slab.as_ref().map(|slab| (i, slab)))
            .flat_map(|(i, slab)| slab.free.iter().map(move |(&offset, &free)| (free, i, offset)))
            .filter(|&(free, ..)| free >= length)
            .min()?;
        let holes = &mut self.slabs[slab].as_mut()?.free;
        let free = holes.remove(&offset)?;
        if free > length {
            holes.insert(offset + length, free - length);
        }
        self.live += length;
        self.peak = self.peak.max(self.live);
        let span = Span { slab, offset, length };
        if let Some(touched) = &mut self.touched {
            touched.push(span);
        }
        Some(span)
    }

    /// Notes from now on what is handed out, for [`Allocator::claim`].
    pub fn watch(&mut self) {
        self.touched = Some(Vec::new());
    }

    /// Takes all memory that was handed out since [`Allocator::watch`] and is free again, so that nobody else
    /// gets it: recorded work will write there at each replay.
    pub fn claim(&mut self) -> Vec<Span> {
        let mut claimed = Vec::new();
        for touched in self.touched.take().unwrap_or_default() {
            let end = touched.offset + touched.length;
            let Some(slab) = self.slabs.get_mut(touched.slab).and_then(Option::as_mut) else { continue };
            // A hole may begin before what was touched, and spans of it may still be live.
            let first = slab.free.range(..=touched.offset).next_back().map_or(touched.offset, |(&o, _)| o);
            let holes: Vec<_> = slab.free.range(first..end).map(|(&o, &l)| (o, o + l)).collect();
            for (from, to) in holes.into_iter().filter(|&(_, to)| to > touched.offset) {
                let (start, stop) = (from.max(touched.offset), to.min(end));
                slab.free.remove(&from);
                if from < start {
                    slab.free.insert(from, start - from);
                }
                if stop < to {
                    slab.free.insert(stop, to - stop);
                }
                self.live += stop - start;
                claimed.push(Span { slab: touched.slab, offset: start, length: stop - start });
            }
        }
        self.peak = self.peak.max(self.live);
        claimed
    }

    /// Registers a new slab of `size` bytes and returns its index.
    pub fn add_slab(&mut self, size: usize) -> usize {
        let slab = Some(Slab { size, free: BTreeMap::from([(0, size)]) });
        match self.slabs.iter().position(Option::is_none) {
            Some(vacant) => {
                self.slabs[vacant] = slab;
                vacant
            }
            None => {
                self.slabs.push(slab);
                self.slabs.len() - 1
            }
        }
    }

    /// Gives `span` back and merges it with its free neighbours.
    pub fn free(&mut self, span: Span) {
        self.live -= span.length;
        let Some(slab) = self.slabs.get_mut(span.slab).and_then(Option::as_mut) else { return };
        let (mut start, mut end) = (span.offset, span.offset + span.length);
        if let Some((&before, &length)) = slab.free.range(..start).next_back()
            && before + length == start
        {
            slab.free.remove(&before);
            start = before;
        }
        if let Some(length) = slab.free.remove(&end) {
            end += length;
        }
        slab.free.insert(start, end - start);
    }

    /// Forgets slabs that hold nothing; their indices may be used again.
    pub fn take_empty_slabs(&mut self) -> Vec<usize> {
        let mut empty = Vec::new();
        for (i, place) in self.slabs.iter_mut().enumerate() {
            let unused = place.as_ref().is_some_and(|slab| slab.free.get(&0) == Some(&slab.size));
            if unused {
                *place = None;
                empty.push(i);
            }
        }
        empty
    }

    /// Extends the last slab to `size`: for planning, where a slab costs nothing.
    pub fn grow_slab(&mut self, slab: usize, by: usize) {
        let Some(slab) = self.slabs.get_mut(slab).and_then(Option::as_mut) else { return };
        let end = slab.size;
        slab.size += by;
        match slab.free.iter().next_back().map(|(&o, &l)| (o, l)) {
            Some((offset, length)) if offset + length == end => {
                slab.free.insert(offset, length + by);
            }
            _ => {
                slab.free.insert(end, by);
            }
        }
    }

    /// Bytes of a free span that touches the end of `slab`, 0 when its end is in use.
    pub fn free_tail(&self, slab: usize) -> usize {
        let Some(slab) = self.slabs.get(slab).and_then(Option::as_ref) else { return 0 };
        match slab.free.iter().next_back() {
            Some((offset, length)) if offset + length == slab.size => *length,
            _ => 0,
        }
    }

    /// Total bytes of all slabs.
    pub fn reserved(&self) -> usize {
        self.slabs.iter().flatten().map(|slab| slab.size).sum()
    }

    /// Bytes handed out now.
    pub fn live(&self) -> usize {
        self.live
    }

    /// The most bytes ever handed out at once.
    pub fn peak(&self) -> usize {
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_neighbours_merge_into_one_hole() {
        let mut arena = Allocator::default();
        arena.add_slab(4 * ALIGNMENT);
        let spans: Vec<_> = (0..4).map(|_| arena.allocate(1).unwrap()).collect();
        assert!(arena.allocate(1).is_none());
        for i in [0, 2, 1] {
            arena.free(spans[i]);
        }
        assert_eq!(arena.allocate(3 * ALIGNMENT).unwrap().offset, 0);
        assert_eq!((arena.live(), arena.peak()), (4 * ALIGNMENT, 4 * ALIGNMENT));
    }

    #[test]
    fn best_fit_leaves_the_large_hole_whole() {
        let mut arena = Allocator::default();
        arena.add_slab(10 * ALIGNMENT);
        let (a, _b) = (arena.allocate(2 * ALIGNMENT).unwrap(), arena.allocate(ALIGNMENT).unwrap());
        arena.free(a);
        assert_eq!(arena.allocate(ALIGNMENT).unwrap().offset, 0);
        assert_eq!(arena.allocate(7 * ALIGNMENT).unwrap().offset, 3 * ALIGNMENT);
    }

    #[test]
    fn what_was_touched_and_is_free_can_be_claimed() {
        let mut arena = Allocator::default();
        arena.add_slab(16 * ALIGNMENT);
        let before = arena.allocate(ALIGNMENT).unwrap();
        arena.watch();
        let (a, b) = (arena.allocate(3 * ALIGNMENT).unwrap(), arena.allocate(2 * ALIGNMENT).unwrap());
        arena.free(a);
        let c = arena.allocate(ALIGNMENT).unwrap();
        arena.free(before);
        arena.free(c);
        let claimed = arena.claim();
        // All of `a`, which `c` shared; `b` is live and `before` was not touched.
        assert_eq!(claimed.iter().map(|span| span.length).sum::<usize>(), 3 * ALIGNMENT);
        assert!(claimed.iter().all(|span| span.offset >= a.offset && span.offset < b.offset));
        assert_eq!(arena.live(), 5 * ALIGNMENT);
        assert_eq!(arena.allocate(ALIGNMENT).unwrap(), before);
        assert_eq!(arena.allocate(ALIGNMENT).unwrap().offset, 6 * ALIGNMENT);
        claimed.into_iter().for_each(|span| arena.free(span));
        assert!(arena.claim().is_empty());
    }

    #[test]
    fn the_same_sequence_gets_the_same_addresses() {
        let mut arena = Allocator::default();
        arena.add_slab(1 << 20);
        let run = |arena: &mut Allocator| {
            let mut held: Vec<Span> = Vec::new();
            let mut seen = Vec::new();
            for i in 0..200usize {
                let span = arena.allocate((i * 7919) % 5000 + 1).unwrap();
                seen.push(span);
                held.push(span);
                if i % 3 != 0 {
                    arena.free(held.remove((i * 31) % held.len()));
                }
            }
            held.drain(..).for_each(|span| arena.free(span));
            seen
        };
        let first = run(&mut arena);
        assert_eq!(first, run(&mut arena));
        assert_eq!(arena.live(), 0);
        assert_eq!(arena.take_empty_slabs(), vec![0]);
    }
}
