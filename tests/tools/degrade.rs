//! `tasr degrade`: pairs of pictures, the same bytes for the same seed, and what cannot be done.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};

use crate::program::{Folder, Run, tasr, tasr_ok};

fn write(path: &Path, (width, height): (u32, u32), phase: u32) {
    let pixel = |x: u32, y: u32| {
        Rgb([
            (x * 5 + phase * 40) as u8,
            (y * 6) as u8,
            if (x / 7 + y / 5 + phase).is_multiple_of(2) { 200 } else { 30 },
        ])
    };
    RgbImage::from_fn(width, height, pixel).save(path).expect("writes");
}

/// `in/` with pictures of 50 x 41, 64 x 48 and 30 x 30.
fn folder() -> Folder {
    let folder = Folder::new();
    fs::create_dir_all(folder.path("in")).expect("folder");
    for (i, size) in [(50, 41), (64, 48), (30, 30)].into_iter().enumerate() {
        write(&folder.path(&format!("in/{i}.png")), size, i as u32);
    }
    folder
}

fn degrade(folder: &Folder, out: &str, more: &[&str]) -> Run {
    let (input, out) = (folder.text("in"), folder.text(out));
    tasr_ok(&[&["degrade", &input, "-o", &out], more].concat())
}

fn sizes(folder: &Folder, name: &str) -> Vec<(u32, u32)> {
    (0..3)
        .map(|i| image::image_dimensions(folder.path(&format!("{name}/{i}.png"))).expect("picture"))
        .collect()
}

fn bytes(folder: &Folder, name: &str) -> Vec<Vec<u8>> {
    (0..3).map(|i| fs::read(folder.path(&format!("{name}/{i}.png"))).expect("reads")).collect()
}

#[test]
fn pairs_have_the_sizes_asked_for_and_seeds_repeat() {
    let folder = folder();
    let hr = folder.text("hr");
    let args = ["--recipe", "realesrgan", "--seed", "5", "--hr-out", &hr];
    let run = degrade(&folder, "lr", &[&args[..], &["--json"]].concat());
    assert_eq!(run.stdout.matches("\"written\"").count(), 4, "{run}");
    assert_eq!(sizes(&folder, "lr"), [(12, 10), (16, 12), (7, 7)]);
    assert_eq!(sizes(&folder, "hr"), [(48, 40), (64, 48), (28, 28)]);

    degrade(&folder, "again", &["--recipe", "realesrgan", "--seed", "5", "--threads", "1", "-q"]);
    assert!(bytes(&folder, "again") == bytes(&folder, "lr"), "threads or company change the pictures");
    degrade(&folder, "other", &["--recipe", "realesrgan", "--seed", "6", "-q"]);
    assert!(bytes(&folder, "other").iter().zip(bytes(&folder, "lr")).all(|(a, b)| *a != b));
    let (input, single) = (folder.text("in/1.png"), folder.text("single.png"));
    tasr_ok(&["degrade", &input, "-o", &single, "--recipe", "realesrgan", "--seed", "5", "-q"]);
    assert!(fs::read(&single).expect("reads") == bytes(&folder, "lr")[1]);

    let hr = folder.text("squares");
    let square = ["--size", "32", "--scale", "2", "--flip", "--hr-out", &hr];
    degrade(&folder, "small", &[&["--recipe", "realesrgan-mild"], &square[..]].concat());
    assert_eq!((sizes(&folder, "small"), sizes(&folder, "squares")), (vec![(16, 16); 3], vec![(32, 32); 3]));
    degrade(&folder, "full", &["--recipe", "codeformer", "--size", "24", "--crop", "fit"]);
    assert_eq!(sizes(&folder, "full"), [(24, 24); 3]);
}

