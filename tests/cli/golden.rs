//! A run of the official implementation, repeated by the program under the official flag names.

use std::collections::BTreeSet;

use image::ColorType;
use serde_json::Value;
use tasr::weights::{Checkpoint, Dtype};

use crate::pictures::{check_kind, parameters, png_text, rgb};
use crate::program::{Folder, tasr_ok};
use crate::weights::{fixture, model};

/// Values of a tensor, integers too, with its shape.
fn values(file: &Checkpoint, name: &str) -> (Vec<usize>, Vec<f64>) {
    let entry = file.require(name).expect("tensor");
    let bytes = entry.bytes().expect("contiguous");
    let values = match entry.dtype() {
        Dtype::I32 => bytes.as_chunks().0.iter().map(|raw| f64::from(i32::from_le_bytes(*raw))).collect(),
        Dtype::U8 => bytes.iter().map(|&byte| f64::from(byte)).collect(),
        _ => {
            let mut values = vec![0.0; entry.count()];
            entry.read(&mut values).expect("floats");
            values.into_iter().map(|v: f32| f64::from(v)).collect()
        }
    };
    (entry.shape().to_vec(), values)
}

#[test]
fn the_recorded_run_is_reproduced_to_the_byte() {
    let folder = Folder::new();
    let recorded = fixture("golden/pipeline_tiny_64.safetensors");
    let case: Value = serde_json::from_str(
        &std::fs::read_to_string(fixture("golden/pipeline_tiny_64.json")).expect("reads"),
    )
    .expect("json");
    let (output, trace) = (folder.path("out.png"), folder.path("trace.safetensors"));
    let text = |path: std::path::PathBuf| path.to_str().expect("utf-8").to_owned();
    let keep = case["keep"].as_array().expect("list").iter().map(|name| name.as_str().expect("text"));
    let keep = keep.collect::<Vec<_>>().join(",");
    let run = tasr_ok(&[
        "upscale",
        "--input",
        &text(fixture("golden/astronaut_64.png")),
        "--output",
        &text(output.clone()),
        "--upscale",
        "4",
        "--steps",
        "4",
        "--cfg_scale",
        "4.5",
        "--pos_prompt",
        case["prompt"].as_str().expect("text"),
        "--neg_prompt",
        case["negative_prompt"].as_str().expect("text"),
        "--sd_v21",
        &text(model("sd.safetensors")),
        "--control_adapter",
        &text(model("tasr.safetensors")),
        "--bsrnet",
        &text(model("stage1.safetensors")),
        "--noise",
        &text(recorded.clone()),
        "--trace",
        &text(trace.clone()),
        "--trace-keep",
        &keep,
        "--device",
        "cpu",
        "--dtype",
        "f32",
        "--seed",
        "7",
        "--json",
    ]);

    let (found, expected) =
        (Checkpoint::open(&trace).expect("trace"), Checkpoint::open(&recorded).expect("case"));
    let names = |file: &Checkpoint| file.names().map(str::to_owned).collect::<BTreeSet<_>>();
    // The case holds its two colour stages beside what its list keeps.
    assert!(names(&found).len() > 40, "{:?}", names(&found));
    assert_eq!(names(&found), names(&expected));
    for name in names(&expected) {
        let ((shape, ours), (recorded_shape, theirs)) = (values(&found, &name), values(&expected, &name));
        assert_eq!(shape, recorded_shape, "{name}");
        let errors = || ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
        let largest = theirs.iter().fold(0f64, |most, v| most.max(v.abs()));
        let half = expected.get(&name).is_some_and(|entry| entry.dtype() == Dtype::F16);
        let late = ["z_final", "decoded", "fixed", "final"].contains(&name.as_str());
        match name.as_str() {
            "tokens.cond" | "tokens.uncond" => assert_eq!(ours, theirs, "{name}"),
            "bytes" => {
                let different = errors().filter(|error| *error > 0.0).count();
                let far = errors().filter(|error| *error > 1.0).count();
                assert!(
                    far == 0 && different * 1000 <= ours.len(),
                    "{different} bytes differ, {far} by more than 1"
                );
            }
            _ => {
                let allowed = if half || late { 2e-3 } else { 1e-3 } * largest;
                let wrong = errors().filter(|error| error.is_nan() || *error > allowed).count();
                assert_eq!(wrong, 0, "{name}: values off by more than {allowed:e}");
            }
        }
    }

    check_kind(&output, ColorType::Rgb8, 256);
    let (_, bytes) = values(&found, "bytes");
    let written: Vec<f64> = rgb(&output).into_iter().map(f64::from).collect();
    assert_eq!(written, bytes, "the picture has the traced bytes");

    let lines: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!(lines.len(), 2, "{run}");
    assert_eq!(lines[0]["output"], text(output.clone()), "{run}");
    assert_eq!((&lines[0]["width"], &lines[0]["height"]), (&256.into(), &256.into()), "{run}");
    assert!(lines[0]["seconds"].as_f64().is_some_and(|s| s > 0.0) && lines[0]["seed"].is_null(), "{run}");
    assert_eq!((&lines[1]["written"], &lines[1]["failed"]), (&1.into(), &0.into()), "{run}");
    for line in run.stderr.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("not JSON: {line}\n{run}"));
    }
    assert!(run.stderr.contains(" needs ") && run.stderr.contains("activations"), "memory is said: {run}");

    let made = parameters(&output);
    assert_eq!(made["prompt"], case["prompt"]);
    assert_eq!((&made["adapter"], &made["steps"]), (&"official".into(), &4.into()));
    assert_eq!(made["noise"], "pipeline_tiny_64.safetensors");
    assert_eq!(made["models"]["tasr"]["file"], "tasr.safetensors");
    let header = png_text(&output);
    let (_, line) = header.iter().find(|(key, _)| key == "parameters").expect("a line to read");
    assert!(line.contains("cfg 4.5") && !line.contains('\n'), "{line}");
    let traced: Value = serde_json::from_str(&found.metadata()["tasr"]).expect("json");
    assert_eq!(traced["cfg"], 4.5);
}
