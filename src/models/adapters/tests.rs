use std::borrow::Cow;

use super::*;
use crate::device::Device;
use crate::models::config::SystemConfig;
use crate::nn::Source;
use crate::tensor::DType;

/// Weights that follow from their tensor's name.
struct Drawn {
    /// the adapters do not listen to the timestep
    deaf: bool,
}

impl Source for Drawn {
    fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        None
    }

    fn expect(&self, _name: &str, _shape: &[usize]) -> bool {
        true
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let count: usize = shape.iter().product();
        if self.deaf && name.contains("emb_layers.") {
            return Ok(vec![0.0; count].into());
        }
        let mut state = name.bytes().fold(1u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
        let fan_in: usize = shape.iter().skip(1).product();
        let scale = (3.0 / fan_in as f32).sqrt();
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * scale
        };
        Ok((0..count).map(|_| next()).collect())
    }
}

const HEARING: Drawn = Drawn { deaf: false };

/// The map of the first adapter of a decoder block, by variant, source of weights and timestep.
fn map(variant: Variant, source: &dyn Source, embedding: f32) -> Vec<f32> {
    let cx = &Cx::new(Device::cpu(), DType::F32).unwrap();
    let config = SystemConfig::preset("tiny").unwrap().denoiser;
    let adapters = Adapters::load(&Scope::new(cx, source, "checkpoint_adapter."), &config, variant).unwrap();
    let drawn = |width: usize, seed: usize| {
        let values: Vec<f32> =
            (0..2 * 4 * 6 * width).map(|i| ((i * 7919 + seed) % 211) as f32 / 105.0 - 1.0).collect();
        Tensor::from_f32(cx.device(), &values, [2, 4, 6, width]).unwrap()
    };
    let rows = vec![embedding; 2 * config.embedding()];
    let rows = Tensor::from_f32(cx.device(), &rows, [2, config.embedding()]).unwrap();
    let times = adapters.times(cx, &rows).unwrap();
    let (h, s) = config.joins()[0];
    let (decoder, base, residual) = (drawn(h, 1), drawn(s, 2), drawn(s, 3));
    let (sum, map) = adapters.forward(cx, 1, &times, Some(&decoder), &base, &residual).unwrap();
    let (sum, map) = (sum.to_f32().unwrap(), map.to_f32().unwrap());
    // What is injected follows from the map, whatever the variant.
    let (base, residual) = (base.to_f32().unwrap(), residual.to_f32().unwrap());
    for (i, value) in sum.iter().enumerate() {
        let expected = base[i] + map[i / s] * residual[i];
        assert!((value - expected).abs() < 1e-5, "{} at {i}: {value}, {expected}", variant.name());
    }
    map
}

#[test]
fn without_timestep_is_official_with_norms_that_do_not_adapt() {
    let (official, without) =
        (map(Variant::Official, &Drawn { deaf: true }, 0.7), map(Variant::NoTimestep, &HEARING, 0.7));
    for (a, b) in official.iter().zip(&without) {
        assert!((a - b).abs() < 1e-6, "{a}, {b}");
    }
    assert_eq!(without, map(Variant::NoTimestep, &HEARING, -0.2));
}

#[test]
fn the_others_know_the_timestep_and_the_place() {
    for variant in [Variant::Official, Variant::Paper, Variant::Transformer] {
        let (early, late) = (map(variant, &HEARING, 0.7), map(variant, &HEARING, -0.2));
        let top = if variant == Variant::Paper { 1.0 } else { 2.0 };
        assert!(early.iter().all(|&v| v > 0.0 && v < top), "{}", variant.name());
        assert!(early.iter().zip(&late).any(|(a, b)| (a - b).abs() > 1e-3), "{}", variant.name());
        assert!(early.iter().any(|v| (v - early[0]).abs() > 1e-3), "{}", variant.name());
    }
}
