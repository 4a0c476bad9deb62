//! What cannot be done is said in one sentence before anything is trained.

use std::collections::BTreeMap;

use tasr::weights::Checkpoint;
use tasr::weights::write::{TensorSpec, Writer};

use crate::program::{Folder, tasr, tasr_ok};
use crate::{configuration, pictures};

#[test]
fn one_sentence_says_what_is_wrong() {
    let folder = Folder::new();
    pictures(&folder);
    let config =
        configuration(&folder, "run", "cleaner = \"none\"\n[train]\nstage = 1\nsteps = 1\nbatch = 2");
    let output = folder.text("run");
    let fails = |more: &[&str], code: i32, part: &str| {
        let run = tasr(&[&["train", "-c", &config, "-o", &output], more].concat());
        assert!(run.code == code && run.stderr.contains(part), "{part}: {run}");
        let said = run.stderr.lines().last().unwrap_or_default();
        assert!(said.starts_with("tasr: error: "), "{run}");
    };
    fails(&["--set", "train.steps=0"], 2, "train.steps");
    fails(&["--set", "train.stepz=1"], 3, "stepz");
    fails(&["--set", "steps=1"], 2, "--set");
    fails(&["--export", "gone/x.safetensors"], 2, "--export");
    fails(&["--export", "x.pt"], 2, "--export");
    fails(&["--device", "abacus"], 2, "--device");
    fails(&["--set", "model.preset=huge"], 2, "huge");
    fails(&["--set", "data.pictures=['gone']"], 7, "gone");
    fails(&["--set", "train.stage=2", "--set", "objective.reward=musiq"], 2, "objective.reward");
    fails(&["--resume", "gone.safetensors"], 7, "gone.safetensors");
    let run = tasr(&["train", "-c", "gone.toml"]);
    assert!(run.code == 7 && run.stderr.contains("gone.toml") && run.stderr.lines().count() == 1, "{run}");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let folder = Folder::new();
    pictures(&folder);
    let models = folder.text("models");
    tasr_ok(&["synth", "--preset", "tiny", "--adapter", "none", "-q", "-o", &models]);
    let start = Checkpoint::open(&folder.path("models/tasr.safetensors")).expect("opens");
    let specs =
        start.iter().map(|(name, entry)| TensorSpec::new(name, entry.dtype(), entry.shape())).collect();
    let path = folder.path("broken.safetensors");
    let mut writer = Writer::create(&path, specs, &BTreeMap::new()).expect("creates");
    for (name, entry) in start.iter() {
        match name {
            "checkpoint_controlnet.middle_block_out.0.bias" => {
                writer.write_f32(name, &vec![f32::NAN; entry.count()]).expect("writes");
            }
            _ => writer.write_entry(name, entry).expect("writes"),
        }
    }
    writer.finish().expect("finishes");
    let config =
        configuration(&folder, "run", "cleaner = \"none\"\n[train]\nstage = 1\nsteps = 3\nbatch = 1");
    let (output, broken) =
        (folder.text("run"), format!("model.start='{}'", folder.text("broken.safetensors")));
    let run = tasr(&["train", "-c", &config, "-o", &output, "--set", &broken, "--ignore-memory", "-q"]);
    assert!(run.code == 3 && run.stderr.contains("step 1: the loss is not finite"), "{run}");
    assert!(run.stderr.contains("learning-rate") && run.stderr.lines().count() == 1, "{run}");
}

#[test]
fn memory_is_told_before_the_training() {
    let folder = Folder::new();
    pictures(&folder);
    let config =
        configuration(&folder, "run", "cleaner = \"none\"\n[train]\nstage = 1\nsteps = 1\nbatch = 2");
    let output = folder.text("run");
    let run = tasr_ok(&["train", "-c", &config, "-o", &output, "--dry-run"]);
    assert!(run.stderr.contains("the training needs"), "{run}");
    assert!(!folder.path("run").exists(), "{run}");
    // More than any machine has: the advice is to compute the batch in parts.
    let run = tasr(&[
        "train",
        "-c",
        &config,
        "-o",
        &output,
        "--set",
        "train.batch=65536",
        "--set",
        "data.size=512",
    ]);
    assert!(run.code == 6 && run.stderr.contains("train.accumulate"), "{run}");
}
