//! The maps of a run: which weight each adapter gives the ControlNet, at each step and pixel.

use std::path::Path;

use safetensors::SafeTensors;

use crate::error::{Error, Result};
use crate::sampler::schedule::Schedule;

/// Names of maps in a trace: step, then adapter.
pub const TRACED: &str = "step*.map.*";

/// The map of one adapter at one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    pub height: usize,
    pub width: usize,
    /// of the prompt's half of the guided pair
    pub values: Vec<f32>,
}

impl Map {
    pub fn mean(&self) -> f64 {
        self.values.iter().map(|&v| f64::from(v)).sum::<f64>() / self.values.len().max(1) as f64
    }

    /// The standard deviation over the pixels.
    pub fn deviation(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
        (squares / self.values.len().max(1) as f64).sqrt()
    }

    /// The smallest and the largest weight.
    pub fn ends(&self) -> [f32; 2] {
        self.values
            .iter()
            .fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &v| [low.min(v), high.max(v)])
    }
}

/// All maps of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Maps {
    /// of each step, the noisiest first
    pub timesteps: Vec<usize>,
    /// [adapter][step]
    pub maps: Vec<Vec<Map>>,
}

impl Maps {
    /// Reads the trace of a run over one picture.
    ///
    /// # Errors
    /// The file cannot be read, or holds no maps: the system has no adapters, or none that worked in every step.
    pub fn read(trace: &Path) -> Result<Self> {
        let bytes = std::fs::read(trace).map_err(|e| Error::io("read", trace, &e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| Error::internal(format!("a trace: {e}")))?;
        let traced = |step: usize, adapter: usize| file.tensor(&format!("step{step}.map.{adapter}")).ok();
        let map = |step: usize, adapter: usize| {
            let tensor = traced(step, adapter)?;
            let [.., height, width] = *tensor.shape() else { return None };
            let values = tensor.data().chunks_exact(4).take(height * width);
            let values = values.map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]])).collect();
            Some(Map { height, width, values })
        };
        let steps = (0..).take_while(|&step| traced(step, 0).is_some()).count();
        let adapters = (0..).take_while(|&adapter| traced(0, adapter).is_some()).count();
        if steps == 0 {
            return Err(Error::weights("no adapter weighed anything: there are no maps to draw")
                .fix("give a system with adapters, and a ControlNet that works (--control-until)"));
        }
        // A run may end ControlNet early; its timesteps are those of the whole schedule.
        let all = (0..).take_while(|step| file.tensor(&format!("step{step}.eps")).is_ok()).count().max(steps);
        let timesteps = Schedule::spaced(all)?.steps().iter().map(|step| step.timestep).take(steps).collect();
        let maps = (0..adapters)
            .map(|adapter| {
                let of_step = |step| {
                    map(step, adapter)
                        .ok_or_else(|| Error::internal(format!("no map {adapter} at step {step}")))
                };
                (0..steps).map(of_step).collect::<Result<_>>()
            })
            .collect::<Result<_>>()?;
        Ok(Maps { timesteps, maps })
    }

    /// The mean weight over all adapters at each step.
    pub fn means(&self) -> Vec<f64> {
        let steps = 0..self.timesteps.len();
        steps
            .map(|step| self.maps.iter().map(|maps| maps[step].mean()).sum::<f64>() / self.maps.len() as f64)
            .collect()
    }

    /// How much the mean weight of an adapter changes from the first step to the last, along the straight line that fits
    /// it best.
    pub fn change(&self, adapter: usize) -> f64 {
        let means: Vec<f64> = self.maps[adapter].iter().map(Map::mean).collect();
        let last = means.len().saturating_sub(1) as f64;
        let (middle, mean) = (last / 2.0, means.iter().sum::<f64>() / means.len() as f64);
        let (mut product, mut square) = (0.0, 0.0);
        for (step, value) in means.iter().enumerate() {
            let x = step as f64 - middle;
            product += x * (value - mean);
            square += x * x;
        }
        if square > 0.0 { product / square * last } else { 0.0 }
    }

    /// The largest weight that any map may have: those of the published code go up to 2, the article's to 1.
    pub fn top(&self) -> f32 {
        let largest = self.maps.iter().flatten().map(|map| map.ends()[1]).fold(0.0, f32::max);
        if largest > 1.0 { 2.0 } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(means: &[f32]) -> Maps {
        let map = |&mean: &f32| Map { height: 1, width: 2, values: vec![mean - 0.25, mean + 0.25] };
        Maps { timesteps: vec![999; means.len()], maps: vec![means.iter().map(map).collect()] }
    }

    #[test]
    fn figures_of_known_maps() {
        let falling = maps(&[1.0, 0.75, 0.5]);
        assert_eq!(falling.means(), [1.0, 0.75, 0.5]);
        assert!((falling.change(0) + 0.5).abs() < 1e-12);
        assert_eq!((falling.maps[0][0].deviation(), falling.maps[0][0].ends()), (0.25, [0.75, 1.25]));
        assert_eq!((falling.top(), maps(&[0.5]).top(), maps(&[0.5]).change(0)), (2.0, 1.0, 0.0));
    }
}
