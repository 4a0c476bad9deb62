//! What pictures of a size will need, and the tiles and batches with which that fits.

use std::collections::HashMap;

use super::values::TileChoice;
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::models::text::tokenizer::{CONTEXT, END, START};
use crate::ops::Cx;
use crate::pipeline::memory::{Estimate, estimate};
use crate::pipeline::{Options, Tile, Weights};
use crate::sampler::Sizes;
use crate::tensor::DType;
use crate::weights::space::in_units;

/// The tile that is taken when memory demands one.
pub const TILE: usize = 512;
/// Stage-1 tiles to try when memory demands them.
const STAGE1_TILES: [usize; 2] = [256, 128];
/// Copies of the pictures on their way in and out, beside what the pipeline holds: two being decoded, two being
/// encoded, the batch.
const COPIES: usize = 6;

/// How pictures of one size are computed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Pictures to compute together.
    pub batch: usize,
    pub options: Options,
    pub estimate: Estimate,
    /// Bytes in all: weights, activations, pictures.
    pub bytes: u64,
}

/// Makes plans, one a size.
pub struct Planner<'a> {
    weights: &'a Weights,
    options: Options,
    tile: TileChoice,
    stage1_tile: TileChoice,
    dtype: DType,
    device: Device,
    batch: usize,
    /// Bytes that the run may take, if known.
    available: Option<u64>,
    /// Rows and width of a prompt's features.
    context: [usize; 2],
    /// Bytes for the text tower, which is gone before the other networks come.
    text: u64,
    plans: HashMap<[usize; 2], Result<Plan>>,
}

