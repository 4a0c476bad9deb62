//! The article's ablations: what each trains, and that its adapters are told and run afterwards.

use std::path::Path;

use crate::program::{Folder, tasr_ok};
use crate::{column, configuration, log, pictures};

/// Trains adapters of `kind` for a few steps; -> the file that was exported.
fn trained(folder: &Folder, models: &str, kind: &str) -> String {
    let more = "cleaner = \"none\"\n[train]\nrecipe = \"paper\"\nsteps = 4\nbatch = 1\nlearning-rate = 1e-3\n\
         [objective]\ntarget = \"adapters\"\nreward-weight = 0.0\n[log]\nevery = 1";
    let config = configuration(folder, kind, more);
    let (output, export) = (folder.text(kind), folder.text(&format!("{kind}.safetensors")));
    let adapter = format!("model.adapter='{kind}'");
    tasr_ok(&[
        "train",
        "-c",
        &config,
        "-o",
        &output,
        "--export",
        &export,
        "-q",
        "--ignore-memory",
        "--set",
        &adapter,
    ]);
    assert_eq!(column(&log(Path::new(&output)), "denoise").len(), 4);
    let told = tasr_ok(&["info", &export]).stdout;
    assert!(told.contains(&format!("{kind} adapters")), "{told}");
    let (picture, result) = (folder.text("pictures/0.png"), folder.text(&format!("{kind}.png")));
    tasr_ok(&[
        "upscale", &picture, "-o", &result, "--models", models, "--tasr", &export, "--steps", "1", "--scale",
        "1", "-q",
    ]);
    export
}

#[test]
fn adapters_without_timestep_and_with_a_transformer() {
    let folder = Folder::new();
    pictures(&folder);
    let models = folder.text("models");
    tasr_ok(&["synth", "--preset", "tiny", "-q", "-o", &models]);
    for kind in ["no-timestep", "transformer"] {
        trained(&folder, &models, kind);
    }
}

/// Two official steps, one of the adapters and one of the ControlNet, with the objective that `settings` change;
/// -> in how many of them the pixel loss worked, and in how many the reward.
fn losses(settings: &[&str]) -> (usize, usize) {
    let folder = Folder::new();
    pictures(&folder);
    // Timesteps on which both losses work by the recipe.
    let more = "cleaner = \"none\"\n[train]\nrecipe = \"official\"\nsteps = 2\nbatch = 1\n\
                [objective]\ncontrolnet-steps = [100, 100]\nadapter-steps = [100, 100]\n[log]\nevery = 1";
    let (config, output) = (configuration(&folder, "run", more), folder.text("run"));
    let mut args = vec!["train", "-c", &config, "-o", &output, "-q", "--ignore-memory"];
    args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    tasr_ok(&args);
    let lines = log(Path::new(&output));
    assert_eq!(column(&lines, "denoise").len(), 2, "{lines:?}");
    // A term that no timestep is in the range of is there, and zero.
    let working = |key: &str| column(&lines, key).iter().filter(|&&loss| loss > 0.0).count();
    (working("pixel"), working("reward"))
}

#[test]
fn losses_work_where_they_are_asked_to() {
    for (settings, expected) in [
        (&[][..], (1, 1)),
        (&["objective.pixel-weight=0.0"], (0, 1)),
        (&["objective.reward-weight=0.0"], (1, 0)),
        (&["objective.pixel-steps=[200, 999]", "objective.reward-steps=[0, 99]"], (0, 0)),
        // What is trained alone gets every loss.
        (&["objective.target='adapters'"], (2, 2)),
        (&["objective.target='controlnet'", "model.adapter='none'"], (2, 2)),
    ] {
        assert_eq!(losses(settings), expected, "{settings:?}");
    }
}
