//! `tasr compare`: known figures of pictures that differ in a known way, and what cannot be compared.

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::program::{Folder, tasr, tasr_ok};

const SIDE: u32 = 32;

/// A chequered grey picture with steps of `contrast` about 128, `shift` brighter.
fn chequered(folder: &Folder, name: &str, contrast: u8, shift: u8) -> String {
    let picture = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let up = (x / 4 + y / 4) % 2 == 0;
        Rgb([128 + shift + if up { contrast / 2 } else { 0 } - if up { 0 } else { contrast / 2 }; 3])
    });
    picture.save(folder.path(name)).expect("writes");
    folder.text(name)
}

fn compared(original: &str, images: &[&str]) -> Vec<Value> {
    let run = tasr_ok(&[&["compare", "--json", "--with", original][..], images].concat());
    run.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn figures_are_those_of_the_difference() {
    let folder = Folder::new();
    let original = chequered(&folder, "original.png", 60, 0);
    let same = chequered(&folder, "same.png", 60, 0);
    let brighter = chequered(&folder, "brighter.png", 60, 10);
    let duller = chequered(&folder, "duller.png", 30, 0);
    let found = compared(&original, &[&same, &brighter, &duller]);
    let figure = |i: usize, key: &str| found[i][key].as_f64().expect("a number");
    // The error is 0, and is held off infinity by 1e-8.
    assert!((figure(0, "psnr_y") - 80.0).abs() < 1e-3 && (figure(0, "ssim_y") - 1.0).abs() < 1e-9);
    // Luma is 219/255 of grey.
    let wanted = 20.0 * (255.0f64 / (10.0 * 219.0 / 255.0)).log10();
    assert!((figure(1, "psnr_y") - wanted).abs() < 0.01, "{} for {wanted}", figure(1, "psnr_y"));
    let share = |i: usize| figure(i, "gradient_energy") / figure(i, "gradient_energy_of_original");
    assert!((share(0) - 1.0).abs() < 1e-9 && (share(1) - 1.0).abs() < 1e-4, "{found:?}");
    // Half the contrast, a quarter of the energy.
    assert!((share(2) - 0.25).abs() < 1e-3 && figure(2, "ssim_y") < figure(0, "ssim_y"), "{found:?}");
}

#[test]
fn a_smaller_picture_is_enlarged() {
    let folder = Folder::new();
    let original = chequered(&folder, "original.png", 60, 0);
    RgbImage::from_pixel(SIDE / 4, SIDE / 4, Rgb([128; 3])).save(folder.path("low.png")).expect("writes");
    let found = &compared(&original, &[&folder.text("low.png")])[0];
    assert_eq!((&found["bicubic"], &found["gradient_energy"]), (&true.into(), &0.0.into()), "{found}");
    // Every pixel is 30 off.
    let wanted = 20.0 * (255.0f64 / (30.0 * 219.0 / 255.0)).log10();
    assert!((found["psnr_y"].as_f64().expect("a number") - wanted).abs() < 0.01, "{found}");
    let table = tasr_ok(&["compare", "--with", &original, &folder.text("low.png")]).stdout;
    assert!(table.starts_with("PSNR-Y dB") && table.contains("low.png, enlarged bicubically"), "{table}");
}

#[test]
fn what_cannot_be_compared_is_one_sentence() {
    let folder = Folder::new();
    let original = chequered(&folder, "original.png", 60, 0);
    RgbImage::new(SIDE + 1, SIDE).save(folder.path("large.png")).expect("writes");
    let run = tasr(&["compare", "--with", &original, &folder.text("large.png")]);
    assert!(run.code == 3 && run.stderr.contains("33 x 32") && run.stderr.lines().count() == 1, "{run}");
    let run = tasr(&["compare", "--with", &folder.text("gone.png"), &original]);
    assert!(run.code == 7 && run.stderr.contains("gone.png"), "{run}");
}
