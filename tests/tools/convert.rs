//! `tasr convert`: element types, layouts, containers, and what cannot be converted.

use half::{bf16, f16};
use tasr::weights::{Checkpoint, Dtype};

use crate::program::{Folder, tasr, tasr_ok};
use crate::torch_file::{Py, View, checkpoint, dict};

fn open(folder: &Folder, name: &str) -> Checkpoint {
    Checkpoint::open(&folder.path(name)).expect("opens")
}

fn values(file: &Checkpoint, name: &str) -> Vec<f32> {
    let mut values = vec![0.0; file.require(name).expect("there").count()];
    file.read_f32(name, &mut values).expect("reads");
    values
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Every tensor of `found` is that of `source` after `round`.
#[track_caller]
fn rounded(found: &Checkpoint, source: &Checkpoint, dtype: Dtype, round: impl Fn(f32) -> f32) {
    assert_eq!(found.len(), source.len());
    for (name, entry) in source.iter() {
        let other = found.require(name).expect("there");
        assert_eq!((other.dtype(), other.shape()), (dtype, entry.shape()), "{name}");
        let expected: Vec<f32> = values(source, name).into_iter().map(&round).collect();
        assert!(values(found, name) == expected, "{name} has other values");
    }
}

#[test]
fn element_types_round_once_and_widening_is_exact() {
    let folder = Folder::tiny("f32");
    let convert = |from: &str, to: &str, dtype: &str| {
        tasr_ok(&["convert", "-q", &folder.text(from), "-o", &folder.text(to), "--dtype", dtype])
    };
    let source = open(&folder, "tasr.safetensors");
    let half = |v: f32| f16::from_f32(v).to_f32();
    convert("tasr.safetensors", "half.safetensors", "f16");
    rounded(&open(&folder, "half.safetensors"), &source, Dtype::F16, half);
    convert("half.safetensors", "wide.safetensors", "f32");
    rounded(&open(&folder, "wide.safetensors"), &source, Dtype::F32, half);
    convert("tasr.safetensors", "brain.safetensors", "bf16");
    rounded(&open(&folder, "brain.safetensors"), &source, Dtype::BF16, |v| bf16::from_f32(v).to_f32());
    tasr_ok(&["convert", "-q", &folder.text("half.safetensors"), "-o", &folder.text("kept.safetensors")]);
    rounded(&open(&folder, "kept.safetensors"), &source, Dtype::F16, half);
}

#[test]
fn a_diffusers_folder_and_back_gives_equal_values() {
    let folder = Folder::tiny("f32");
    let run = tasr_ok(&[
        "convert",
        &folder.text("sd.safetensors"),
        "-o",
        &folder.text("diffusers"),
        "--layout",
        "diffusers",
    ]);
    assert!(run.stderr.contains("left out 14 companions"), "the text tower's last block: {run}");
    for file in ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"] {
        assert!(folder.path(&format!("diffusers/{file}.safetensors")).is_file(), "{file}");
    }
    tasr_ok(&["convert", "-q", &folder.text("diffusers"), "-o", &folder.text("back.safetensors")]);
    let (source, back) = (open(&folder, "sd.safetensors"), open(&folder, "back.safetensors"));
    assert_eq!(back.len(), source.len() - 14);
    for (name, entry) in back.iter() {
        assert_eq!(entry.shape(), source.require(name).expect("there").shape(), "{name}");
        assert!(values(&back, name) == values(&source, name), "{name} has other values");
    }
    // One part of the folder alone is a file of the same names.
    let unet = folder.text("diffusers/unet/diffusion_pytorch_model.safetensors");
    tasr_ok(&["convert", "-q", &unet, "-o", &folder.text("unet.safetensors")]);
    assert_eq!(open(&folder, "unet.safetensors").len(), 686);
}

