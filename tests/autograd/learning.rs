//! Masters, packed weights and moments: what an update changes, and what a checkpoint carries.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tasr::autograd::Cx;
use tasr::device::Device;
use tasr::error::Result;
use tasr::nn::{Conv, Gathered, GroupNorm, Layer, Linear, Scope, Source, Trained, Visit};
use tasr::ops::adamw::AdamW;
use tasr::ops::conv2d::Conv2d;
use tasr::ops::{Activation, Segments};
use tasr::tensor::{DType, Tensor};
use tasr::train::optimizer::{Learner, State};

use crate::support::Random;

/// Weights by name; shapes are taken as they come.
struct Map(BTreeMap<String, Vec<f32>>);

impl Source for Map {
    fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        None
    }

    fn expect(&self, name: &str, _shape: &[usize]) -> bool {
        self.0.contains_key(name)
    }

    fn values(&self, name: &str, _shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Borrowed(&self.0[name]))
    }
}

const C: usize = 24;

/// One of each layer that packs its weights in its own way.
struct Net {
    norm: GroupNorm,
    direct: Conv,
    large: Conv,
    joined: Linear,
}

impl Layer for Net {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        self.norm.visit(visit)?;
        self.direct.visit(visit)?;
        self.large.visit(visit)?;
        self.joined.visit(visit)
    }
}

impl Net {
    fn load(scope: &Scope) -> Result<Self> {
        Ok(Net {
            norm: GroupNorm::load(&scope.sub("norm"), C, 4, 1e-5)?,
            direct: Conv::load(&scope.sub("direct"), C, C, 3)?,
            large: Conv::load_for_large(&scope.sub("large"), C, C)?,
            joined: Linear::load_joined(scope, &["q", "k"], C, 5, &[1, 1], true)?,
        })
    }

    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let norm = self.norm.affine(cx, &Segments::one(x), None, Activation::Silu)?;
        let h = self.direct.forward(cx, &Conv2d::new(Segments::one(x)).prologue(&norm))?;
        let h = self.large.forward(cx, &Conv2d::new(Segments::one(&h)))?;
        self.joined.forward(cx, &h)
    }
}

fn source() -> Map {
    let mut random = Random::new(3);
    let mut values = |count: usize| random.array(&[count]).map(|v| 0.2 * v).to_f32();
    Map(BTreeMap::from(
        [
            ("norm.weight", C),
            ("norm.bias", C),
            ("direct.weight", C * C * 9),
            ("direct.bias", C),
            ("large.weight", C * C * 9),
            ("large.bias", C),
            ("q.weight", 5 * C),
            ("q.bias", 5),
            ("k.weight", 5 * C),
            ("k.bias", 5),
        ]
        .map(|(name, count)| (name.to_owned(), values(count))),
    ))
}

fn learner(cx: &Cx, source: &Map) -> Result<Learner<Net>> {
    let gathered = Gathered::default();
    let net = Net::load(&Scope::new(cx, source, "").training(&gathered))?;
    Learner::new(cx, Trained::new(net, gathered)?)
}

fn cx() -> Cx {
    Cx::new(Device::cpu(), DType::F32).expect("a cpu")
}

fn input(cx: &Cx) -> Result<Tensor> {
    Tensor::from_f32(cx.device(), &Random::new(4).array(&[2, 6, 4, C]).to_f32(), [2, 6, 4, C])
}

/// Gathers the gradients of half the sum of squares of the result.
fn gather(cx: &Cx, learner: &mut Learner<Net>) -> Result<()> {
    let taped = cx.with_tape();
    let tape = taped.tape().expect("a tape");
    learner.trained.watch(tape);
    let result = learner.trained.network.forward(&taped, &input(cx)?)?;
    let mut found = tape.backward(&taped, vec![(&result, result.detached())])?;
    drop(result);
    learner.accumulate(cx, &mut found)
}

const SETTINGS: AdamW = AdamW { rate: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.01 };

fn result(cx: &Cx, net: &Net) -> Vec<f32> {
    net.forward(cx, &input(cx).unwrap()).unwrap().to_f32().unwrap()
}

