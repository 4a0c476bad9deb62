//! Where networks start that are trained from nothing, and weights by name that are held in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::image::hash::fnv1a_64;
use crate::nn::{Scope, Source};
use crate::ops::Cx;
use crate::tensor::DType;
use crate::train::degrade::Random;
use crate::train::optimizer::Exported;
use crate::weights::Manifest;
use crate::weights::names::{EMPTY, UNET, VAE};

/// Last layers of residual branches, and of the UNet: a deep network starts as what lies beside them.
const ZERO: [(&str, &str); 5] = [
    (UNET, ".out_layers.3."),
    (UNET, ".proj_out."),
    (UNET, "diffusion_model.out.2."),
    (VAE, ".proj_out."),
    (VAE, ".conv2."),
];
/// The dense blocks of stage 1 start small (Wang et al., ESRGAN, 3.1).
const DENSE: &str = ".RDB";

/// Random weights: normal with the variance that keeps that of activations (He et al. 2015; for the smooth
/// activations of UNet and autoencoder without the factor of rectifiers), biases zero, norms the identity, last
/// layers of residual branches zero; stage 1 is an interpolation at first.
pub struct Scratch {
    pub seed: u64,
}

impl Source for Scratch {
    fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        None
    }

    fn expect(&self, _name: &str, _shape: &[usize]) -> bool {
        true
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let count = shape.iter().product();
        let fan_in: usize = shape.iter().skip(1).product();
        let deviation = match () {
            () if ZERO.iter().any(|(network, layer)| name.starts_with(network) && name.contains(layer)) => {
                0.0
            }
            // One row that stands for every text: of order one, as a tower's are.
            () if name == EMPTY => 1.0,
            () if shape.len() < 2 => 0.0,
            () if name.contains(DENSE) => 0.1 * (2.0 / fan_in as f64).sqrt(),
            () => (1.0 / fan_in as f64).sqrt(),
        };
        if deviation == 0.0 {
            let norm = shape.len() == 1 && name.ends_with(".weight");
            return Ok(vec![f32::from(u8::from(norm)); count].into());
        }
        let random = &mut Random::new(self.seed, 0, fnv1a_64(name.bytes()));
        let mut values: Vec<f32> = (0..count).map(|_| (deviation * random.normal()) as f32).collect();
        interpolate(name, shape, &mut values);
        Ok(values.into())
    }
}

/// Lets stage 1 start as linear interpolation: its first three channels carry the colours through all layers, and the
/// last looks at no others yet. Doubled by repetition and blurred by 1 2 1, a row is interpolated linearly.
fn interpolate(name: &str, shape: &[usize], values: &mut [f32]) {
    let (Some(layer), &[_, inputs, 3, 3]) = (name.strip_suffix(".weight"), shape) else { return };
    let kernel = match layer {
        "conv_first" | "HRconv" | "conv_last" => [0.0, 1.0, 0.0],
        "upconv1" | "upconv2" => [0.25, 0.5, 0.25],
        "trunk_conv" => [0.0; 3],
        _ => return,
    };
    for (colour, row) in values.chunks_exact_mut(9 * inputs).take(3).enumerate() {
        row.fill(0.0);
        for (i, value) in row[9 * colour..][..9].iter_mut().enumerate() {
            *value = kernel[i / 3] * kernel[i % 3];
        }
    }
}

/// Weights in memory.
pub struct Held(BTreeMap<String, Exported>);

impl Held {
    pub fn new(tensors: &[Exported]) -> Self {
        Held(tensors.iter().map(|tensor| (tensor.name.clone(), tensor.clone())).collect())
    }
}

impl Source for Held {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).map(|tensor| tensor.shape.clone())
    }

    fn expect(&self, name: &str, shape: &[usize]) -> bool {
        self.0.get(name).is_some_and(|tensor| tensor.shape == shape)
    }

    fn values(&self, name: &str, _shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let tensor = self.0.get(name).ok_or_else(|| Error::internal(format!("{name} is not held")))?;
        Ok(Cow::Borrowed(&tensor.values))
    }
}

