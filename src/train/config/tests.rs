use super::*;
use crate::train::data::PromptSource;
use crate::train::degrade::{self, Crop};

fn read_as(name: &str, text: &str, changes: &[&str]) -> Result<(Settings, bool)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    read(&path, &changes.iter().map(|change| (*change).to_owned()).collect::<Vec<_>>())
}

fn resolved(text: &str) -> Config {
    read_as("a.toml", &format!("{text}\n[log]\nkeep = 2"), &["train.output=out"])
        .unwrap()
        .0
        .resolve()
        .unwrap()
}

#[track_caller]
fn refused(text: &str, changes: &[&str], part: &str) {
    let error = read_as("a.toml", text, changes).and_then(|(settings, _)| settings.resolve()).unwrap_err();
    assert!(error.to_string().contains(part), "'{part}' is missing: {error}");
}

#[test]
fn recipes_have_the_constants_of_article_and_code() {
    let paper = resolved("[train]\nrecipe = \"paper\"");
    assert_eq!(
        (paper.steps, paper.batch, paper.learning_rate, paper.weight_decay),
        (100_000, 32, 1e-5, 1e-2)
    );
    let losses = Losses {
        target: Target::Both,
        adapter_every: 2,
        controlnet_steps: [0, 999],
        adapter_steps: [0, 999],
        pixel_weight: 0.01,
        pixel_steps: [0, 800],
        reward_weight: 0.01,
        reward_steps: [0, 200],
        reward: RewardKind::ClipiqaSingle,
        published_x0: false,
    };
    assert_eq!(paper.losses, losses);
    assert_eq!(paper.data.recipe, degrade::Recipe::named("realesrgan").unwrap());
    assert_eq!((paper.cleaner, paper.adapter, paper.data.dropout), (Cleaner::None, AdapterKind::Paper, 0.0));

    let official = resolved("[train]\nrecipe = \"official\"");
    assert_eq!((official.steps, official.learning_rate, official.seed), (50_000, 5e-6, 231));
    let losses = Losses {
        adapter_every: 5,
        adapter_steps: [0, 200],
        pixel_weight: 0.1,
        pixel_steps: [1, 799],
        reward_weight: 0.1,
        reward_steps: [0, 999],
        reward: RewardKind::Clipiqa,
        published_x0: true,
        ..losses
    };
    assert_eq!(official.losses, losses);
    assert_eq!(
        (official.cleaner, official.adapter, official.data.dropout),
        (Cleaner::Swinir, AdapterKind::Official, 0.5)
    );
    assert_eq!(
        (official.betas, official.epsilon, official.clip_norm, official.ema),
        ([0.9, 0.999], 1e-8, None, None)
    );
    let turns: Vec<bool> = (0..6).map(|step| official.losses.is_adapter_step(step)).collect();
    assert_eq!(turns, [true, false, false, false, false, true]);

    let first = resolved("[train]\nstage = 1");
    assert_eq!(
        (first.steps, first.losses.target, first.losses.pixel_weight),
        (20_000, Target::Controlnet, 0.0)
    );
    assert!(!(0..6).any(|step| first.losses.is_adapter_step(step)));
}

#[test]
fn every_constant_can_be_set() {
    let text = "[train]\nbatch = 4\naccumulate = 2\nema = 0.999\nclip-norm = 1.0\nbetas = [0.8, 0.9]\n\
                [objective]\ntarget = \"adapters\"\npixel-steps = [3, 4]\nreward = \"musiq\"\n\
                [data]\ncrop = \"centre\"\nsize = 128\n[degradation]\nrecipe = \"codeformer\"\nnoise = [1, 2]\nfixed = true";
    let config = resolved(text);
    assert_eq!(
        (config.accumulate, config.ema, config.clip_norm, config.keep),
        (2, Some(0.999), Some(1.0), 2)
    );
    assert_eq!((config.losses.pixel_steps, config.losses.reward), ([3, 4], RewardKind::Musiq));
    assert!(config.losses.is_adapter_step(1) && config.data.fixed);
    assert_eq!((config.data.crop, config.data.size), (Crop::Centre, 128));
    let degrade::Recipe::CodeFormer(recipe) = &config.data.recipe else { panic!("{config:?}") };
    assert_eq!((recipe.noise, recipe.sigma), ([1.0, 2.0], [0.1, 12.0]));
    let changed = read_as(
        "a.toml",
        text,
        &["train.batch=8", "data.crop=fit", "train.output=\"x y\"", "objective.pixel-steps=[5, 6]"],
    );
    let changed = changed.unwrap().0.resolve().unwrap();
    assert_eq!((changed.batch, changed.data.crop, changed.losses.pixel_steps), (8, Crop::Fit, [5, 6]));
    assert_eq!(changed.output, Path::new("x y"));
}

