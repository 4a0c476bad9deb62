//! From files to trained weights that `tasr upscale` takes; adapter steps with their reward; validation.

use std::fs;
use std::path::Path;

use tasr::weights::Checkpoint;

use crate::program::{Folder, tasr, tasr_ok};
use crate::{column, configuration, log, pictures};

#[test]
fn trained_weights_upscale() {
    let folder = Folder::new();
    pictures(&folder);
    let models = folder.text("models");
    tasr_ok(&["synth", "--preset", "tiny", "-q", "-o", &models]);
    let (config, output, export) =
        (folder.text("a.toml"), folder.text("run"), folder.text("trained.safetensors"));
    let text = format!(
        "[model]\nmodels = '{models}'\nstart = '{models}/tasr.safetensors'\nadapter = \"official\"\n\
         [train]\nrecipe = \"paper\"\nsteps = 3\nbatch = 1\nlearning-rate = 1e-4\n\
         [objective]\nreward-weight = 0.0\n\
         [data]\npictures = ['{0}']\nsize = 64\ncleaner = \"stage1\"\nlatent-cache = '{1}'\n\
         [validation]\npictures = ['{0}/0.png']\nevery = 3\nsteps = 2\n[log]\nevery = 1",
        folder.text("pictures"),
        folder.text("cache"),
    );
    fs::write(&config, text).expect("writes");
    let args = ["train", "-c", &config, "-o", &output, "--export", &export, "-q", "--ignore-memory"];
    tasr_ok(&args);
    let lines = log(Path::new(&output));
    assert_eq!(column(&lines, "denoise").len(), 3);
    assert!(column(&lines, "validation_psnr").iter().all(|psnr| psnr.is_finite()), "{lines:?}");
    assert_eq!(column(&lines, "validation_psnr").len(), 1);
    assert!(folder.path("run/samples/step-00000003/000.png").is_file());
    assert!(fs::read_dir(folder.path("cache")).expect("lists").count() > 0);

    let trained = Checkpoint::open(Path::new(&export)).expect("opens");
    let start = Checkpoint::open(&folder.path("models/tasr.safetensors")).expect("opens");
    let shapes = |file: &Checkpoint| {
        let mut all: Vec<_> =
            file.iter().map(|(name, entry)| (name.to_owned(), entry.shape().to_vec())).collect();
        all.sort();
        all
    };
    assert_eq!(shapes(&trained), shapes(&start), "the export has the tensors of the start");
    let values = |file: &Checkpoint, name: &str| {
        let mut values = vec![0.0; file.require(name).expect("there").count()];
        file.read_f32(name, &mut values).expect("reads");
        values
    };
    for name in ["checkpoint_controlnet.zero_convs.0.0.weight", "checkpoint_adapter.0.0.out_layers.4.weight"]
    {
        assert_ne!(values(&trained, name), values(&start, name), "{name} has not learnt");
    }

    let (picture, result) = (folder.text("pictures/0.png"), folder.text("out.png"));
    let upscale = [
        "upscale", &picture, "-o", &result, "--models", &models, "--tasr", &export, "--steps", "1",
        "--scale", "1", "-q",
    ];
    tasr_ok(&upscale);
    assert!(folder.path("out.png").is_file());

    // A run that is done is only exported again; a new one does not write over it.
    fs::remove_file(&export).expect("removes");
    tasr_ok(&[&args[..], &["--resume", "auto"]].concat());
    assert!(Path::new(&export).is_file());
    let again = tasr(&args);
    assert!(again.code == 2 && again.stderr.contains("--resume auto"), "{again}");
}

#[test]
fn adapters_learn_from_the_reward() {
    let folder = Folder::new();
    pictures(&folder);
    let models = folder.text("models");
    tasr_ok(&["synth", "--preset", "tiny", "-q", "-o", &models]);
    let more = "cleaner = \"none\"\n[train]\nrecipe = \"official\"\nsteps = 1\nbatch = 1\n[log]\nevery = 1";
    let (config, output) = (configuration(&folder, "run", more), folder.text("run"));
    // An untrained ControlNet adds nothing, so adapters could not learn from it.
    let start = format!("model.start='{models}/tasr.safetensors'");
    tasr_ok(&["train", "-c", &config, "--set", &start, "-o", &output, "-q", "--ignore-memory"]);
    let lines = log(Path::new(&output));
    let reward = column(&lines, "reward");
    assert!(reward.len() == 1 && reward[0] > 0.0 && reward[0] < 1.0, "{lines:?}");
    assert!(column(&lines, "pixel").is_empty(), "an adapter step has no pixel loss");
    assert!(column(&lines, "norm")[0] > 0.0, "{lines:?}");
}
