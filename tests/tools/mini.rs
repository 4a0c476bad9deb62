//! The preset `mini`: small enough to be carried along, and known to every tool.

use serde_json::Value;
use tasr::models::Variant;
use tasr::pipeline::synthetic_files::SyntheticFiles;
use tasr::weights::names::EMPTY;
use tasr::weights::{Checkpoint, mini};

use crate::program::{Folder, tasr, tasr_ok};

const FILES: [&str; 3] = ["sd.safetensors", "tasr.safetensors", "stage1.safetensors"];

fn info(path: &str) -> Value {
    let run = tasr_ok(&["info", "--json", path]);
    let told: Value = serde_json::from_str(&run.stdout).expect("one JSON object");
    told["files"][0].clone()
}

/// Weights that lie in the program's memory are the same as those of the files.
#[test]
fn carried_files_are_read_as_files_are() {
    let folder = Folder::new();
    tasr_ok(&["synth", "--preset", "mini", "--dtype", "f16", "-q", "-o", &folder.text("")]);
    // One byte off every alignment, as a program may have them.
    let bytes = FILES.map(|name| {
        let mut held = vec![0u8];
        held.extend(std::fs::read(folder.path(name)).expect("reads"));
        &*held.leak()
    });
    let carried = mini::open(bytes.map(|held| &held[1..])).expect("opens");
    for (carried, name) in carried.iter().zip(FILES) {
        let file = Checkpoint::open(&folder.path(name)).expect("opens");
        assert_eq!(carried.len(), file.len());
        for (tensor, entry) in file.iter() {
            let (mut a, mut b) = (vec![0.0f32; entry.count()], vec![0.0f32; entry.count()]);
            carried.read_f32(tensor, &mut a).expect("reads");
            file.read_f32(tensor, &mut b).expect("reads");
            assert!(a == b, "{name}: {tensor}");
        }
        carried.names().for_each(|tensor| carried.release(tensor));
    }
    let short = mini::open(bytes.map(|held| &held[1..100])).map(drop).expect_err("a file is cut off");
    assert!(short.to_string().contains("mini/sd.safetensors"), "{short}");
}

/// A program that carries the mini system upscales with no weights given; one that does not says what is missing.
#[test]
fn without_weights_the_carried_system_upscales() {
    let folder = Folder::new();
    image::RgbImage::from_fn(16, 12, |x, y| image::Rgb([(x * 15) as u8, (y * 20) as u8, 90]))
        .save(folder.path("a.png"))
        .expect("writes");
    let upscale = |output: &str, more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tasr"));
        command
            .args(["upscale", &folder.text("a.png"), "-o", &folder.text(output), "--steps", "1"])
            .args(more);
        for variable in ["XDG_DATA_HOME", "HOME", "LOCALAPPDATA"] {
            command.env(variable, folder.text("home"));
        }
        command.env_remove("TASR_MODELS").output().expect("starts")
    };
    let done = upscale("b.png", &[]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    match mini::files() {
        Some(bytes) => {
            assert!(done.status.success(), "{said}");
            assert_eq!(said.matches("no weights are given").count(), 1, "{said}");
            assert_eq!(image::open(folder.path("b.png")).expect("opens").to_rgb8().dimensions(), (64, 48));
            assert!(bytes.iter().map(|held| held.len()).sum::<usize>() <= 20_000_000);
            // Its autoencoder is small: where nothing else is asked for, only fine detail comes from it.
            let levels = |levels: &str| {
                assert!(
                    upscale(levels, &["--format", "png", "--color-levels", levels.trim_end_matches(".png")])
                        .status
                        .success()
                );
                image::open(folder.path(levels)).expect("opens").to_rgb8()
            };
            let own = image::open(folder.path("b.png")).expect("opens").to_rgb8();
            assert!(own == levels("2.png") && own != levels("5.png"));
        }
        None => assert!(done.status.code() == Some(4) && said.contains("tasr synth"), "{said}"),
    }
}

#[test]
fn it_is_small() {
    let files = SyntheticFiles::new("mini", Some(Variant::Official)).expect("preset");
    let manifests = files.manifests().expect("manifests");
    let counts = manifests
        .map(|(_, shapes)| shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>());
    assert!(counts.iter().sum::<usize>() <= 9_900_000, "parameters of {FILES:?}: {counts:?}");
}

#[test]
fn every_tool_knows_its_files() {
    let folder = Folder::new();
    tasr_ok(&["synth", "--preset", "mini", "--dtype", "f16", "-q", "-o", &folder.text("")]);
    let size: u64 = FILES.iter().map(|f| folder.path(f).metadata().expect("written").len()).sum();
    assert!(size <= 20_000_000, "{size} bytes");
    let told = FILES.map(|name| info(&folder.text(name)));
    for file in &told {
        assert_eq!(file["complete"], true, "{file}");
        assert_eq!((&file["missing"], &file["unknown"]), (&serde_json::json!([]), &serde_json::json!([])));
    }
    assert_eq!(told[0]["kind"], "Stable Diffusion, single file (UNet, autoencoder, no text)");
    assert_eq!(told[1]["kind"], "TASR, ControlNet and official adapters");
    assert_eq!(told[2]["kind"], "RRDBNet, 6 blocks of 32 features, growth 16 (BSRNet names)");
    // Ten residuals: two blocks and a step down at two levels, two blocks at the last, the stem, the middle.
    let adapters = told[1]["parts"][1]["tensors"].as_u64();
    assert_eq!(adapters, Some(10 * 12));

    let (sd, out) = (folder.text(FILES[0]), folder.text("bf16.safetensors"));
    tasr_ok(&["convert", &sd, "-o", &out, "--dtype", "bf16", "-q"]);
    let converted = info(&out);
    assert_eq!((&converted["complete"], &converted["tensors"]), (&true.into(), &told[0]["tensors"]));
    let run = tasr(&["convert", &sd, "-o", &folder.text("folder"), "--layout", "diffusers"]);
    assert!(run.code == 2 && run.stderr.contains("without a text tower"), "{run}");

    // A file that lost its row is no longer whole, and says so.
    let bytes = std::fs::read(folder.path(FILES[0])).expect("reads");
    let whole = safetensors::SafeTensors::deserialize(&bytes).expect("parses");
    let kept = whole.iter().filter(|(name, _)| *name != EMPTY).collect::<Vec<_>>();
    std::fs::write(folder.path("holed.safetensors"), safetensors::serialize(kept, None).expect("serializes"))
        .expect("writes");
    let holed = info(&folder.text("holed.safetensors"));
    assert_eq!(holed["missing"], serde_json::json!(["cond_stage_model.model.*"]), "{holed}");
}