impl<'a> Planner<'a> {
    /// A planner for runs with `options`, whose tiles are set by `tiles` (of the diffusion model, of stage 1), on a
    /// device like that of `cx`.
    ///
    /// # Errors
    /// The text tower cannot be loaded from `weights`.
    pub fn new(
        cx: &Cx,
        weights: &'a Weights,
        options: Options,
        [tile, stage1_tile]: [TileChoice; 2],
        batch: usize,
        available: Option<u64>,
    ) -> Result<Planner<'a>> {
        let (dtype, device) = (cx.dtype(), cx.device().clone());
        let plan = Cx::new(device.planned(), dtype)?;
        let tower = weights.load_text(&plan)?;
        let mut row = [END; CONTEXT];
        row[0] = START;
        let features = tower.forward(&plan, &[&row])?.shape();
        let context = [features[1], features[2]];
        let text = match plan.device() {
            Device::Plan(plan) => (plan.weight_bytes() + plan.activation_bytes()) as u64,
            _ => 0,
        };
        let plans = HashMap::new();
        Ok(Planner {
            weights,
            options,
            tile,
            stage1_tile,
            dtype,
            device,
            batch,
            available,
            context,
            text,
            plans,
        })
    }

    /// How much larger the results are.
    pub fn scale(&self) -> f64 {
        self.options.scale
    }

    /// The plan for pictures of height and width `size`.
    ///
    /// # Errors
    /// A size that cannot be upscaled; weights that cannot be loaded; a memory error when nothing that may be
    /// changed makes it fit, which says what the user may change.
    pub fn plan(&mut self, size: [usize; 2]) -> Result<Plan> {
        if let Some(known) = self.plans.get(&size) {
            return known.clone();
        }
        let made = self.make(size);
        self.plans.insert(size, made.clone());
        made
    }

    fn make(&self, size: [usize; 2]) -> Result<Plan> {
        let sizes = Sizes::new(size, self.options.scale)?;
        let mut least: Option<Plan> = None;
        for options in self.candidates(&sizes) {
            let mut batch = self.batch;
            loop {
                let plan = self.measure(&options, batch, &sizes)?;
                if self.available.is_none_or(|available| plan.bytes <= available) {
                    return Ok(plan);
                }
                if least.as_ref().is_none_or(|least| plan.bytes < least.bytes) {
                    least = Some(plan);
                }
                if batch == 1 {
                    break;
                }
                batch /= 2;
            }
        }
        let Some(least) = least else { return Err(Error::internal("no way to tile was tried")) };
        Err(self.too_much(&least, &sizes))
    }

    /// Ways to tile, the best result first.
    fn candidates(&self, sizes: &Sizes) -> Vec<Options> {
        let fixed = |tile| Options { tile, ..self.options.clone() };
        let diffusion = match self.tile {
            TileChoice::Off => vec![fixed(Tile::Off)],
            TileChoice::Pixels(tile) => vec![fixed(Tile::Pixels(tile))],
            TileChoice::Auto if sizes.padded.iter().all(|&side| side <= TILE) => vec![fixed(Tile::Off)],
            TileChoice::Auto => vec![fixed(Tile::Off), fixed(Tile::Pixels(TILE))],
        };
        let mut all = Vec::new();
        for options in diffusion {
            let stage1 = |tile| Options { stage1_tile: tile, ..options.clone() };
            match self.stage1_tile {
                TileChoice::Pixels(tile) => all.push(stage1(Some(tile))),
                TileChoice::Off => all.push(stage1(None)),
                TileChoice::Auto => {
                    all.push(stage1(None));
                    let fewer = |&tile: &usize| sizes.low.iter().any(|&side| side > tile);
                    all.extend(STAGE1_TILES.into_iter().filter(fewer).map(|tile| stage1(Some(tile))));
                }
            }
        }
        all
    }

    fn measure(&self, options: &Options, batch: usize, sizes: &Sizes) -> Result<Plan> {
        // A planning device remembers its peak, so each estimate has its own.
        let cx = Cx::new(self.device.planned(), self.dtype)?;
        let system = self.weights.load(&cx)?;
        let estimate = estimate(&cx, &system, options, [batch, sizes.low[0], sizes.low[1]], self.context)?;
        let pixels = |[h, w]: [usize; 2]| (h * w) as u64;
        let pictures = COPIES.max(batch) as u64 * 12 * (pixels(sizes.low) + pixels(sizes.finished));
        let bytes = (estimate.total() as u64).max(self.text) + pictures;
        Ok(Plan { batch, options: options.clone(), estimate, bytes })
    }

    fn too_much(&self, least: &Plan, sizes: &Sizes) -> Error {
        let [h, w] = sizes.low;
        let what = format!(
            "a picture of {w} x {h} at scale {} needs {}{}, and {} are free",
            self.options.scale,
            in_units(least.bytes),
            if least.options.tile == Tile::Off { "" } else { " even in tiles" },
            in_units(self.available.unwrap_or_default())
        );
        let weights = least.estimate.weights as u64;
        let fix = if self.available.is_some_and(|available| weights.max(self.text) > available) {
            format!(
                "the weights alone need {}: close other programs or use a larger machine",
                in_units(weights)
            )
        } else if self.tile == TileChoice::Off && sizes.padded.iter().any(|&side| side > TILE) {
            "leave --tile 0 out, or give --tile 512".to_owned()
        } else if matches!(self.tile, TileChoice::Pixels(tile) if tile > TILE) {
            "give a smaller --tile, such as 512".to_owned()
        } else {
            "crop the picture, lower --scale, or close other programs".to_owned()
        };
        Error::new(Kind::Memory, what).fix(fix)
    }

    /// What the run should know about the plan for `size`.
    pub fn describe(&self, size: [usize; 2], plan: &Plan) -> String {
        let Estimate { weights, activations } = plan.estimate;
        let free = self.available.map_or(String::new(), |bytes| format!("; {} are free", in_units(bytes)));
        let mut how = Vec::new();
        if let (TileChoice::Auto, Tile::Pixels(tile)) = (self.tile, plan.options.tile) {
            how.push(format!("tiles of {tile}"));
        }
        if let (TileChoice::Auto, Some(tile)) = (self.stage1_tile, plan.options.stage1_tile) {
            how.push(format!("stage-1 tiles of {tile}"));
        }
        if plan.batch < self.batch {
            how.push(format!("batches of {}", plan.batch));
        }
        let how = if how.is_empty() { String::new() } else { format!(" with {}", how.join(", ")) };
        format!(
            "{} x {} needs {}{how}: weights {}, activations {}{free}",
            size[1],
            size[0],
            in_units(plan.bytes),
            in_units(weights as u64),
            in_units(activations as u64)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Variant;
    use crate::models::config::SystemConfig;
    use crate::pipeline::progress::Silent;
    use crate::pipeline::{NoTrace, Pipeline};
    use crate::sampler::{NoiseSource, Seeded};
    use crate::tensor::Tensor;

    fn weights() -> Weights {
        Weights::synthetic(SystemConfig::preset("tiny").unwrap(), Some(Variant::Official))
    }

    /// The plan for a picture of 300 x 300 (1200 x 1200 when done) where `available` bytes are free.
    fn plan(
        tiles: [TileChoice; 2],
        batch: usize,
        cfg: f64,
        available: impl Fn(&Plan) -> u64,
    ) -> (Result<Plan>, Plan) {
        let weights = weights();
        let cx = Cx::new(Device::cpu(), DType::F32).unwrap();
        let options = Options { cfg, ..Options::default() };
        let planner =
            |available| Planner::new(&cx, &weights, options.clone(), tiles, batch, available).unwrap();
        let free = planner(None).plan([300, 300]).unwrap();
        let mut planner = planner(Some(available(&free)));
        let planned = planner.plan([300, 300]);
        if let Ok(plan) = &planned {
            assert!(planner.describe([300, 300], plan).starts_with("300 x 300 needs "));
        }
        (planned, free)
    }

    const AUTO: [TileChoice; 2] = [TileChoice::Auto, TileChoice::Auto];

    #[test]
    fn what_fits_is_left_whole() {
        let (planned, free) = plan(AUTO, 2, 4.5, |free| free.bytes);
        let planned = planned.unwrap();
        assert_eq!((planned.batch, planned.options.tile, planned.options.stage1_tile), (2, Tile::Off, None));
        assert_eq!(planned.estimate, free.estimate);
        assert!(free.bytes > free.estimate.total() as u64 && free.estimate.weights > 100 << 20);
    }

    #[test]
    fn batches_shrink_before_tiles_come() {
        let (planned, _) = plan(AUTO, 4, 4.5, |free| free.bytes - 1);
        let planned = planned.unwrap();
        assert_eq!((planned.batch, planned.options.tile), (2, Tile::Off));
        let (planned, free) = plan(AUTO, 1, 4.5, |free| {
            let weights = free.estimate.weights as u64;
            weights + (free.bytes - weights) / 2
        });
        let planned = planned.unwrap();
        assert_eq!((planned.batch, planned.options.tile), (1, Tile::Pixels(TILE)));
        assert!(planned.bytes < free.bytes);
    }

    #[test]
    fn without_guidance_less_is_needed() {
        let guided = plan(AUTO, 1, 4.5, |free| free.bytes).1;
        let unguided = plan(AUTO, 1, 1.0, |free| free.bytes).1;
        assert!(unguided.estimate.activations <= guided.estimate.activations);
    }

    #[test]
    fn what_cannot_fit_says_what_would_help() {
        let message = |tiles, share: u64| {
            let (planned, _) = plan(tiles, 1, 4.5, |free| free.estimate.weights as u64 * share / 100);
            let error = planned.unwrap_err();
            assert_eq!(error.kind(), Kind::Memory);
            error.to_string()
        };
        let text = message(AUTO, 50);
        assert!(text.contains("even in tiles") && text.contains("the weights alone need"), "{text}");
        let text = message([TileChoice::Off, TileChoice::Auto], 110);
        assert!(
            text.contains("300 x 300 at scale 4 needs") && text.ends_with("or give --tile 512"),
            "{text}"
        );
        let text = message([TileChoice::Pixels(1024), TileChoice::Auto], 110);
        assert!(text.ends_with("give a smaller --tile, such as 512"), "{text}");
        let text = message(AUTO, 101);
        assert!(text.ends_with("crop the picture, lower --scale, or close other programs"), "{text}");
    }

    #[test]
    fn a_run_takes_what_was_planned() {
        let weights = weights();
        let cx = Cx::new(Device::cpu(), DType::F32).unwrap();
        let options = Options { steps: 1, stage1_tile: Some(8), ..Options::default() };
        let tiles = [TileChoice::Pixels(256), TileChoice::Pixels(8)];
        let mut planner = Planner::new(&cx, &weights, options, tiles, 1, None).unwrap();
        let plan = planner.plan([16, 16]).unwrap();
        let system = weights.load(&cx).unwrap();
        let rows = |value| {
            let [length, width] = planner.context;
            Tensor::from_f32(cx.device(), &vec![value; length * width], [1, length, width])
        };
        let (positive, negative) = (rows(0.1).unwrap(), rows(-0.1).unwrap());
        let low = Tensor::from_f32(cx.device(), &[0.5; 16 * 16 * 3], [1, 16, 16, 3]).unwrap();
        let mut noise = Seeded::new(1);
        noise.select(0, &[1]);
        let mut pipeline = Pipeline {
            cx: &cx,
            system: &system,
            options: &plan.options,
            noise: &mut noise,
            trace: &mut NoTrace,
            progress: &Silent,
        };
        pipeline.upscale(&low, &positive, Some(&negative)).unwrap();
        let (planned, taken) = (plan.estimate.activations, cx.device().peak());
        assert!(taken <= planned && taken * 10 >= planned * 9, "planned {planned}, taken {taken}");
    }
}
