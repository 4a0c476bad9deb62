use super::*;

/// Luminance at every pixel, its mean taken off.
fn grey(values: &[f32]) -> Vec<f64> {
    let luma: Vec<f64> = values
        .chunks_exact(3)
        .map(|p| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]))
        .collect();
    let mean = luma.iter().sum::<f64>() / luma.len() as f64;
    luma.iter().map(|v| v - mean).collect()
}

/// Power at `frequency` cycles a side, the mean over rows and columns, under a Hann window.
fn power(picture: &[f64], side: usize, frequency: usize) -> f64 {
    let step = std::f64::consts::TAU / side as f64;
    let wave: Vec<[f64; 2]> = (0..side)
        .map(|x| {
            let hann = 0.5 - 0.5 * (step * (x as f64 + 0.5)).cos();
            let (sin, cos) = (step * (frequency * x) as f64).sin_cos();
            [hann * cos, hann * sin]
        })
        .collect();
    let line = |at: &dyn Fn(usize) -> f64| {
        let [re, im] =
            wave.iter().enumerate().fold([0.0; 2], |[re, im], (x, w)| [re + at(x) * w[0], im + at(x) * w[1]]);
        re * re + im * im
    };
    (0..side).map(|i| line(&|x| picture[i * side + x]) + line(&|y| picture[y * side + i])).sum()
}

/// Slope of log power of lines over log frequency, from 4 to 40 cycles a side of 128, by least squares.
fn slope(values: &[f32], side: usize) -> f64 {
    let picture = grey(values);
    let points: Vec<[f64; 2]> = [4usize, 6, 9, 13, 19, 28, 40]
        .into_iter()
        .map(|f| [(f as f64).ln(), (power(&picture, side, f) + 1e-9).ln()])
        .collect();
    let mean = |c: usize| points.iter().map(|p| p[c]).sum::<f64>() / points.len() as f64;
    let (mx, my) = (mean(0), mean(1));
    let cov: f64 = points.iter().map(|p| (p[0] - mx) * (p[1] - my)).sum();
    cov / points.iter().map(|p| (p[0] - mx).powi(2)).sum::<f64>()
}

#[test]
fn a_picture_depends_on_seed_number_and_side_alone() {
    let fonts = Fonts::default();
    let bytes =
        |seed, index, side| picture(seed, index, side, &fonts).iter().map(|v| (v * 255.0) as u8).collect();
    let one: Vec<u8> = bytes(1, 5, 64);
    let again: Vec<u8> = std::thread::spawn(move || {
        picture(1, 5, 64, &Fonts::default()).iter().map(|v| (v * 255.0) as u8).collect()
    })
    .join()
    .unwrap();
    assert!(one == again);
    assert!(one != bytes(2, 5, 64) && one != bytes(1, 6, 64));
    assert_eq!(bytes(1, 5, 16).len(), 16 * 16 * 3);
}

#[test]
fn pictures_are_photos_by_their_numbers() {
    let (side, count) = (128, 48);
    let pictures: Vec<Vec<f32>> = (0..count).map(|i| picture(3, i, side, &Fonts::default())).collect();
    assert!(pictures.iter().flatten().all(|v| (0.0..=1.0).contains(v)));

    // The power of lines through photos falls as frequency^-2, give or take.
    let slopes: Vec<f64> = pictures.iter().map(|p| slope(p, side)).collect();
    let mean = slopes.iter().sum::<f64>() / count as f64;
    assert!((-2.6..=-1.5).contains(&mean), "mean slope {mean}, each {slopes:?}");
    let deviation = (slopes.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count as f64).sqrt();
    assert!((0.15..1.2).contains(&deviation), "slopes all alike or wild: {deviation}");

    // Moderately bright, contrasty and colourful.
    let average = |of: &dyn Fn(&[f32]) -> f64| pictures.iter().map(|p| of(p)).sum::<f64>() / count as f64;
    let light = average(&|p| p.iter().map(|&v| f64::from(v)).sum::<f64>() / p.len() as f64);
    let contrast = average(&|p| (grey(p).iter().map(|v| v * v).sum::<f64>() * 3.0 / p.len() as f64).sqrt());
    let chroma = average(&|p| {
        let spread = |p: &[f32]| f64::from(p[0].max(p[1]).max(p[2]) - p[0].min(p[1]).min(p[2]));
        p.chunks_exact(3).map(spread).sum::<f64>() * 3.0 / p.len() as f64
    });
    assert!((0.25..0.6).contains(&light), "mean {light}");
    assert!((0.08..0.3).contains(&contrast), "contrast {contrast}");
    assert!((0.04..0.3).contains(&chroma), "chroma {chroma}");
}

#[test]
fn no_two_pictures_are_alike_and_none_is_empty() {
    let pictures: Vec<Vec<f64>> = (0..40).map(|i| grey(&picture(9, i, 48, &Fonts::default()))).collect();
    let norm = |p: &[f64]| p.iter().map(|v| v * v).sum::<f64>().sqrt();
    for (i, a) in pictures.iter().enumerate() {
        assert!(norm(a) > 0.1, "picture {i} is empty: {}", norm(a));
        for (j, b) in pictures[..i].iter().enumerate() {
            let product: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
            let likeness = product / (norm(a) * norm(b));
            assert!(likeness < 0.95, "pictures {j} and {i} are alike: {likeness}");
        }
    }
}

#[test]
fn a_folder_without_fonts_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.ttf"), b"no font").unwrap();
    let error = Fonts::read(folder.path()).err().unwrap().to_string();
    assert!(error.contains("no .ttf or .otf font") && error.contains("--fonts"), "{error}");
    assert!(Fonts::read(&folder.path().join("absent")).err().unwrap().to_string().contains("absent"));
}
