//! Whole recipes: sizes, ranges, and that a picture is a pure function of (seed, epoch, picture).

use tasr::train::degrade::{Image, Pair, Random, Recipe};

use crate::photo;

fn degraded(recipe: &str, seed: u64, epoch: u64, image: u64) -> Pair {
    let high = photo().window((1, 2), (40, 48));
    Recipe::named(recipe).expect("known").apply(high, &mut Random::new(seed, epoch, image)).expect("degrades")
}

fn difference(a: &Image, b: &Image) -> f32 {
    a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.values.len() as f32
}

#[test]
fn sizes_and_ranges() {
    for image in 0..24 {
        for (recipe, scale) in [("realesrgan", 4), ("realesrgan-mild", 4), ("codeformer", 1)] {
            let Pair { high, low } = degraded(recipe, 1, 0, image);
            assert_eq!((high.height, high.width), (40, 48));
            assert_eq!((low.height, low.width), (40 / scale, 48 / scale), "{recipe}");
            assert!(low.values.iter().all(|v| (0.0..=1.0).contains(v)), "{recipe} {image}");
            if scale == 4 {
                let bytes = low.values.iter().map(|v| v * 255.0);
                assert!(bytes.into_iter().all(|v| (v - v.round()).abs() < 1e-4), "{recipe} {image}");
            }
        }
    }
    assert!(Recipe::named("realesrgan+").is_err());
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_threads() {
    for recipe in ["realesrgan", "codeformer"] {
        let images = [3u64, 1, 4, 15, 9, 2, 6];
        let alone: Vec<Pair> = images.iter().map(|&image| degraded(recipe, 7, 2, image)).collect();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let together: Vec<Pair> = pool.install(|| {
                use rayon::prelude::*;
                images.par_iter().map(|&image| degraded(recipe, 7, 2, image)).collect()
            });
            assert!(together == alone, "{recipe} with {threads} threads");
        }
        for (seed, epoch, image) in [(8, 2, 3), (7, 3, 3), (7, 2, 5)] {
            let other = degraded(recipe, seed, epoch, image);
            assert!(difference(&other.low, &alone[0].low) > 1e-3, "{recipe}: ({seed}, {epoch}, {image})");
        }
    }
}

#[test]
fn a_degraded_picture_still_shows_what_it_showed() {
    for recipe in ["realesrgan", "codeformer"] {
        let errors: Vec<f32> = (0..16)
            .map(|image| {
                let Pair { high, low } = degraded(recipe, 3, 0, image);
                let kind = tasr::train::degrade::resize::Kind::Area;
                let high = tasr::train::degrade::resize::resize(&high, (low.height, low.width), kind);
                difference(&high, &low)
            })
            .collect();
        let mean = errors.iter().sum::<f32>() / 16.0;
        assert!((0.01..0.2).contains(&mean), "{recipe}: {errors:?}");
    }
}
