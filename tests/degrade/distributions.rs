//! What is drawn, held against the table of parameters.

use std::f64::consts::PI;

use tasr::train::degrade::kernels::{Draw, Profile};
use tasr::train::degrade::resize::Kind;
use tasr::train::degrade::{CodeFormer, NoiseDraw, PassDraw, Random, RealEsrgan};

const COUNT: usize = 40_000;

/// A share of `total` events is `expected`, within five standard errors.
#[track_caller]
fn share(what: &str, count: usize, total: usize, expected: f64) {
    let error = 5.0 * (expected * (1.0 - expected) / total as f64).sqrt();
    let found = count as f64 / total as f64;
    assert!((found - expected).abs() <= error, "{what}: {found} for {expected}, {total} draws");
}

/// `values` fill [low, high) evenly, by ten bins.
#[track_caller]
fn uniform(what: &str, values: &[f64], [low, high]: [f64; 2]) {
    assert!(values.len() > 500, "{what}: only {} draws", values.len());
    let mut bins = [0; 10];
    for value in values {
        assert!((low..high).contains(value), "{what}: {value} is not in {low}..{high}");
        bins[((value - low) / (high - low) * 10.0) as usize] += 1;
    }
    bins.iter().for_each(|&count| share(what, count, values.len(), 0.1));
}

struct Expected {
    blur: f64,
    sigma: [f64; 2],
    resize: [f64; 3],
    scale: [f64; 2],
    noise: [f64; 2],
    poisson: [f64; 2],
    quality: [f64; 2],
}

fn check(draws: &[PassDraw], expected: &Expected) {
    let blurred: Vec<Draw> = draws.iter().filter_map(|d| d.kernel).collect();
    share("blur", blurred.len(), COUNT, expected.blur);
    let sinc = |d: &&Draw| matches!(d, Draw::Sinc { .. });
    share("sinc", blurred.iter().filter(sinc).count(), blurred.len(), 0.1);

    let (mut sizes, mut kinds, mut sigmas, mut angles) = ([0; 8], [0; 6], Vec::new(), Vec::new());
    let mut cutoffs = [Vec::new(), Vec::new()];
    let (mut generalized, mut plateau) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for draw in &blurred {
        match *draw {
            Draw::Sinc { size, cutoff } => {
                sizes[(size - 7) / 2] += 1;
                cutoffs[usize::from(size >= 13)].push(cutoff);
            }
            Draw::Bivariate { size, sigma: [sx, sy], angle, profile } => {
                sizes[(size - 7) / 2] += 1;
                let aniso = usize::from(sx != sy);
                sigmas.push(sx);
                if aniso == 1 {
                    sigmas.push(sy);
                    angles.push(angle);
                }
                kinds[aniso
                    + match profile {
                        Profile::Gaussian => 0,
                        Profile::Generalized(beta) => {
                            generalized[usize::from(beta >= 1.0)].push(beta);
                            2
                        }
                        Profile::Plateau(beta) => {
                            plateau[usize::from(beta > 1.0)].push(beta);
                            4
                        }
                    }] += 1;
            }
        }
    }
    sizes.iter().for_each(|&count| share("size", count, blurred.len(), 1.0 / 8.0));
    let total = kinds.iter().sum();
    for (count, weight) in kinds.into_iter().zip([0.45, 0.25, 0.12, 0.03, 0.12, 0.03]) {
        share("kind", count, total, weight);
    }
    uniform("sigma", &sigmas, expected.sigma);
    uniform("angle", &angles, [-PI, PI]);
    uniform("cutoff of small kernels", &cutoffs[0], [PI / 3.0, PI]);
    uniform("cutoff of large kernels", &cutoffs[1], [PI / 5.0, PI]);
    uniform("beta below 1", &generalized[0], [0.5, 1.0]);
    uniform("beta above 1", &generalized[1], [1.0, 4.0]);
    assert!(plateau[0].iter().all(|&beta| beta == 1.0));
    uniform("plateau above 1", &plateau[1], [1.0, 2.0]);
    share("plateau of 1", plateau[0].len(), plateau[0].len() + plateau[1].len(), 0.5);

    let up: Vec<f64> = draws.iter().map(|d| d.scale).filter(|&s| s > 1.0).collect();
    let down: Vec<f64> = draws.iter().map(|d| d.scale).filter(|&s| s < 1.0).collect();
    share("up", up.len(), COUNT, expected.resize[0]);
    share("down", down.len(), COUNT, expected.resize[1]);
    uniform("up", &up, [1.0, expected.scale[1]]);
    uniform("down", &down, [expected.scale[0], 1.0]);
    for kind in [Kind::Area, Kind::Bilinear, Kind::Bicubic] {
        share("interpolation", draws.iter().filter(|d| d.kind == kind).count(), COUNT, 1.0 / 3.0);
    }

    let (mut sigmas, mut scales) = (Vec::new(), Vec::new());
    draws.iter().for_each(|d| match d.noise {
        NoiseDraw::Gaussian(sigma) => sigmas.push(sigma),
        NoiseDraw::Poisson(scale) => scales.push(scale),
    });
    share("Gaussian noise", sigmas.len(), COUNT, 0.5);
    uniform("noise", &sigmas, expected.noise);
    uniform("Poisson", &scales, expected.poisson);
    share("grey noise", draws.iter().filter(|d| d.grey).count(), COUNT, 0.4);
    let qualities: Vec<f64> = draws.iter().map(|d| d.quality).collect();
    uniform("quality", &qualities, expected.quality);
}

