//! The stages that train a system from nothing: each learns, resumes to the same bits, and exports what upscales.

use std::fs;
use std::path::Path;

use tasr::device::Device;
use tasr::models::vae::LATENT_SCALE;
use tasr::models::{Vae, VaeConfig};
use tasr::nn::Scope;
use tasr::ops::Cx;
use tasr::tensor::{DType, Tensor};
use tasr::weights::names::VAE;
use tasr::weights::{Checkpoint, CheckpointSource};

use crate::program::{Folder, tasr, tasr_ok};
use crate::{column, configuration, log, pictures};

/// Four pictures, always the same crops, and a loss in every line of the log.
const FIXED: &str =
    "flip = false\n[degradation]\nfixed = true\n[log]\nevery = 1\ncheckpoint-every = 100000\n[train]\n";

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Trains `stage` of the preset in `model` on the four pictures; -> means of its loss over the first and the last steps.
fn learnt(stage: &str, loss: &str, settings: &str) -> (f64, f64) {
    learnt_in("f32", stage, loss, settings)
}

/// The same in an element type.
fn learnt_in(dtype: &str, stage: &str, loss: &str, settings: &str) -> (f64, f64) {
    let folder = Folder::new();
    pictures(&folder);
    let config = configuration(&folder, "run", &format!("{FIXED}{settings}"));
    let output = folder.text("run");
    let stage_and_type = ["--stage", stage, "--dtype", dtype];
    tasr_ok(
        &[&["train", "-c", &config, "-o", &output, "-q", "--ignore-memory"], &stage_and_type[..]].concat(),
    );
    let lines = log(Path::new(&output));
    let losses = column(&lines, loss);
    assert!(losses.len() > 20 && column(&lines, "seconds_per_step").iter().all(|&s| s > 0.0), "{lines:?}");
    if std::env::var_os("TASR_TEST_CURVES").is_some() {
        losses.chunks(losses.len() / 10).for_each(|part| println!("{stage}: {:.4}", mean(part)));
    }
    (mean(&losses[..3]), mean(&losses[losses.len() - 5..]))
}

#[test]
fn stage1_learns_to_clean() {
    let (first, last) = learnt("stage1", "l1", "steps = 60\nbatch = 4\nlearning-rate = 2e-3\nema = 0.9");
    assert!(2.0 * last < first, "the loss fell from {first} to {last}");
}

#[test]
fn stage1_learns_by_squares() {
    let settings = "steps = 60\nbatch = 4\nlearning-rate = 2e-3\n[objective]\nl1-weight = 0\nl2-weight = 1";
    let (first, last) = learnt("stage1", "l2", settings);
    assert!(2.0 * last < first, "the loss fell from {first} to {last}");
}

#[test]
fn stage1_learns_by_the_logarithm_of_squares() {
    let settings =
        "steps = 60\nbatch = 4\nlearning-rate = 2e-3\n[objective]\nl1-weight = 0\nlog-weight = 0.01";
    let (first, last) = learnt("stage1", "log", settings);
    // In decibels: 3 for a loss that is halved.
    let gained = (first - last) * 10.0 / std::f64::consts::LN_10;
    assert!(gained > 3.0, "the pictures gained {gained} dB");
}

#[test]
fn stage1_learns_in_bf16_as_in_f32() {
    let settings = "steps = 60\nbatch = 4\nlearning-rate = 2e-3\nema = 0.9";
    let (first, last) = learnt_in("bf16", "stage1", "l1", settings);
    assert!(2.0 * last < first, "the loss fell from {first} to {last}");
}

#[test]
fn the_autoencoder_learns_pictures() {
    let (first, last) =
        learnt("vae", "l1", "steps = 30\nbatch = 2\nlearning-rate = 2e-3\nwarmup = 5\nclip-norm = 1.0");
    assert!(2.0 * last < first, "the loss fell from {first} to {last}");
}

#[test]
fn the_unet_learns_to_denoise() {
    let settings = "steps = 60\nbatch = 4\nlearning-rate = 1e-3\nschedule = \"cosine\"\nclip-norm = 1.0\n\
                    [objective]\ncontrolnet-steps = [300, 999]";
    let (first, last) = learnt("unet", "denoise", settings);
    assert!(2.0 * last < first, "the loss fell from {first} to {last}");
}

