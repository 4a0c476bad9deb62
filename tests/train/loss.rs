//! The loss falls: a tiny system learns four pairs by heart.

use std::path::Path;

use crate::program::{Folder, tasr_ok};
use crate::{column, configuration, log, pictures};

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Trains the ControlNet for `steps` on the four pairs; -> means of the noise loss at the start and the end.
fn overfit(steps: u64) -> (f64, f64) {
    let folder = Folder::new();
    pictures(&folder);
    let settings = format!(
        "flip = false\n[degradation]\nrecipe = \"codeformer\"\nfixed = true\n[train]\nstage = 1\nsteps = {steps}\n\
         batch = 4\nlearning-rate = 2e-3\nclip-norm = 1.0\nweight-decay = 0.0\ncheckpointing = false\n\
         [objective]\ncontrolnet-steps = [400, 999]\n[log]\nevery = 1\ncheckpoint-every = 100000"
    );
    let (config, output) = (configuration(&folder, "run", &settings), folder.text("run"));
    tasr_ok(&["train", "-c", &config, "-o", &output, "-q", "--ignore-memory"]);
    let losses = column(&log(Path::new(&output)), "denoise");
    assert_eq!(losses.len() as u64, steps);
    if std::env::var_os("TASR_TEST_OVERFIT").is_some() {
        for (i, part) in losses.chunks(steps as usize / 10).enumerate() {
            println!("steps {}..: {:.4}", i * steps as usize / 10, mean(part));
        }
    }
    (losses[0], mean(&losses[losses.len() - 10..]))
}

/// In CI a part of the way; `TASR_TEST_OVERFIT=300` goes all of it: ten times.
#[test]
fn four_pairs_are_learnt_by_heart() {
    let steps = std::env::var("TASR_TEST_OVERFIT").ok().and_then(|text| text.parse().ok());
    let (first, last) = overfit(steps.unwrap_or(30));
    let factor = if steps.is_some() { 10.0 } else { 1.5 };
    assert!(last * factor < first, "the loss fell from {first} to {last}");
}
