//! Where a training starts when no weights are given: the ControlNet from the UNet, the adapters from random numbers.

use std::borrow::Cow;

use super::degrade::Random;
use crate::error::Result;
use crate::image::hash::fnv1a_64;
use crate::nn::Source;
use crate::weights::names::{ADAPTER, CONTROLNET, UNET};

/// Layers that start at zero, so that an untrained ControlNet changes nothing and an untrained adapter's map is the
/// same everywhere.
const ZERO: [&str; 2] = ["zero_convs.", "middle_block_out."];
const ZERO_IN_ADAPTERS: [&str; 2] = ["out_layers.4.", "stages.1.conv."];
const STEM: &str = "input_blocks.0.0.weight";

/// A source of initial weights over the file that holds the UNet.
///
/// ControlNet: every tensor of the UNet's encoder and middle; the first convolution, which sees two latents, has zeros
/// for the second. Adapters: PyTorch's defaults (uniform within fan-in^-1/2, norms the identity), their last
/// convolution zero.
pub struct Initial<'a> {
    unet: &'a dyn Source,
    seed: u64,
}

impl<'a> Initial<'a> {
    pub fn new(unet: &'a dyn Source, seed: u64) -> Self {
        Initial { unet, seed }
    }
}

/// What a tensor starts as.
enum Start {
    Zero,
    One,
    /// the UNet's tensor of this name
    Unet(String),
    /// the UNet's first convolution, its inputs doubled
    Widened(String),
    Uniform,
}

fn start(name: &str, rank: usize) -> Start {
    if let Some(rest) = name.strip_prefix(CONTROLNET) {
        return match rest {
            _ if ZERO.iter().any(|layer| rest.starts_with(layer)) => Start::Zero,
            STEM => Start::Widened(format!("{UNET}{rest}")),
            _ => Start::Unet(format!("{UNET}{rest}")),
        };
    }
    let layer =
        name.strip_prefix(ADAPTER).and_then(|rest| rest.split_once(".0.")).map_or(name, |(_, layer)| layer);
    let norm = ["in_layers.0.", "out_layers.0.", "stages.0.norm.", "stages.1.norm.", "transformer.norm"]
        .iter()
        .any(|norm| layer.starts_with(norm));
    match () {
        () if ZERO_IN_ADAPTERS.iter().any(|zero| layer.starts_with(zero)) => Start::Zero,
        () if norm && layer.ends_with("weight") => Start::One,
        () if norm => Start::Zero,
        () if rank == 0 => Start::Zero,
        () => Start::Uniform,
    }
}

impl Source for Initial<'_> {
    fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        None
    }

    fn expect(&self, name: &str, shape: &[usize]) -> bool {
        match start(name, shape.len()) {
            Start::Unet(name) => self.unet.expect(&name, shape),
            Start::Widened(name) => self.unet.expect(&name, &narrow(shape)),
            _ => true,
        }
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let count = shape.iter().product();
        match start(name, shape.len()) {
            Start::Zero => Ok(vec![0.0; count].into()),
            Start::One => Ok(vec![1.0; count].into()),
            Start::Unet(name) => self.unet.values(&name, shape),
            Start::Widened(name) => {
                let known = self.unet.values(&name, &narrow(shape))?;
                let half = (count / shape[0].max(1)) / 2;
                let mut wide = vec![0.0; count];
                for (row, known) in
                    wide.chunks_exact_mut((2 * half).max(1)).zip(known.chunks_exact(half.max(1)))
                {
                    row[..half].copy_from_slice(known);
                }
                Ok(wide.into())
            }
            Start::Uniform => {
                // A bias has its layer's bound, which its own shape does not tell: a bound for all is as good.
                let fan_in: usize = if shape.len() > 1 { shape[1..].iter().product() } else { shape[0] };
                let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
                let random = &mut Random::new(self.seed, 0, fnv1a_64(name.bytes()));
                Ok((0..count).map(|_| random.between([-bound, bound]) as f32).collect())
            }
        }
    }
}

/// The shape of a first convolution that sees one latent.
fn narrow(shape: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().map(|(axis, &size)| if axis == 1 { size / 2 } else { size }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::SyntheticSource;

    fn values(name: &str, shape: &[usize]) -> Vec<f32> {
        let initial = Initial::new(&SyntheticSource, 1);
        assert!(initial.expect(name, shape));
        initial.values(name, shape).unwrap().into_owned()
    }

    #[test]
    fn the_controlnet_starts_as_the_unet_and_changes_nothing() {
        let unet = |name: &str, shape: &[usize]| {
            SyntheticSource.values(&format!("{UNET}{name}"), shape).unwrap().into_owned()
        };
        let name = "middle_block.0.in_layers.2.weight";
        assert_eq!(values(&format!("{CONTROLNET}{name}"), &[4, 4, 3, 3]), unet(name, &[4, 4, 3, 3]));
        let wide = values(&format!("{CONTROLNET}{STEM}"), &[5, 8, 3, 3]);
        let known = unet(STEM, &[5, 4, 3, 3]);
        for output in 0..5 {
            assert_eq!(wide[output * 72..][..36], known[output * 36..][..36]);
            assert!(wide[output * 72 + 36..][..36].iter().all(|&v| v == 0.0));
        }
        for name in ["zero_convs.3.0.weight", "middle_block_out.0.bias"] {
            assert_eq!(values(&format!("{CONTROLNET}{name}"), &[6]), [0.0; 6]);
        }
    }

    #[test]
    fn adapters_start_with_maps_that_are_the_same_everywhere() {
        for (name, shape, expected) in [
            ("3.0.out_layers.4.weight", &[1, 4, 3, 3][..], Some(0.0)),
            ("3.0.stages.1.conv.bias", &[1], Some(0.0)),
            ("0.0.in_layers.0.weight", &[8], Some(1.0)),
            ("0.0.out_layers.0.bias", &[8], Some(0.0)),
            ("12.0.in_layers.2.weight", &[4, 4, 3, 3], None),
            ("12.0.emb_layers.1.bias", &[16], None),
        ] {
            let found = values(&format!("{ADAPTER}{name}"), shape);
            match expected {
                Some(value) => assert!(found.iter().all(|&v| v == value), "{name}"),
                None => {
                    let bound = if shape.len() > 1 { 1.0 / 6.0 } else { 0.25 };
                    assert!(found.iter().all(|v| v.abs() <= bound), "{name}");
                    assert!(found.iter().any(|v| v.abs() > 0.5 * bound), "{name}");
                }
            }
        }
    }
}
