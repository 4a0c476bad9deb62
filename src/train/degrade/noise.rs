//! Gaussian and Poisson noise, coloured or grey; the results are clamped to [0, 1].

use super::Random;
use super::image::Image;

/// Adds sigma/255 times unit normals, one a channel or one a pixel.
pub fn gaussian(image: &mut Image, sigma: f64, grey: bool, random: &mut Random) {
    let sigma = sigma / 255.0;
    for pixel in image.values.chunks_exact_mut(3) {
        let shared = if grey { random.normal() } else { 0.0 };
        for value in pixel {
            let unit = if grey { shared } else { random.normal() };
            *value = (*value + (sigma * unit) as f32).clamp(0.0, 1.0);
        }
    }
}

/// 2^ceil(log2(number of distinct bytes)).
fn levels(bytes: impl Iterator<Item = u8>) -> f64 {
    let mut seen = [false; 256];
    bytes.for_each(|byte| seen[usize::from(byte)] = true);
    let distinct = seen.iter().filter(|seen| **seen).count().max(1);
    distinct.next_power_of_two() as f64
}

/// v = x rounded to n/255; adds scale (Poisson(v levels) / levels - v), with the levels of [`levels`]; for grey noise
/// v is the luma 0.2989 R + 0.587 G + 0.114 B and all channels get the same.
pub fn poisson(image: &mut Image, scale: f64, grey: bool, random: &mut Random) {
    let byte = |value: f32| (value * 255.0).clamp(0.0, 255.0).round_ties_even() as u8;
    let luma = |p: &[f32]| byte(0.2989 * p[0] + 0.587 * p[1] + 0.114 * p[2]);
    let levels = match grey {
        true => levels(image.values.chunks_exact(3).map(luma)),
        false => levels(image.values.iter().map(|&v| byte(v))),
    };
    let mut noise = |byte: u8| {
        let v = f64::from(byte) / 255.0;
        (scale * (random.poisson(v * levels) / levels - v)) as f32
    };
    for pixel in image.values.chunks_exact_mut(3) {
        if grey {
            let shared = noise(luma(pixel));
            pixel.iter_mut().for_each(|v| *v = (*v + shared).clamp(0.0, 1.0));
        } else {
            pixel.iter_mut().for_each(|v| *v = (*v + noise(byte(*v))).clamp(0.0, 1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(value: f32, side: usize) -> Image {
        Image::new(side, side, vec![value; side * side * 3]).unwrap()
    }

    fn deviation(image: &Image, from: f32) -> f64 {
        let sum: f64 = image.values.iter().map(|v| f64::from(v - from).powi(2)).sum();
        (sum / image.values.len() as f64).sqrt()
    }

    #[test]
    fn levels_are_the_next_power_of_two() {
        let count = |n: usize| levels((0..n).map(|i| i as u8));
        assert_eq!([count(1), count(2), count(3), count(129), count(256)], [1.0, 2.0, 4.0, 256.0, 256.0]);
    }

    #[test]
    fn noise_has_its_deviation_and_grey_noise_is_shared() {
        for grey in [false, true] {
            let mut random = Random::new(1, 0, 0);
            let mut image = flat(0.5, 64);
            gaussian(&mut image, 12.0, grey, &mut random);
            assert!((deviation(&image, 0.5) * 255.0 - 12.0).abs() < 0.5, "{}", deviation(&image, 0.5));
            let shared = image.values.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2]);
            assert_eq!(shared, grey);
        }
        // 256 levels: a picture that holds every byte, of which the half that is flat is measured.
        for grey in [false, true] {
            let side = 64;
            let mut values = vec![128.0 / 255.0; side * side * 3];
            (0..256).for_each(|i| values[3 * i..3 * i + 3].fill(i as f32 / 255.0));
            let mut image = Image::new(side, side, values).unwrap();
            poisson(&mut image, 0.5, grey, &mut Random::new(2, 0, 0));
            let rest = Image::new(side - 4, side, image.values[256 * 3..].to_vec()).unwrap();
            let expected = 0.5 * (128.0f64 / 255.0 / 256.0).sqrt();
            let found = deviation(&rest, 128.0 / 255.0);
            assert!((found / expected - 1.0).abs() < 0.04, "{found} for {expected}");
        }
    }
}
