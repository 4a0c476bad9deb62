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