#[test]
fn they_resume_bit_identically() {
    let folder = Folder::new();
    pictures(&folder);
    let settings = "[train]\nsteps = 4\nbatch = 2\naccumulate = 2\nlearning-rate = 1e-3\nwarmup = 2\nema = 0.9\n\
                    schedule = \"cosine\"\n[log]\nevery = 1\ncheckpoint-every = 2";
    for (stage, dtype) in [("stage1", "f32"), ("vae", "f32"), ("unet", "f32"), ("unet", "bf16")] {
        let config = configuration(&folder, stage, settings);
        let [whole, again] = ["whole", "again"].map(|run| folder.text(&format!("{stage}.{dtype}.{run}")));
        let base = ["train", "-c", &config, "--stage", stage, "--dtype", dtype, "-q", "--ignore-memory"];
        tasr_ok(&[&base[..], &["-o", &whole]].concat());
        let file = |step: u64| format!("{whole}/step-{step:08}.safetensors");
        tasr_ok(&[&base[..], &["-o", &again, "--resume", &file(2)]].concat());
        let read = |path: &str| fs::read(path).expect("a checkpoint");
        let other = format!("{again}/step-{:08}.safetensors", 4);
        assert!(read(&file(4)) == read(&other), "{stage}: weights, moments or averages have other bits");
        let rates = column(&log(Path::new(&whole)), "learning_rate");
        // Up in two steps, then half a wave of four.
        let wave = |step: f64| 0.5 * (1.0 + (std::f64::consts::PI * step / 4.0).cos());
        let expected = [0.5 * wave(0.0), wave(1.0), wave(2.0), wave(3.0)].map(|rate| 1e-3 * rate);
        assert!(rates.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{rates:?}");
    }
}

#[test]
fn a_system_trained_from_nothing_upscales() {
    let folder = Folder::new();
    pictures(&folder);
    let settings = "crop = \"centre\"\nflip = false\n[degradation]\nfixed = true\n[train]\nsteps = 2\nbatch = 2\n\
                    learning-rate = 1e-3\nema = 0.5\n[model]\npreset = \"mini\"\nadapter = \"official\"\n\
                    [objective]\nreward-weight = 0.0";
    // The section of the model comes with every configuration: here it is written anew.
    let config = configuration(&folder, "run", "");
    let text = fs::read_to_string(&config).expect("reads");
    let data = text.split_once("[data]\n").expect("a section").1.replace("crop = \"centre\"\n", "");
    fs::write(&config, format!("[data]\n{data}{settings}\n")).expect("writes");
    let export = |name: &str| folder.text(&format!("{name}.safetensors"));
    let train = |stage: &str, [name, dtype]: [&str; 2], more: &[&str]| {
        let (output, export) = (folder.text(&format!("run.{name}")), export(name));
        let base = [
            "train",
            "-c",
            &config,
            "--stage",
            stage,
            "-o",
            &output,
            "--export",
            &export,
            "--export-dtype",
            dtype,
            "-q",
            "--ignore-memory",
        ];
        tasr_ok(&[&base[..], more].concat());
    };
    train("stage1", ["stage1", "f16"], &[]);
    train("vae", ["vae", "f32"], &["--set", "train.steps=6"]);
    the_latents_are_normal(&folder);
    let vae = format!("model.sd={}", export("vae"));
    train("unet", ["sd", "f16"], &["--set", &vae]);
    // Stages 1 and 2 take files instead of a preset.
    let text = fs::read_to_string(&config).expect("reads").replace("preset = \"mini\"\n", "");
    fs::write(&config, text).expect("writes");
    let sd = format!("model.sd={}", export("sd"));
    train("1", ["control", "f32"], &["--set", &sd, "--set", "data.cleaner=none"]);
    let start = format!("model.start={}", export("control"));
    train("2", ["tasr", "f16"], &["--set", &sd, "--set", &start, "--set", "data.cleaner=none"]);

    for name in ["stage1", "sd", "tasr"] {
        let told = tasr_ok(&["info", "--json", &export(name)]).stdout;
        assert!(told.contains("\"complete\":true") && told.contains("\"float16\""), "{name}: {told}");
    }
    let (picture, result) = (folder.text("pictures/0.png"), folder.text("out.png"));
    let files = ["sd", "tasr", "stage1"].map(export);
    let upscale = [
        "upscale", &picture, "-o", &result, "--sd", &files[0], "--tasr", &files[1], "--stage1", &files[2],
        "--steps", "1", "--scale", "1", "-q",
    ];
    tasr_ok(&upscale);
    assert!(folder.path("out.png").is_file());
}

/// What stage vae exported gives latents of variance one, and the pictures that the trained weights give.
fn the_latents_are_normal(folder: &Folder) {
    let cx = &Cx::new(Device::cpu(), DType::F32).expect("context");
    let load = |path: &Path| {
        let file = Checkpoint::open(path).expect("opens");
        let source = CheckpointSource::new(&file);
        let scope = Scope::new(cx, &source, VAE);
        Vae::load(&scope, &VaeConfig::infer(&scope).expect("sizes")).expect("loads")
    };
    let exported = load(&folder.path("vae.safetensors"));
    let values: Vec<f32> = (0..4)
        .flat_map(|i| {
            let picture = image::open(folder.path(&format!("pictures/{i}.png"))).expect("opens").to_rgb8();
            picture.into_raw().into_iter().map(|byte| f32::from(byte) / 127.5 - 1.0)
        })
        .collect();
    let pictures = Tensor::from_f32(cx.device(), &values, [4, 64, 64, 3]).expect("uploads");
    let moments = exported.moments(cx, &pictures).expect("encodes").to_f32().expect("reads");
    let channels = exported.latent();
    for i in 0..channels {
        let pixels = moments.chunks_exact(2 * channels);
        let count = pixels.len() as f64;
        let scale = f64::from(LATENT_SCALE);
        let (mut sum, mut square) = (0.0, 0.0);
        for pixel in pixels {
            let value = scale * f64::from(pixel[i]);
            sum += value;
            square += value * value + scale * scale * f64::from(pixel[channels + i]).exp();
        }
        let (mean, variance) = (sum / count, square / count - (sum / count).powi(2));
        assert!(mean.abs() < 1e-3 && (variance - 1.0).abs() < 1e-3, "channel {i}: {mean}, {variance}");
    }
    // The averaged weights of the last checkpoint, before anything was folded into them.
    let path = folder.path("run.vae/step-00000006.safetensors");
    let last = Checkpoint::open(&path).expect("opens").under("ema.");
    let source = CheckpointSource::new(&last);
    let scope = Scope::new(cx, &source, VAE);
    let plain = Vae::load(&scope, &VaeConfig::infer(&scope).expect("sizes")).expect("loads");
    let through = |vae: &Vae| {
        let z = vae.encode(cx, &pictures, None).expect("encodes");
        vae.decode(cx, &z).expect("decodes").to_f32().expect("reads")
    };
    let (a, b) = (through(&exported), through(&plain));
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "folding changed the pictures by {worst}");
}

