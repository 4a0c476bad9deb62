//! `tasr data synth`: the same bytes whatever the threads, no picture made twice, and what cannot be done.

use std::fs;

use serde_json::Value;

use crate::program::{Folder, tasr, tasr_ok};

fn synth(folder: &Folder, out: &str, more: &[&str]) {
    let out = folder.text(out);
    tasr_ok(&[&["data", "synth", "-o", &out, "--size", "32", "-q"], more].concat());
}

fn bytes(folder: &Folder, name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder.path(name)).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    assert!(paths.iter().enumerate().all(|(i, path)| path.ends_with(format!("{i:06}.png"))), "{paths:?}");
    paths.iter().map(|path| fs::read(path).expect("reads")).collect()
}

#[test]
fn a_seed_gives_its_pictures_with_any_number_of_threads() {
    let folder = Folder::new();
    synth(&folder, "one", &["--count", "9", "--seed", "4", "--threads", "1"]);
    synth(&folder, "three", &["--count", "9", "--seed", "4", "--threads", "3"]);
    synth(&folder, "other", &["--count", "9", "--seed", "5"]);
    let one = bytes(&folder, "one");
    assert_eq!(one.len(), 9);
    assert!(one == bytes(&folder, "three"), "threads change the pictures");
    assert!(one.iter().zip(bytes(&folder, "other")).all(|(a, b)| *a != b), "the seed changes nothing");
    for picture in &one {
        let picture = image::load_from_memory(picture).expect("a PNG").to_rgb8();
        assert_eq!(picture.dimensions(), (32, 32));
    }
}

#[test]
fn a_run_goes_on_where_it_was() {
    let folder = Folder::new();
    synth(&folder, "out", &["--count", "3"]);
    fs::write(folder.path("out/000001.png"), b"kept").expect("writes");
    let out = folder.text("out");
    let run = tasr_ok(&["data", "synth", "-o", &out, "--size", "32", "--count", "5", "--json"]);
    let lines: Vec<Value> = run.stdout.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let last = lines.last().expect("a summary");
    assert_eq!((&last["written"], &last["skipped"], lines.len()), (&2.into(), &3.into(), 6), "{run}");
    assert_eq!(fs::read(folder.path("out/000001.png")).expect("reads"), b"kept");
    synth(&folder, "out", &["--count", "5", "--overwrite"]);
    synth(&folder, "new", &["--count", "5"]);
    assert!(bytes(&folder, "out") == bytes(&folder, "new"));
}

#[test]
fn what_cannot_be_done_is_one_sentence() {
    let folder = Folder::new();
    let out = folder.text("out");
    let run = tasr(&["data", "synth", "-o", &out, "--count", "1", "--fonts", &folder.text("absent")]);
    assert_eq!(run.code, 7, "{run}");
    assert!(run.stderr.contains("absent") && run.stderr.lines().count() == 1, "{run}");
    let run = tasr(&["data", "synth", "-o", &out, "--count", "1", "--size", "8"]);
    assert_eq!(run.code, 2, "{run}");
    fs::write(folder.path("file"), b"no folder").expect("writes");
    let run = tasr(&["data", "synth", "-o", &folder.text("file"), "--count", "1"]);
    assert_eq!(run.code, 7, "{run}");
    assert!(run.stderr.starts_with("tasr: error:") && run.stderr.contains("file"), "{run}");
}