#[test]
fn what_cannot_be_is_refused_by_its_key() {
    for (text, part) in [
        ("[train]\nsteps = 0", "train.steps"),
        ("[train]\nbatch = 6\naccumulate = 4", "train.accumulate"),
        ("[train]\nstage = 3", "train.stage"),
        ("[train]\nstage = 1\n[objective]\ntarget = \"both\"", "objective.target"),
        ("[objective]\nreward-steps = [0, 1000]", "objective.reward-steps"),
        ("[train]\nstage = \"stage1\"\n[objective]\nl1-weight = 0", "objective.l1-weight"),
        ("[objective]\nlog-weight = -1", "objective.log-weight"),
        ("[data]\nsize = 100", "data.size"),
        ("[degradation]\nnoise = [0, 9]", "degradation.noise"),
        ("[degradation]\nrecipe = \"bicubic\"", "degradation.recipe"),
        ("[degradation]\nrecipe = \"codeformer\"\nnoise = [9, 0]", "degradation.noise"),
        ("[degradation]\nrecipe = \"codeformer\"\n[data]\ncleaner = \"stage1\"", "data.cleaner"),
        ("[train]\nlearning_rate = 1.0", "learning_rate"),
        ("[train]\nlearning-rate = nan", "train.learning-rate"),
        ("[trian]", "trian"),
        ("[train", "a.toml"),
    ] {
        refused(text, &["train.output=out"], part);
    }
    refused("", &[], "train.output");
    for change in ["train.steps", "steps=1", "train.stepz=1"] {
        refused("", &[change], if change.contains('z') { "stepz" } else { change });
    }
}

#[test]
fn the_published_configuration_is_understood() {
    let text = "
model: {cldm: {target: model.cldm.ControlLDM, params: {mode: c_tasr}}}
dataset:
  train:
    target: dataset.codeformer.CodeformerDataset
    params: {file_list: /lists/train, out_size: 512, crop_type: center, blur_kernel_size: 41,
      kernel_list: ['iso', 'aniso'], kernel_prob: [0.25, 0.75], blur_sigma: [0.1, 10], downsample_range: [1, 12],
      noise_range: [0, 15], jpeg_range: [30, 100]}
train:
  pixel_loss: {weight: 0.2, range: [0, 800]}
  clipiqa_loss: {weight: 0.1, range: [0, 201]}
  sd_path: sd.ckpt
  swinir_path: swinir.ckpt
  exp_dir: exps
  learning_rate: 5e-6
  batch_size: 32
  num_workers: 12
  train_steps: 50000
  train_epochs: 100
  log_every: 50
  ckpt_every: 5000
  image_every: 1000
  resume: True
";
    let (settings, resume) = read_as("a.yaml", text, &["train.batch=4"]).unwrap();
    let config = settings.resolve().unwrap();
    assert!(resume);
    assert_eq!((config.batch, config.learning_rate, config.steps, config.workers), (4, 5e-6, 50_000, 12));
    assert_eq!((config.losses.adapter_steps, config.losses.pixel_steps), ([0, 200], [1, 799]));
    assert_eq!((config.losses.pixel_weight, config.losses.reward_weight), (0.2, 0.1));
    assert_eq!(
        (config.data.prompts, config.data.crop, config.cleaner),
        (PromptSource::Tags, Crop::Fit, Cleaner::Swinir)
    );
    let degrade::Recipe::CodeFormer(recipe) = &config.data.recipe else { panic!("{config:?}") };
    assert_eq!((recipe.isotropic, recipe.sigma, recipe.kernel), (0.25, [0.1, 10.0], 41));
    assert_eq!((config.output.as_path(), config.log_every), (Path::new("exps"), 50));
    // Losses that are absent drive nothing.
    let (settings, resume) = read_as("b.yml", "train: {exp_dir: x}", &[]).unwrap();
    assert!(!resume && settings.resolve().unwrap().losses.reward_weight == 0.0);
    assert!(read_as("c.yaml", "train: [", &[]).is_err());
    assert!(
        read_as("d.yaml", "dataset: {train: {target: other.Set, params: {}}}\ntrain: {exp_dir: x}", &[])
            .is_err()
    );
}
