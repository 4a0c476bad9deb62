//! What cannot be done is said in one sentence, with the exit code of its kind, before anything is computed.

use std::collections::BTreeMap;
use std::fs;

use tasr::weights::Checkpoint;
use tasr::weights::write::{TensorSpec, Writer};

use crate::pictures::write;
use crate::program::{Folder, Run, tasr};
use crate::weights::{model, tiny};

/// A folder with one picture.
fn folder() -> Folder {
    let folder = Folder::new();
    write(&folder.path("a.png"), "rgb", 1);
    folder
}

/// Runs on the picture of `folder` with `more`; the run must fail and leave nothing.
#[track_caller]
fn fails(folder: &Folder, more: &[&str], code: i32, parts: &[&str]) -> Run {
    let (input, output) = (folder.text("a.png"), folder.text("out.png"));
    let mut args = vec!["upscale", &input, "-o", &output];
    args.extend(more);
    let run = tasr(&args);
    assert_eq!(run.code, code, "{run}");
    assert_eq!(run.stdout, "", "{run}");
    let said: Vec<&str> = run.stderr.lines().collect();
    assert!(said.len() == 1 && said[0].starts_with("tasr: error: "), "not one sentence: {run}");
    for part in parts {
        assert!(run.stderr.contains(part), "'{part}' is missing: {run}");
    }
    assert!(!folder.path("out.png").exists(), "{run}");
    run
}

#[test]
fn every_bad_flag_value_is_one_sentence() {
    let folder = folder();
    for (flag, values) in [
        ("--scale", &["0", "-4", "x", "nan", "inf", ""][..]),
        ("--steps", &["0", "1001", "-1", "2.5", "x"]),
        ("--cfg", &["nan", "inf", "1e39", "x"]),
        ("--control-scale", &["nan", "inf", "x"]),
        ("--control-until", &["-1", "x", "1.5"]),
        ("--seed", &["-1", "x", "18446744073709551616"]),
        ("--adapter", &["both", ""]),
        ("--tile", &["500", "-64", "x", "99999999999999999999999"]),
        ("--tile-stride", &["0", "12", "x", "1024"]),
        ("--stage1-tile", &["-1", "x"]),
        ("--color-fix", &["histogram"]),
        ("--device", &["gpu", "cuda:x", ""]),
        ("--dtype", &["f64", "f16"]),
        ("--threads", &["0", "-1", "x", "100000"]),
        ("--batch", &["0", "-1", "x"]),
        ("--format", &["gif", "tiff"]),
        ("--suffix", &["a/b"]),
        ("--jpeg-quality", &["0", "101", "x"]),
    ] {
        for value in values {
            // `=` so that a leading minus belongs to the value.
            fails(&folder, &[&format!("{flag}={value}"), "--models", "nowhere"], 2, &[flag]);
        }
    }
    fails(&folder, &["--tiled", "--tile", "0"], 2, &["--tiled"]);
    fails(&folder, &["--trace-keep", "x"], 2, &["--trace "]);
    fails(&folder, &["--no-such-flag"], 2, &["--no-such-flag"]);
    fails(&folder, &["--format", "webp"], 2, &["out.png", "--format is webp"]);
}