#[test]
fn the_second_order_pipeline_draws_what_the_table_says() {
    let official = [
        Expected {
            blur: 1.0,
            sigma: [0.2, 3.0],
            resize: [0.2, 0.7, 0.1],
            scale: [0.15, 1.5],
            noise: [1.0, 30.0],
            poisson: [0.05, 3.0],
            quality: [30.0, 95.0],
        },
        Expected {
            blur: 0.8,
            sigma: [0.2, 1.5],
            resize: [0.3, 0.4, 0.3],
            scale: [0.3, 1.2],
            noise: [1.0, 25.0],
            poisson: [0.05, 2.5],
            quality: [30.0, 95.0],
        },
    ];
    let mild = [
        Expected {
            scale: [0.3, 1.5],
            noise: [1.0, 15.0],
            poisson: [0.05, 2.0],
            quality: [60.0, 95.0],
            ..official[0]
        },
        Expected {
            blur: 0.5,
            scale: [0.6, 1.2],
            noise: [1.0, 12.0],
            poisson: [0.05, 1.0],
            quality: [60.0, 100.0],
            ..official[1]
        },
    ];
    for (recipe, expected) in [(RealEsrgan::default(), official), (RealEsrgan::mild(), mild)] {
        // One stream for each picture, as in training: streams must be independent of each other, too.
        let plans: Vec<_> =
            (0..COUNT as u64).map(|image| recipe.plan(&mut Random::new(5, 0, image))).collect();
        let passes = [
            plans.iter().map(|p| p.first.clone()).collect::<Vec<_>>(),
            plans.iter().map(|p| p.second.clone()).collect(),
        ];
        passes.iter().zip(&expected).for_each(|(draws, expected)| check(draws, expected));
        share("order", plans.iter().filter(|p| p.resize_first).count(), COUNT, 0.5);
        let mut cutoffs = Vec::new();
        for plan in &plans {
            match plan.final_sinc {
                Some(Draw::Sinc { cutoff, .. }) => cutoffs.push(cutoff),
                Some(other) => panic!("the last filter is {other:?}"),
                None => {}
            }
        }
        share("final sinc", cutoffs.len(), COUNT, 0.8);
        uniform("final cutoff", &cutoffs, [PI / 3.0, PI]);
    }
}

#[test]
fn the_published_configuration_draws_what_it_says() {
    let plans: Vec<_> =
        (0..COUNT as u64).map(|epoch| CodeFormer::default().plan(&mut Random::new(5, epoch, 1))).collect();
    let of = |value: fn(&_) -> f64| plans.iter().map(value).collect::<Vec<f64>>();
    share("isotropic", plans.iter().filter(|p| p.sigma[0] == p.sigma[1]).count(), COUNT, 0.5);
    uniform("sigma", &of(|p: &tasr::train::degrade::CodeFormerPlan| p.sigma[0]), [0.1, 12.0]);
    uniform("downscale", &of(|p| p.downscale), [1.0, 12.0]);
    uniform("noise", &of(|p| p.noise), [0.0, 15.0]);
    uniform("quality", &of(|p| f64::from(p.quality)), [30.0, 100.0]);
    let angles: Vec<f64> = plans.iter().filter(|p| p.sigma[0] != p.sigma[1]).map(|p| p.angle).collect();
    uniform("angle", &angles, [-PI, PI]);
}
