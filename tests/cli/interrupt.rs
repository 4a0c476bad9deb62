//! Ctrl-C in the middle of a run.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::pictures::{check_kind, write};
use crate::program::{Folder, tasr_ok};
use crate::weights::models;

fn names(folder: &Folder, name: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.path(name))
        .expect("lists")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("utf-8"))
        .collect();
    names.sort();
    names
}

#[test]
fn finished_pictures_stay_and_nothing_is_half_written() {
    let folder = Folder::new();
    fs::create_dir(folder.path("in")).expect("folder");
    (0..6).for_each(|i| write(&folder.path(&format!("in/{i}.png")), "rgb", i));
    let (input, output) = (folder.text("in"), folder.text("out"));
    let args = ["upscale", &input, "-o", &output, "--models", models(), "--steps", "1", "--json"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_tasr"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut sent = false;
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().expect("piped")).lines() {
        let line = line.expect("utf-8");
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if !sent && event["event"] == "end" {
            sent = true;
            let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
            assert!(killed.success());
        }
        said.push_str(&line);
        said.push('\n');
    }
    let code = child.wait().expect("ends").code();
    assert!(sent, "no picture was finished: {said}");
    assert_eq!(code, Some(130), "{args:?}\n{said}");
    assert!(said.ends_with("tasr: error: stopped; finished files are kept\n"), "{said}");
    let done = names(&folder, "out");
    assert!((1..6).contains(&done.len()), "{done:?}\n{said}");
    for name in &done {
        assert!(name.ends_with(".png") && !name.starts_with('.'), "left behind: {done:?}");
        check_kind(&folder.path("out").join(name), image::ColorType::Rgb8, 64);
    }
    // What remains is done by the same command.
    (2..6).for_each(|i| fs::remove_file(folder.path(&format!("in/{i}.png"))).expect("removes"));
    let again = tasr_ok(&args);
    assert!(again.stdout.contains(r#""status":"skipped""#), "{again}");
    assert!(["0.png", "1.png"].iter().all(|name| folder.path("out").join(name).is_file()), "{again}");
}