#[test]
fn a_training_checkpoint_of_pytorch_loses_its_optimizer() {
    let folder = Folder::new();
    let moments = Py::Tensor(View::whole("2", &[4]));
    let root = dict(vec![
        (
            "checkpoint_controlnet",
            dict(vec![("zero_convs.0.0.weight", Py::Tensor(View::whole("0", &[2, 2])))]),
        ),
        ("checkpoint_adapter", dict(vec![("0.0.in_layers.0.bias", Py::Tensor(View::whole("1", &[2])))])),
        ("optimizer_adapter", dict(vec![("state", dict(vec![("exp_avg", moments)]))])),
        ("epoch", Py::Int(7)),
    ]);
    let data = [[1.0, 2.0, 3.0, 4.0].as_slice(), &[5.0, 6.0], &[0.0; 4]].map(bytes_of);
    let storages = [("0", data[0].clone()), ("1", data[1].clone()), ("2", data[2].clone())];
    std::fs::write(folder.path("tasr_v1.pt"), checkpoint(&root, &storages)).expect("writes");
    let run = tasr_ok(&["convert", &folder.text("tasr_v1.pt"), "-o", &folder.text("tasr.safetensors")]);
    assert!(run.stderr.contains("left out optimizer_adapter: optimizer state"), "{run}");
    let made = open(&folder, "tasr.safetensors");
    let names: Vec<&str> = made.names().collect();
    assert_eq!(
        names,
        ["checkpoint_controlnet.zero_convs.0.0.weight", "checkpoint_adapter.0.0.in_layers.0.bias"]
    );
    assert_eq!(values(&made, names[0]), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(values(&made, names[1]), [5.0, 6.0]);
    assert_eq!(made.metadata()["epoch"], "7");
}

#[test]
fn ema_copies_are_left_out_and_said() {
    let folder = Folder::new();
    let tensor = |key| Py::Tensor(View::whole(key, &[2]));
    let root = dict(vec![(
        "state_dict",
        dict(vec![
            ("model.diffusion_model.out.0.bias", tensor("0")),
            ("model_ema.diffusion_modelout0bias", tensor("1")),
            ("betas", tensor("1")),
        ]),
    )]);
    let storages = [("0", bytes_of(&[1.0, -2.0])), ("1", bytes_of(&[3.0, 4.0]))];
    std::fs::write(folder.path("sd.ckpt"), checkpoint(&root, &storages)).expect("writes");
    let run = tasr_ok(&["convert", &folder.text("sd.ckpt"), "-o", &folder.text("sd.safetensors")]);
    assert!(
        run.stderr.contains("left out 1 EMA copies of weights: model_ema.diffusion_modelout0bias"),
        "{run}"
    );
    assert!(run.stderr.contains("left out 1 companions that no network needs: betas"), "{run}");
    let made = open(&folder, "sd.safetensors");
    assert_eq!(made.names().collect::<Vec<_>>(), ["model.diffusion_model.out.0.bias"]);
}

#[test]
fn parts_merge_and_families_do_not() {
    let folder = Folder::tiny("f16");
    let source = open(&folder, "tasr.safetensors");
    for (part, prefix) in [("controlnet", "checkpoint_controlnet."), ("adapter", "checkpoint_adapter.")] {
        let tensors: Vec<(&str, Vec<u8>, &[usize])> = source
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, entry)| (name, entry.bytes().expect("contiguous").to_vec(), entry.shape()))
            .collect();
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, bytes, shape)| {
                let view =
                    safetensors::tensor::TensorView::new(safetensors::Dtype::F16, shape.to_vec(), bytes);
                (*name, view.expect("view"))
            })
            .collect();
        let bytes = safetensors::serialize(views, None).expect("serializes");
        std::fs::write(folder.path(&format!("{part}.safetensors")), bytes).expect("writes");
    }
    let (control, adapter) = (folder.text("controlnet.safetensors"), folder.text("adapter.safetensors"));
    let whole = folder.text("whole.safetensors");
    tasr_ok(&["convert", "-q", &control, &adapter, "-o", &whole]);
    rounded(&open(&folder, "whole.safetensors"), &source, Dtype::F16, |v| v);
    let twice = tasr(&["convert", "-q", &control, &control, "-o", &folder.text("twice.safetensors")]);
    assert_eq!(twice.code, 4, "{twice}");
    assert!(twice.stderr.contains("give each network once"), "{twice}");
    let mixed = tasr(&[
        "convert",
        "-q",
        &control,
        &folder.text("sd.safetensors"),
        "-o",
        &folder.text("m.safetensors"),
    ]);
    assert_eq!(mixed.code, 4, "{mixed}");
    assert!(mixed.stderr.contains("of Stable Diffusion") && mixed.stderr.contains("of TASR"), "{mixed}");
    let layout = tasr(&["convert", "-q", &control, "-o", &folder.text("d"), "--layout", "diffusers"]);
    assert_eq!(layout.code, 2, "{layout}");
    assert!(layout.stderr.contains("diffusers has no layout for TASR"), "{layout}");
    for name in ["twice.safetensors", "m.safetensors", "d"] {
        assert!(!folder.path(name).exists(), "{name}");
    }
}

