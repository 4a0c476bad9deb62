//! What the options do to a run, seen in its trace and its output.

use std::collections::BTreeSet;

use image::ColorType;
use tasr::weights::Checkpoint;

use crate::pictures::{SIDE, check_kind, parameters, rgb, write};
use crate::program::{Folder, Run, tasr_ok};
use crate::weights::models;

/// A run on one small picture; returns it and its output.
fn upscale(folder: &Folder, output: &str, more: &[&str]) -> Run {
    write(&folder.path("in.png"), "rgb", 3);
    let (input, output) = (folder.text("in.png"), folder.text(output));
    tasr_ok(&[&["upscale", &input, "-o", &output, "--models", models(), "--overwrite"][..], more].concat())
}

/// Names traced by a run with these options.
fn traced(folder: &Folder, steps: &str, until: &str) -> BTreeSet<String> {
    let trace = folder.text("trace.safetensors");
    let keep = "step*.control.12,step*.map.0,step?.eps,text.*";
    upscale(
        folder,
        "traced.png",
        &["--steps", steps, "--control-until", until, "--trace", &trace, "--trace-keep", keep, "--cfg", "1"],
    );
    let file = Checkpoint::open(&folder.path("trace.safetensors")).expect("trace");
    file.names().map(str::to_owned).collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_controlnet_runs_in_the_first_steps_only() {
    let folder = Folder::new();
    let two = traced(&folder, "2", "1");
    assert_eq!(
        two,
        names(&["step0.control.12", "step0.map.0", "step0.eps", "step1.eps", "text.cond", "text.uncond"])
    );
    assert_eq!(parameters(&folder.path("traced.png"))["control_until"], 1);
    assert_eq!(traced(&folder, "1", "0"), names(&["step0.eps", "text.cond", "text.uncond"]));
}

#[test]
fn published_switches_and_other_formats() {
    let folder = Folder::new();
    let run = upscale(
        &folder,
        "out.jpg",
        &[
            "--outscale",
            "2.5",
            "--steps",
            "1",
            "--tile_size",
            "256",
            "--tile_stride",
            "256",
            "--better_start",
            "--adapter",
            "none",
            "--color-fix",
            "adain",
            "--stage1-tile",
            "8",
            "--control-scale",
            "0.5",
            "--jpeg-quality",
            "80",
        ],
    );
    assert_eq!(run.stdout, "", "{run}");
    assert!(run.stderr.contains("denoising 4/4") || run.stderr.contains("in.png ->"), "{run}");
    check_kind(&folder.path("out.jpg"), ColorType::Rgb8, SIDE * 5 / 2);
}

#[test]
fn seeds_differ_and_tiled_means_512() {
    let folder = Folder::new();
    let quiet = upscale(&folder, "a.png", &["--steps", "1", "--tiled", "-q"]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""), "{quiet}");
    let made = parameters(&folder.path("a.png"));
    assert_eq!((&made["tile"], &made["tile_stride"]), (&512.into(), &256.into()));
    upscale(&folder, "b.png", &["--steps", "1", "--tiled", "-q", "--seed", "232"]);
    assert!(rgb(&folder.path("a.png")) != rgb(&folder.path("b.png")), "the seed changes nothing");
}

/// Stage 1 alone is what the whole run cleans first, and needs none of its steps.
#[test]
fn stage_1_alone_is_the_clean_picture() {
    let folder = Folder::new();
    let trace = folder.text("trace.safetensors");
    upscale(&folder, "clean.png", &["--stage1-only", "--trace", &trace, "--trace-keep", "clean,final,step*"]);
    let file = Checkpoint::open(&folder.path("trace.safetensors")).expect("trace");
    assert_eq!(file.names().map(str::to_owned).collect::<BTreeSet<_>>(), names(&["clean", "final"]));
    let values = |name: &str| {
        let mut values = vec![0.0f32; file.get(name).expect("traced").count()];
        file.read_f32(name, &mut values).expect("reads");
        values
    };
    assert!(values("clean") == values("final"));
    check_kind(&folder.path("clean.png"), ColorType::Rgb8, SIDE * 4);
    assert_eq!(parameters(&folder.path("clean.png"))["stage1_only"], true);
}