#[test]
fn finished_pictures_are_kept_until_they_are_to_be_replaced() {
    let folder = folder();
    let args = ["--recipe", "codeformer"];
    degrade(&folder, "lr", &args);
    fs::remove_file(folder.path("lr/1.png")).expect("removes");
    fs::write(folder.path("lr/0.png"), "kept").expect("writes");
    let run = degrade(&folder, "lr", &args);
    assert_eq!((run.stderr.matches("skipped").count(), run.stderr.matches(" -> ").count()), (2, 1), "{run}");
    assert_eq!(fs::read(folder.path("lr/0.png")).expect("reads"), b"kept");
    degrade(&folder, "lr", &[&args[..], &["--overwrite", "-q"]].concat());
    assert_eq!(sizes(&folder, "lr"), [(50, 41), (64, 48), (30, 30)]);
    let left: Vec<_> = fs::read_dir(folder.path("lr")).expect("lists").collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn what_cannot_be_done_is_one_sentence() {
    let folder = folder();
    let (input, out) = (folder.text("in"), folder.text("lr"));
    let fails = |more: &[&str], code: i32, part: &str| {
        let run = tasr(&[&["degrade", &input, "-o", &out], more].concat());
        assert!(run.code == code && run.stderr.contains(part), "{part}: {run}");
        assert!(run.stderr.starts_with("tasr: error: ") && run.stderr.lines().count() == 1, "{run}");
    };
    fails(&[], 2, "--recipe");
    fails(&["--recipe", "bicubic"], 2, "bicubic");
    fails(&["--recipe", "codeformer", "--scale", "4"], 2, "--scale");
    fails(&["--recipe", "realesrgan", "--size", "30"], 2, "--size");
    fails(&["--recipe", "realesrgan", "--scale", "0"], 2, "--scale");
    fails(&["--recipe", "realesrgan", "--seed=-1"], 2, "--seed");
    fails(&["--recipe", "realesrgan", "--hr-out", &out], 2, "target");
    fails(&["--recipe", "realesrgan", "gone.png"], 7, "gone.png");

    // One broken picture of several: the others are done.
    fs::write(folder.path("in/3.png"), "no picture").expect("writes");
    let run = tasr(&["degrade", &input, "-o", &out, "--recipe", "realesrgan"]);
    assert!(run.code == 3 && run.stderr.contains("3.png"), "{run}");
    assert!(run.stderr.ends_with("tasr: error: 1 of 4 pictures failed; 3 were written\n"), "{run}");
    assert_eq!(sizes(&folder, "lr"), [(12, 10), (16, 12), (7, 7)]);
    let alone = tasr(&["degrade", &folder.text("in/3.png"), "-o", &out, "--recipe", "realesrgan"]);
    assert!(alone.code == 3 && alone.stderr.lines().count() == 1, "{alone}");
    // Smaller than one pixel of the result.
    write(&folder.path("tiny.png"), (3, 9), 0);
    let tiny = tasr(&["degrade", &folder.text("tiny.png"), "-o", &out, "--recipe", "realesrgan"]);
    assert!(tiny.code == 3 && tiny.stderr.contains("4 times smaller"), "{tiny}");
}

/// Ctrl-C in the middle: what is finished stays whole, and the same command does the rest.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_whole_pictures() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let folder = Folder::new();
    fs::create_dir(folder.path("in")).expect("folder");
    (0..24).for_each(|i| write(&folder.path(&format!("in/{i}.png")), (240, 240), i));
    let (input, out) = (folder.text("in"), folder.text("lr"));
    let args = ["degrade", &input, "-o", &out, "--recipe", "codeformer", "--threads", "1"];
    let mut child = Command::new(env!("CARGO_BIN_EXE_tasr"))
        .args(args)
        .arg("--json")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    lines.next().expect("a picture").expect("utf-8");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill").success());
    let told = lines.count();
    assert_eq!(told, child_rest(&folder), "one line a picture after the first, and the summary");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    let run = tasr_ok(&args);
    assert!(run.stderr.contains("skipped"), "{run}");
    assert_eq!(fs::read_dir(folder.path("lr")).expect("lists").count(), 24);
}

/// Lines that the interrupted run still prints: one for each picture after the first, and the summary.
#[cfg(unix)]
fn child_rest(folder: &Folder) -> usize {
    let names = fs::read_dir(folder.path("lr")).expect("lists").map(|e| e.expect("entry").file_name());
    let names: Vec<_> = names.collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{names:?}");
    assert!(names.len() < 24, "the run was over before it was stopped");
    names.len()
}
