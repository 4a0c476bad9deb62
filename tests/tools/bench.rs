//! `tasr bench pipeline`: every part runs, and its figures belong together.

use serde_json::Value;

use crate::program::{tasr, tasr_ok};

#[test]
fn every_part_runs_and_its_figures_agree() {
    let parts = "step,stage1,vae_encode,vae_decode,text";
    let options = ["--preset", "tiny", "--size", "64", "--repeats", "1", "--warmup", "0", "--threads", "2"];
    let run = tasr_ok(
        &[&["bench", "pipeline", "--json", "--device", "cpu", "--parts", parts], &options[..]].concat(),
    );
    let rows: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    let names: Vec<&str> = rows.iter().filter_map(|row| row["part"].as_str()).collect();
    assert_eq!(names.join(","), parts);
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"));
        let rate = number("tflop") / number("ms") * 1e3;
        assert!((number("tflops") - rate).abs() <= 0.01 * rate + 1e-4, "{row}");
        assert!((number("share_of_matmul") - rate / number("matmul_tflops")).abs() <= 0.01, "{row}");
        assert_eq!((&row["dtype"], &row["threads"]), (&"f32".into(), &2.into()), "{row}");
        if cfg!(target_os = "linux") {
            assert!(number("peak_mb") > 1.0, "{row}");
        }
    }
}

#[test]
fn sizes_and_parts_that_cannot_be_are_refused() {
    for (args, text) in [
        (&["--size", "100"][..], "--size: 100 is not a multiple of 64; give 512"),
        (&["--size", "256", "--parts", "pipeline"], "--size: the pipeline works at 512 pixels at least"),
        (&["--parts", "unknown"], "possible values: step, stage1, vae_encode"),
        (&["--dtype", "f16", "--device", "cpu"], "--dtype: the cpu device does not compute in f16"),
        (&["--device", "tpu"], "--device: unknown device 'tpu'"),
    ] {
        let run = tasr(&[&["bench", "pipeline", "--preset", "tiny"], args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run}");
        assert!(run.stderr.contains(text), "expected '{text}': {run}");
    }
}

/// The emulator's fast build is compiled in, but its speed says nothing: only that all of the command works.
#[cfg(feature = "emulator")]
#[test]
fn kernels_are_checked_timed_and_drawn_on_the_emulator() {
    let folder = crate::program::Folder::new();
    let plot = folder.text("roof.svg");
    let run = tasr_ok(&[
        "bench",
        "kernels",
        "--json",
        "--device",
        "emulator",
        "--preset",
        "tiny",
        "--dtype",
        "f16",
        "--at-most",
        "0.003",
        "--repeats",
        "1",
        "--batch-ms",
        "0",
        "--steps",
        "3",
        "--filter",
        "8x8",
        "--plot",
        &plot,
    ]);
    let rows: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    assert!(rows.len() >= 5, "{run}");
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"));
        assert!(number("us") > 0.0 && number("error") < 0.01 && number("count") >= 1.0, "{row}");
        assert!(row["clock"].as_str().is_some_and(|text| text.contains("say nothing of a GPU")), "{row}");
        assert!(!row["kernels"].as_array().expect("names").is_empty(), "{row}");
        let least =
            (number("flops") / number("peak_tflops") / 1e12).max(number("bytes") / number("peak_gbs") / 1e9);
        assert!((number("percent_of_roof") / 100.0 * number("us") / 1e6 / least - 1.0).abs() < 1e-3, "{row}");
    }
    let picture = std::fs::read_to_string(&plot).expect("plot");
    assert!(picture.starts_with("<svg") && picture.matches("<circle").count() >= rows.len(), "{picture}");
    let run = tasr(&["bench", "kernels", "--preset", "tiny", "--device", "cpu", "--filter", "no such op"]);
    assert_eq!(run.code, 2, "{run}");
    assert!(run.stderr.contains("no call matches 'no such op'"), "{run}");
}

/// Networks of a training, whose ops no upscale calls.
#[cfg(feature = "emulator")]
#[test]
fn kernels_of_networks_that_a_training_uses_are_checked_and_timed() {
    for (of, filter, kernels) in [
        ("swinir", "pixel_unshuffle", vec![vec!["pixel_unshuffle_bf16"]]),
        ("clipiqa", "_token", vec![vec!["column_sums_bf16"], vec!["move_tokens_bf16", "move_tokens_bf16"]]),
    ] {
        let options = ["--dtype", "bf16", "--repeats", "1", "--batch-ms", "0", "--filter", filter];
        let run = tasr_ok(
            &[&["bench", "kernels", "--json", "--device", "emulator", "--of", of], &options[..]].concat(),
        );
        let rows: Vec<Value> =
            run.stdout.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
        let started: Vec<&Value> = rows.iter().map(|row| &row["kernels"]).collect();
        assert_eq!(serde_json::json!(started), serde_json::json!(kernels), "{run}");
        for row in &rows {
            assert_eq!(row["count"], 1, "{row}");
            assert!(row["bytes"].as_f64().expect("bytes") > 1.0, "{row}");
        }
    }
}