#[test]
fn missing_arguments_and_help() {
    let folder = folder();
    let output = folder.text("out");
    for (args, part) in [
        (&["upscale"][..], "--output"),
        (&["upscale", "-o", &output], "no input is given"),
        (&[], "no subcommand"),
        (&["enlarge"], "'enlarge'"),
    ] {
        let run = tasr(args);
        assert!(run.code == 2 && run.stderr.contains(part) && run.stderr.lines().count() == 1, "{run}");
    }
    let help = tasr(&["upscale", "--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{help}");
    let mut rest = help.stdout.as_str();
    let headings = [
        "Input and output:",
        "Weights:",
        "Sampling:",
        "Tiles and memory:",
        "Device:",
        "Output:",
        "Expert:",
        "Examples:",
    ];
    for heading in headings {
        rest =
            rest.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading} in {help}")).1;
    }
    let version = tasr(&["--version"]);
    assert_eq!((version.code, version.stdout), (0, format!("tasr {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn weights_that_are_missing_or_wrong() {
    let folder = folder();
    let empty = folder.text("empty");
    let run = fails(&folder, &["--models", &empty], 4, &["--sd", "--tasr", "--stage1", &empty]);
    for name in
        ["sd.safetensors", "v2-1_512-ema-pruned", "tasr_v1", "BSRNet.pth", "tasr synth --preset tiny -o"]
    {
        assert!(run.stderr.contains(name), "{name}: {run}");
    }
    let stage1 = model("stage1.safetensors");
    let stage1 = stage1.to_str().expect("utf-8");
    let run = fails(&folder, &["--models", &empty, "--stage1", stage1], 4, &["--sd", "--tasr"]);
    assert!(!run.stderr.contains("--stage1"), "{run}");
    let named = fails(&folder, &["--models", tiny(), "--sd", "gone.ckpt"], 7, &["gone.ckpt"]);
    assert!(named.stderr.contains("cannot"), "{named}");
    // A file of another family.
    fails(&folder, &["--models", tiny(), "--tasr", stage1], 4, &["stage1.safetensors"]);
    // A cut download.
    let whole = fs::read(model("stage1.safetensors")).expect("reads");
    fs::write(folder.path("cut.safetensors"), &whole[..whole.len() / 3]).expect("writes");
    let cut = folder.text("cut.safetensors");
    fails(&folder, &["--models", tiny(), "--stage1", &cut], 4, &["cut.safetensors"]);
}

#[test]
fn adapters_that_the_file_lacks() {
    let folder = folder();
    let whole = Checkpoint::open(&model("tasr.safetensors")).expect("opens");
    let kept = || whole.iter().filter(|(name, _)| name.starts_with("checkpoint_controlnet."));
    let specs = kept().map(|(name, entry)| TensorSpec::new(name, entry.dtype(), entry.shape())).collect();
    let path = folder.path("plain.safetensors");
    let mut writer = Writer::create(&path, specs, &BTreeMap::new()).expect("creates");
    kept().for_each(|(name, entry)| writer.write_entry(name, entry).expect("writes"));
    writer.finish().expect("finishes");
    let plain = folder.text("plain.safetensors");
    let args = ["--models", tiny(), "--tasr", &plain];
    fails(&folder, &args, 4, &["plain.safetensors: holds no adapters", "--adapter none"]);
    fails(
        &folder,
        &["--models", tiny(), "--adapter", "paper"],
        4,
        &["holds official adapters, --adapter asks for paper"],
    );
}

#[test]
fn inputs_devices_and_files() {
    let folder = folder();
    fails(&folder, &["gone.png"], 7, &["gone.png"]);
    if cfg!(not(feature = "emulator")) {
        fails(&folder, &["--device", "emulator", "--models", tiny()], 5, &["this build has no emulator"]);
    }
    fails(&folder, &["--device", "cuda:99", "--models", tiny()], 5, &["--device"]);
    fails(&folder, &["--device", "cpu", "--dtype", "f16"], 2, &["--dtype", "does not compute in f16"]);
    fails(&folder, &["--noise", "gone.safetensors", "--models", tiny()], 3, &["gone.safetensors", "--noise"]);
    let sd = model("stage1.safetensors");
    let sd = sd.to_str().expect("utf-8");
    fails(&folder, &["--noise", sd, "--models", tiny()], 3, &["no tensor is named noise.*"]);
    fails(&folder, &["--trace", "no/such/folder/x.safetensors"], 2, &["--trace", "does not exist"]);
    // One broken picture asked for by name: its own error.
    fs::write(folder.path("a.png"), "no picture").expect("writes");
    fails(&folder, &["--models", tiny(), "-q", "--steps", "1"], 3, &["a.png", "text file"]);
}