#[test]
fn values_beyond_float16_are_refused_by_name() {
    let folder = Folder::new();
    let root = dict(vec![
        ("fits", Py::Tensor(View::whole("0", &[1]))),
        ("large", Py::Tensor(View::whole("1", &[2]))),
    ]);
    let storages = [("0", bytes_of(&[65504.0])), ("1", bytes_of(&[1.0, 65520.0]))];
    std::fs::write(folder.path("in.pth"), checkpoint(&root, &storages)).expect("writes");
    let (from, to) = (folder.text("in.pth"), folder.text("out.safetensors"));
    let run = tasr(&["convert", "-q", &from, "-o", &to, "--dtype", "f16"]);
    assert_eq!(run.code, 4, "{run}");
    assert!(
        run.stderr.contains("beyond the largest that float16 holds, in large; use --dtype bf16"),
        "{run}"
    );
    assert_eq!(std::fs::read_dir(folder.path("")).expect("lists").count(), 1, "nothing is left behind");
    tasr_ok(&["convert", "-q", &from, "-o", &to, "--dtype", "bf16"]);
}

#[test]
fn wrong_files_and_outputs_are_said_in_one_sentence() {
    let folder = Folder::tiny("f16");
    let output = folder.text("out.safetensors");
    let refuse = |args: &[&str], code: i32, text: &str| {
        let run = tasr(&[&["convert", "-q"], args].concat());
        assert_eq!(run.code, code, "{run}");
        assert!(run.stderr.starts_with("tasr: ") && run.stderr.contains(text), "expected '{text}': {run}");
        assert_eq!(run.stderr.lines().count(), 1, "{run}");
    };
    let sd = folder.text("sd.safetensors");
    refuse(&[&folder.text("absent.safetensors"), "-o", &output], 7, "cannot open");
    std::fs::write(folder.path("page.ckpt"), "<html>not found</html>").expect("writes");
    refuse(&[&folder.text("page.ckpt"), "-o", &output], 4, "web page");
    let mut bytes = std::fs::read(&sd).expect("reads");
    bytes.truncate(bytes.len() / 2);
    std::fs::write(folder.path("cut.safetensors"), &bytes).expect("writes");
    refuse(&[&folder.text("cut.safetensors"), "-o", &output], 4, "the download was cut off");
    refuse(&[&sd, "-o", &folder.text("sd.bin")], 2, "end its name in .safetensors");
    refuse(&[&sd, "-o", &folder.text("")], 2, "this is a folder");
    refuse(&[&sd, "-o", &sd], 2, "exists already");
    refuse(&[&sd, "-o", &sd, "--layout", "diffusers"], 2, "the diffusers layout is a folder");
    assert!(!folder.path("out.safetensors").exists());
    // In place, when asked for: the input is mapped while its successor is written.
    tasr_ok(&["convert", "-q", &sd, "-o", &sd, "--overwrite", "--dtype", "bf16"]);
    assert!(open(&folder, "sd.safetensors").iter().all(|(_, entry)| entry.dtype() == Dtype::BF16));
}

/// A disk too small, as a file system of 1 MB: only where the test may mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_found_before_writing() {
    let folder = Folder::tiny("f16");
    let script = format!(
        "mount -t tmpfs -o size=1m none {0} && exec {1} convert -q {2} -o {0}/out.safetensors",
        folder.text("small"),
        env!("CARGO_BIN_EXE_tasr"),
        folder.text("sd.safetensors")
    );
    std::fs::create_dir(folder.path("small")).expect("folder");
    let run = std::process::Command::new("unshare").args(["-r", "-m", "sh", "-c", &script]).output();
    let Ok(output) = run else { return println!("unshare is not installed: not tested") };
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(1) || stderr.contains("unshare") {
        return println!("no right to mount a file system here: not tested");
    }
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert!(stderr.contains("93 MB are needed, the disk has 1 MB free; free some space"), "{stderr}");
}
