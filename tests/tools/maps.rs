//! `tasr maps`: its figures are those of the run's own trace, and what cannot be drawn is said.

use safetensors::SafeTensors;
use serde_json::Value;

use crate::program::{Folder, tasr, tasr_ok};

/// The tiny system, and a picture of 16 x 16 pixels.
fn tiny() -> (Folder, String) {
    let folder = Folder::tiny("f32");
    let picture = image::RgbImage::from_fn(16, 16, |x, y| image::Rgb([(x * 16) as u8, (y * 16) as u8, 90]));
    picture.save(folder.path("low.png")).expect("writes");
    let low = folder.text("low.png");
    (folder, low)
}

#[test]
fn figures_are_those_of_the_trace() {
    let (folder, low) = tiny();
    let (sheet, figures, trace) =
        (folder.text("maps.png"), folder.text("maps.json"), folder.text("t.safetensors"));
    let models = folder.text("");
    let run = tasr_ok(&[
        "maps",
        &low,
        "-o",
        &sheet,
        "--figures",
        &figures,
        "--columns",
        "2",
        "--",
        "--models",
        &models,
        "--steps",
        "3",
        "-q",
    ]);
    tasr_ok(&[
        "upscale",
        &low,
        "-o",
        &folder.text("high.png"),
        "--models",
        &models,
        "--steps",
        "3",
        "--trace",
        &trace,
        "-q",
    ]);
    let bytes = std::fs::read(&trace).expect("the trace");
    let traced = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let found: Value = serde_json::from_slice(&std::fs::read(&figures).expect("figures")).expect("JSON");
    let adapters = found["adapters"].as_array().expect("adapters");
    assert_eq!(found["timesteps"].as_array().map(Vec::len), Some(3));
    for (i, adapter) in adapters.iter().enumerate() {
        for step in 0..3 {
            let tensor = traced.tensor(&format!("step{step}.map.{i}")).expect("a map");
            let values: Vec<f64> = tensor
                .data()
                .chunks_exact(4)
                .map(|v| f64::from(f32::from_le_bytes([v[0], v[1], v[2], v[3]])))
                .collect();
            // The half of the prompt comes first.
            let own = &values[..values.len() / 2];
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            let told = adapter["steps"][step]["mean"].as_f64().expect("a mean");
            assert!((mean - told).abs() < 2e-5, "adapter {i}, step {step}: {told} for {mean}");
        }
    }
    assert!(traced.tensor(&format!("step0.map.{}", adapters.len())).is_err(), "an adapter is missing");
    assert!(run.stdout.contains(&format!("of {} adapters fall", adapters.len())), "{run}");
    let drawn = image::open(&sheet).expect("a picture").to_rgb8();
    let colours: std::collections::HashSet<_> = drawn.pixels().map(|pixel| pixel.0).collect();
    assert!(drawn.width() > 100 && drawn.height() > 1000 && colours.len() > 20, "{:?}", drawn.dimensions());
    let left: Vec<_> = std::fs::read_dir(folder.path(""))
        .expect("lists")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let (folder, low) = tiny();
    let (models, sheet) = (folder.text(""), folder.text("maps.png"));
    let fails = |more: &[&str], code: i32, part: &str| {
        let run = tasr(&[&["maps", &low][..], more].concat());
        let last = run.stderr.lines().last().unwrap_or_default();
        assert!(
            run.code == code && last.starts_with("tasr: error: ") && last.contains(part),
            "{part}: {run}"
        );
        assert!(!folder.path("maps.png").exists());
    };
    fails(&["-o", &folder.text("maps.jpg")], 2, ".png");
    fails(&["-o", &folder.text("gone/maps.png")], 2, "create it first");
    let run = tasr(&["maps", &models, "-o", &sheet]);
    assert!(run.code == 2 && run.stderr.contains("give one picture"), "{run}");
    fails(&["-o", &low], 2, "--overwrite");
    fails(&["-o", &sheet, "--range", "1,0"], 2, "--range");
    fails(&["-o", &sheet, "--", "--stepz", "3"], 2, "behind --");
    fails(&["-o", &sheet, "--adapters", "0"], 2, "--adapters");
    fails(&["-o", &sheet, "--adapters", "99", "--", "--models", &models, "--steps", "1"], 2, "--adapters");
    fails(&["-o", &sheet, "--", "--models", &models, "--steps", "1", "--adapter", "none"], 4, "tasr");
    let fix = "--control-until";
    fails(&["-o", &sheet, "--", "--models", &models, "--steps", "1", "--control-until", "0"], 4, fix);
}
