//! Settling tiles by memory, before anything is computed.

use std::collections::HashMap;

use super::args::{Args, AutoSize};
use crate::device::{Device, Target, memory::available};
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::pipeline::memory::{Estimate, estimate};
use crate::pipeline::progress::Progress;
use crate::pipeline::{Options, Tile, Weights};
use crate::tensor::DType;
use crate::weights::space::in_units;

/// Tiles that are taken when the whole image does not fit: the published size.
const TILE: usize = 512;
/// Stage-1 tiles likewise, in input pixels.
const STAGE1_TILE: usize = 256;
/// What decoded pictures, files and the program itself take besides.
const MARGIN: usize = 256 << 20;

/// Options by picture size, each settled once.
pub struct Planner<'a> {
    weights: &'a Weights,
    dtype: DType,
    context: usize,
    options: Options,
    tile: Option<usize>,
    stage1_tile: AutoSize,
    /// memory available before any network was loaded
    room: Option<usize>,
    settled: HashMap<[usize; 3], (Options, Estimate)>,
}

impl<'a> Planner<'a> {
    /// `context` is the width of the text features.
    pub fn new(weights: &'a Weights, args: &Args, options: &Options, context: usize) -> Self {
        Planner {
            weights,
            dtype: args.element_type(),
            context,
            options: options.clone(),
            tile: args.tile_wanted(),
            stage1_tile: args.stage1_tile,
            room: available(),
            settled: HashMap::new(),
        }
    }

    fn estimate(&self, options: &Options, shape: [usize; 3]) -> Result<Estimate> {
        let cx = Cx::new(Device::plan(Target::Cpu), self.dtype)?;
        let system = self.weights.load(&cx)?;
        estimate(&cx, &system, options, shape, self.context)
    }

    /// Options for `images` pictures of `h` x `w`, and what they need; the whole image unless memory or the
    /// user asks for tiles.
    ///
    /// # Errors
    /// Sizes that cannot be, or a run that does not fit even in tiles.
    pub fn settle(&mut self, shape: [usize; 3], progress: &dyn Progress) -> Result<(Options, Estimate)> {
        if let Some(known) = self.settled.get(&shape) {
            return Ok(known.clone());
        }
        let mut options = self.options.clone();
        options.tile = match self.tile {
            None | Some(0) => Tile::Off,
            Some(pixels) => Tile::Pixels(pixels),
        };
        options.stage1_tile = match self.stage1_tile {
            AutoSize::Auto | AutoSize::Pixels(0) => None,
            AutoSize::Pixels(pixels) => Some(pixels),
        };
        let mut needed = self.estimate(&options, shape)?;
        let fits = |needed: &Estimate| self.room.is_none_or(|room| needed.total() + MARGIN <= room);
        if !fits(&needed) && self.stage1_tile == AutoSize::Auto {
            options.stage1_tile = Some(STAGE1_TILE);
            needed = self.estimate(&options, shape)?;
        }
        if !fits(&needed) && self.tile.is_none() {
            options.tile = Tile::Pixels(TILE);
            needed = self.estimate(&options, shape)?;
        }
        let size = format!("{} x {} pixels", shape[2], shape[1]);
        let units = |bytes: usize| in_units(bytes as u64);
        if let Some(room) = self.room.filter(|_| !fits(&needed)) {
            return Err(Error::memory(format!(
                "{size} need {} of weights and {} besides, {} are available",
                units(needed.weights),
                units(needed.activations),
                units(room)
            ))
            .fix(match (options.tile, shape[0]) {
                (_, 2..) => "use --batch 1",
                (Tile::Off, _) => "use --tile auto",
                (Tile::Pixels(_), _) => "use a smaller --tile or --scale, or close other programs",
            }));
        }
        let tiles = match options.tile {
            Tile::Off => String::new(),
            Tile::Pixels(pixels) => format!(", in tiles of {pixels}"),
        };
        progress.note(&format!(
            "{size}{tiles}: needs {} of weights and {} besides",
            units(needed.weights),
            units(needed.activations)
        ));
        self.settled.insert(shape, (options.clone(), needed));
        Ok((options, needed))
    }
}
