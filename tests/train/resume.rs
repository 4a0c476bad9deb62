//! A run that is killed at any moment goes on to the same bits.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Folder, tasr_ok};
use crate::{column, configuration, log, pictures};

const STEPS: u64 = 8;
const SETTINGS: &str = "[train]\nrecipe = \"official\"\nsteps = 8\nbatch = 2\naccumulate = 2\nlearning-rate = 1e-3\n\
    warmup = 3\nclip-norm = 1.0\nema = 0.9\n[objective]\nreward-weight = 0.0\nadapter-every = 3\n\
    [log]\nevery = 1\ncheckpoint-every = 2\nkeep = 2";

fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    found.sort();
    found
}

/// Starts the run and kills it `after` the moment that it has written a checkpoint that was not there before.
fn killed(args: &[&str], output: &Path, after: Duration) {
    let before = checkpoints(output).last().cloned();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tasr"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let limit = Instant::now() + Duration::from_secs(240);
    while checkpoints(output).last().cloned() == before {
        if child.try_wait().expect("waits").is_some() {
            return;
        }
        assert!(Instant::now() < limit, "no checkpoint was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(after);
    child.kill().expect("kills"); // SIGKILL
    child.wait().expect("ends");
}

#[test]
fn a_killed_run_resumes_bit_identically() {
    let folder = Folder::new();
    pictures(&folder);
    // More kills by hand: TASR_TEST_KILLS=20 cargo test --test train killed
    let kills: u64 = std::env::var("TASR_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let config = configuration(&folder, "run", SETTINGS);
    let cleaner = "data.cleaner=none";
    let whole = folder.text("whole");
    let base = ["train", "-c", &config, "--set", cleaner, "-q", "--ignore-memory"];
    tasr_ok(&[&base[..], &["-o", &whole]].concat());
    let last = format!("step-{STEPS:08}.safetensors");
    let expected = fs::read(Path::new(&whole).join(&last)).expect("the last checkpoint");
    assert_eq!(checkpoints(Path::new(&whole)).len(), 2, "the newest two are kept");

    for round in 0..kills {
        let cut = folder.text(&format!("cut{round}"));
        let args = [&base[..], &["-o", &cut, "--resume", "auto"]].concat();
        // Two kills a round, at moments that differ from round to round.
        killed(&args, Path::new(&cut), Duration::from_millis(round * 37 % 400));
        killed(&args, Path::new(&cut), Duration::from_millis(150 + round * 91 % 700));
        tasr_ok(&args);
        let found = fs::read(Path::new(&cut).join(&last)).expect("the last checkpoint");
        assert!(found == expected, "round {round}: the weights, moments or averages have other bits");
        let (one, other) = (log(Path::new(&whole)), log(Path::new(&cut)));
        for key in ["step", "total", "denoise", "pixel", "norm", "learning_rate"] {
            assert_eq!(column(&one, key), column(&other, key), "round {round}: {key}");
        }
        let left: Vec<_> = fs::read_dir(&cut)
            .expect("lists")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
    let lines = log(Path::new(&whole));
    assert_eq!(column(&lines, "step"), (1..=STEPS).map(|step| step as f64).collect::<Vec<_>>());
    assert_eq!(
        column(&lines, "learning_rate")[..4],
        [1, 2, 3, 3].map(|n| f64::from((1e-3 * f64::from(n) / 3.0) as f32))
    );
    let events =
        fs::read_dir(&whole).expect("lists").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert_eq!(events.filter(|name| name.starts_with("events.out.tfevents")).count(), 1);
}
