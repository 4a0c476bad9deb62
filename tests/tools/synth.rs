//! `tasr synth`: names and shapes against the published files and the reference, values against their rule.

use std::collections::BTreeSet;

use tasr::models::Variant;
use tasr::pipeline::synthetic_files::SyntheticFiles;
use tasr::weights::{Checkpoint, Dtype, names, synthetic};

use crate::program::{Folder, published, recorded, tasr};

type Shapes = BTreeSet<(String, Vec<usize>)>;

fn manifests(preset: &str, variant: Option<Variant>) -> [Shapes; 3] {
    SyntheticFiles::new(preset, variant).expect("preset").manifests().expect("manifests").map(
        |(_, shapes)| {
            let count = shapes.len();
            let set: Shapes = shapes.into_iter().collect();
            assert_eq!(set.len(), count, "a name is written twice");
            set
        },
    )
}

#[track_caller]
fn same(found: &Shapes, expected: &Shapes) {
    let missing: Vec<_> = expected.difference(found).take(5).collect();
    let surplus: Vec<_> = found.difference(expected).take(5).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");
}

#[test]
fn the_full_size_has_every_tensor_of_the_published_files() {
    let [sd, tasr, stage1] = manifests("sd21", Some(Variant::Official));
    let networks = [names::UNET, names::VAE, names::TEXT];
    let canonical = |name: &String| networks.iter().any(|prefix| name.starts_with(prefix));
    same(&sd, &published("sd21_ldm", "").into_iter().filter(|(name, _)| canonical(name)).collect());
    let mut expected = published("tasr_controlnet", names::CONTROLNET);
    same(&manifests("sd21", None)[1], &expected);
    expected.extend(published("tasr_adapter", names::ADAPTER));
    same(&tasr, &expected);
    same(&stage1, &published("bsrnet", ""));
    same(&manifests("sd21", Some(Variant::Paper))[1], &recorded("sd21_tasr_paper"));
}

#[test]
fn the_tiny_size_has_every_tensor_of_the_reference() {
    for (variant, name) in
        [(Some(Variant::Official), "official"), (Some(Variant::Paper), "paper"), (None, "none")]
    {
        let [sd, tasr, stage1] = manifests("tiny", variant);
        same(&sd, &recorded("tiny_sd"));
        same(&tasr, &recorded(&format!("tiny_tasr_{name}")));
        same(&stage1, &recorded("tiny_stage1"));
    }
}

#[test]
fn values_follow_their_rule_across_pieces() {
    let folder = Folder::tiny("bf16");
    let file = Checkpoint::open(&folder.path("sd.safetensors")).expect("opens");
    // Longer than the pieces in which files are written.
    let name = "cond_stage_model.model.token_embedding.weight";
    let entry = file.require(name).expect("there");
    assert_eq!((entry.dtype(), entry.shape()), (Dtype::BF16, &[49408, 128][..]));
    let mut expected = vec![0.0; entry.count()];
    synthetic::fill(name, entry.shape(), &mut expected);
    let mut found = vec![0.0; entry.count()];
    entry.read(&mut found).expect("reads");
    let wrong = found.iter().zip(&expected).position(|(f, e)| *f != half::bf16::from_f32(*e).to_f32());
    assert_eq!(wrong, None, "the values differ from the rule here");
}

#[test]
fn finished_files_are_replaced_on_demand_only() {
    let folder = Folder::tiny("f16");
    let before = std::fs::read(folder.path("stage1.safetensors")).expect("reads");
    let output = folder.path("");
    let again = ["synth", "--preset", "tiny", "--dtype", "f32", "-q", "-o", output.to_str().expect("utf-8")];
    let refused = tasr(&again);
    assert_eq!(refused.code, 2, "{refused}");
    assert!(
        refused.stderr.contains("sd.safetensors: the file exists already; give another folder"),
        "{refused}"
    );
    assert_eq!(std::fs::read(folder.path("stage1.safetensors")).expect("reads"), before);
    let replaced = tasr(&[&again[..], &["--overwrite"]].concat());
    assert_eq!((replaced.code, replaced.stderr.as_str()), (0, ""), "{replaced}");
    assert!(std::fs::read(folder.path("stage1.safetensors")).expect("reads").len() > before.len() * 3 / 2);
    let names: BTreeSet<_> = std::fs::read_dir(&output)
        .expect("lists")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("utf-8"))
        .collect();
    assert_eq!(names, ["sd.safetensors", "stage1.safetensors", "tasr.safetensors"].map(String::from).into());
}

#[test]
fn what_cannot_be_written_is_said_in_one_sentence() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("writes");
    let under_a_file = file.join("models");
    let run = tasr(&["synth", "--preset", "tiny", "-o", under_a_file.to_str().expect("utf-8")]);
    assert_eq!(run.code, 7, "{run}");
    assert!(run.stderr.starts_with("tasr: ") && run.stderr.contains("cannot create the folder"), "{run}");
    let run = tasr(&["synth", "--preset", "large", "-o", "x"]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.contains("'large'") && run.stderr.contains("tiny, mini, sd21"), "{run}");
}
