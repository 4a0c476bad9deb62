//! `tasr train` as a user runs it, on tiny synthetic networks: resuming, overfitting, export, what cannot be.

mod base;
mod export;
mod loss;
#[path = "../support/program.rs"]
mod program;
mod refusals;
mod resume;

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use program::Folder;
use serde_json::Value;

/// Four pictures of 64 x 64 in `pictures/`, smooth so that the autoencoder's latents differ.
fn pictures(folder: &Folder) {
    fs::create_dir_all(folder.path("pictures")).expect("folder");
    for i in 0..4u32 {
        let pixel = |x: u32, y: u32| {
            let (a, b) = if i % 2 == 0 { (x, y) } else { (y, 63 - x) };
            Rgb([(a * 4) as u8, (b * 3 + i * 16) as u8, if (a / 8 + b / 8 + i) % 2 == 0 { 210 } else { 40 }])
        };
        RgbImage::from_fn(64, 64, pixel).save(folder.path(&format!("pictures/{i}.png"))).expect("writes");
    }
}

/// Writes `name`.toml: tiny networks, crops of 64 x 64, and `more`, which begins in the section `data`.
fn configuration(folder: &Folder, name: &str, more: &str) -> String {
    let path = folder.path(&format!("{name}.toml"));
    let pictures = folder.text("pictures");
    let text = format!(
        "[model]\npreset = \"tiny\"\n[data]\npictures = ['{pictures}']\nsize = 64\ncrop = \"centre\"\nworkers = 2\n{more}\n"
    );
    fs::write(&path, text).expect("writes");
    path.to_str().expect("utf-8").to_owned()
}

/// The lines of a run's log.
fn log(output: &Path) -> Vec<Value> {
    let text = fs::read_to_string(output.join("log.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A number of each line that has it.
fn column(lines: &[Value], key: &str) -> Vec<f64> {
    lines.iter().filter_map(|line| line[key].as_f64()).collect()
}