#[test]
fn packed_weights_follow_their_masters() {
    let cx = cx();
    let mut learner = learner(&cx, &source()).unwrap();
    let before = result(&cx, &learner.trained.network);
    for _ in 0..3 {
        gather(&cx, &mut learner).unwrap();
        learner.update(&cx, &SETTINGS, None).unwrap();
    }
    let after = result(&cx, &learner.trained.network);
    let energy = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
    assert!(energy(&after) < 0.8 * energy(&before), "{} then {}", energy(&before), energy(&after));
    // A network loaded from the exported masters computes the same bits.
    let exported = learner.export(State::Master).unwrap();
    assert_eq!(exported.iter().find(|tensor| tensor.name == "k.weight").unwrap().shape, [5, C, 1, 1]);
    let map = Map(exported.into_iter().map(|tensor| (tensor.name, tensor.values)).collect());
    assert_eq!(map.0.len(), source().0.len());
    let fresh = Net::load(&Scope::new(&cx, &map, "")).unwrap();
    assert_eq!(result(&cx, &fresh), after);
}

#[test]
fn a_restored_learner_goes_on_with_the_same_bits() {
    let cx = cx();
    let mut straight = learner(&cx, &source()).unwrap();
    let mut saved = BTreeMap::new();
    for i in 0..4 {
        gather(&cx, &mut straight).unwrap();
        straight.update(&cx, &SETTINGS, Some(0.5)).unwrap();
        if i == 1 {
            for (k, state) in [State::Master, State::First, State::Second].into_iter().enumerate() {
                for tensor in straight.export(state).unwrap() {
                    saved.insert((k, tensor.name), tensor.values);
                }
            }
        }
    }
    let mut resumed = learner(&cx, &Map(BTreeMap::new())).unwrap();
    let read = |state: State, name: &str, _: &[usize]| Ok(saved[&(state as usize, name.to_owned())].clone());
    resumed.restore(&cx, 2, read).unwrap();
    for _ in 0..2 {
        gather(&cx, &mut resumed).unwrap();
        resumed.update(&cx, &SETTINGS, Some(0.5)).unwrap();
    }
    assert_eq!(resumed.steps(), 4);
    assert_eq!(result(&cx, &resumed.trained.network), result(&cx, &straight.trained.network));
}

#[test]
fn batches_count_by_their_mean_and_norms_are_limited() {
    let cx = cx();
    let (mut once, mut twice) = (learner(&cx, &source()).unwrap(), learner(&cx, &source()).unwrap());
    gather(&cx, &mut once).unwrap();
    gather(&cx, &mut twice).unwrap();
    gather(&cx, &mut twice).unwrap();
    let squares = |gradient: &Option<Tensor>| -> f64 {
        gradient.as_ref().unwrap().to_f32().unwrap().iter().map(|v| f64::from(*v).powi(2)).sum()
    };
    let expected = once.gradients().iter().map(squares).sum::<f64>().sqrt();
    let norm = once.update(&cx, &SETTINGS, None).unwrap();
    assert!((f64::from(norm) - expected).abs() < 1e-5 * expected, "{norm}, expected {expected}");
    assert_eq!(twice.update(&cx, &SETTINGS, None).unwrap(), norm);
    assert_eq!(result(&cx, &once.trained.network), result(&cx, &twice.trained.network));
    // Limiting the norm scales the first moment of the next update.
    let mut limited = learner(&cx, &source()).unwrap();
    gather(&cx, &mut limited).unwrap();
    limited.update(&cx, &SETTINGS, Some(norm / 4.0)).unwrap();
    let first = |learner: &Learner<Net>| learner.export(State::First).unwrap().swap_remove(2).values;
    for (small, large) in first(&limited).into_iter().zip(first(&once)) {
        assert!((4.0 * small - large).abs() <= 1e-5 * large.abs() + 1e-12, "{small} and {large}");
    }
    assert!(once.update(&cx, &SETTINGS, None).is_err(), "an update without gradients");
}

#[test]
fn a_tape_that_was_not_run_keeps_weights_from_being_packed() {
    let cx = cx();
    let mut learner = learner(&cx, &source()).unwrap();
    gather(&cx, &mut learner).unwrap();
    let taped = cx.with_tape();
    learner.trained.watch(taped.tape().expect("a tape"));
    let held = learner.trained.network.forward(&taped, &input(&cx).unwrap()).unwrap();
    assert!(learner.update(&cx, &SETTINGS, None).is_err());
    drop((held, taped));
}