/// Every tensor that `load` takes, with its values from `source`.
///
/// # Errors
/// Those of `load` and of reading.
pub fn collected(
    source: &dyn Source,
    load: impl FnOnce(&Cx, &dyn Source) -> Result<()>,
) -> Result<Vec<Exported>> {
    let plan = Cx::new(Device::plan(Target::Cpu), DType::F32)?;
    let manifest = Manifest::default();
    load(&plan, &manifest)?;
    let read = |(name, shape): (String, Vec<usize>)| {
        let values = source.values(&name, &shape)?.into_owned();
        Ok(Exported { name, shape, values })
    };
    manifest.into_tensors().into_iter().map(read).collect()
}

/// What `infer` reads off the tensors of `source` under `prefix`.
///
/// # Errors
/// Those of `infer`, at `label`.
pub fn sizes<C>(
    cx: &Cx,
    (source, label): (&dyn Source, &str),
    prefix: &str,
    infer: impl FnOnce(&Scope) -> Result<C>,
) -> Result<C> {
    infer(&Scope::new(cx, source, prefix)).map_err(|error| error.at(label.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(name: &str, shape: &[usize]) -> Vec<f32> {
        Scratch { seed: 5 }.values(name, shape).unwrap().into_owned()
    }

    #[test]
    fn stage_1_starts_as_linear_interpolation() {
        let up = values("upconv2.weight", &[32, 32, 3, 3]);
        let (own, others) = up[32 * 9..][..32 * 9].split_at(18);
        assert_eq!(own[9..], [1.0, 2.0, 1.0, 2.0, 4.0, 2.0, 1.0, 2.0, 1.0].map(|v| v / 16.0));
        assert!(
            own[..9].iter().chain(others).all(|&v| v == 0.0) && up[3 * 32 * 9..].iter().all(|&v| v != 0.0)
        );
        let last = values("conv_last.weight", &[3, 32, 3, 3]);
        let ones: Vec<usize> = (0..last.len()).filter(|&i| last[i] != 0.0).collect();
        assert!(ones == [4, 32 * 9 + 9 + 4, 2 * 32 * 9 + 18 + 4] && ones.iter().all(|&i| last[i] == 1.0));
        assert!(values("trunk_conv.weight", &[32, 32, 3, 3])[..3 * 32 * 9].iter().all(|&v| v == 0.0));
        // A layer of that name elsewhere is another.
        let other = values("first_stage_model.encoder.conv_last.weight", &[3, 32, 3, 3]);
        assert!(other.iter().all(|&v| v != 0.0));
    }

    #[test]
    fn variance_is_kept_and_branches_start_at_nothing() {
        let deviation = |name: &str, shape: &[usize]| {
            let values = values(name, shape);
            (values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt()
        };
        for (name, shape, expected) in [
            ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", &[64, 64, 3, 3][..], 1.0 / 24.0),
            ("first_stage_model.encoder.conv_in.weight", &[64, 27, 1, 1], 0.19245),
            ("RRDB_trunk.0.RDB1.conv2.weight", &[64, 50], 0.02),
            ("cond_stage_model.empty", &[1, 4096], 1.0),
        ] {
            let found = deviation(name, shape);
            assert!((found / expected - 1.0).abs() < 0.06, "{name}: {found}");
        }
        for name in [
            "model.diffusion_model.out.2.weight",
            "model.diffusion_model.middle_block.1.proj_out.weight",
            "model.diffusion_model.output_blocks.3.0.out_layers.3.weight",
            "first_stage_model.decoder.mid.block_1.conv2.weight",
            "first_stage_model.encoder.mid.attn_1.proj_out.bias",
        ] {
            assert!(values(name, &[8, 4]).iter().all(|&v| v == 0.0), "{name}");
        }
        assert_eq!(values("first_stage_model.encoder.norm_out.weight", &[3]), [1.0; 3]);
        assert_eq!(values("first_stage_model.encoder.conv_in.bias", &[3]), [0.0; 3]);
    }
}