#[test]
fn a_run_ends_when_its_minutes_are_over() {
    let folder = Folder::new();
    pictures(&folder);
    let config = configuration(
        &folder,
        "run",
        "[train]\nsteps = 1000000\nminutes = 0.05\nbatch = 1\nschedule = \"cosine\"",
    );
    let (output, export) = (folder.text("run"), folder.text("stage1.safetensors"));
    let args =
        ["train", "-c", &config, "--stage", "stage1", "-o", &output, "--export", &export, "--ignore-memory"];
    let run = tasr_ok(&args);
    assert!(run.stderr.contains("the time of train.minutes is over"), "{run}");
    assert!(Path::new(&export).is_file());
    let lines = log(Path::new(&output));
    let rate = column(&lines, "learning_rate").pop().expect("a line");
    assert!(rate < 1e-4, "the wave ends with the time: {rate}");
    let step = column(&lines, "step").pop().expect("a line") as u64;
    assert!(folder.path(&format!("run/step-{step:08}.safetensors")).is_file());
    // Going on is for who gives more time.
    let again = tasr_ok(&[&args[..], &["--resume", "auto"]].concat());
    assert!(
        again.stderr.contains("the time of train.minutes is over") && !again.stderr.contains("s a step"),
        "{again}"
    );
}

#[test]
fn what_a_stage_cannot_do_is_said() {
    let folder = Folder::new();
    pictures(&folder);
    let config = configuration(&folder, "run", "[train]\nsteps = 1\nbatch = 1");
    let output = folder.text("run");
    let fails = |stage: &str, more: &[&str], code: i32, part: &str| {
        let run = tasr(&[&["train", "-c", &config, "-o", &output, "--stage", stage], more].concat());
        assert!(run.code == code && run.stderr.contains(part), "{part}: {run}");
    };
    fails("3", &[], 2, "stage1, vae, unet, 1 or 2");
    fails("vae", &["--set", "objective.target=both"], 2, "objective.target");
    fails("unet", &["--set", "validation.pictures=['x.png']"], 2, "validation.pictures");
    fails("stage1", &["--set", "degradation.recipe=codeformer"], 2, "degradation");
    let models = folder.text("models");
    tasr_ok(&["synth", "--preset", "tiny", "-q", "-o", &models]);
    let start = format!("model.start={models}/sd.safetensors");
    fails("unet", &["--set", &start], 4, "trained with text");
    fails("stage1", &["--set", &start], 4, "stage-1 (RRDBNet)");
}
