//! A folder of many kinds of pictures: batches, failures, skipping.

use std::fs;

use image::{ColorType, GenericImageView};
use serde_json::Value;

use crate::pictures::{SIDE, alpha, check_kind, parameters, read, rgb, write};
use crate::program::{Folder, tasr, tasr_ok};
use crate::weights::models;

const RESULT: u32 = SIDE * 4;

#[test]
fn a_folder_in_batches_gives_what_single_runs_give_and_reports_the_broken_file() {
    let folder = Folder::new();
    fs::create_dir(folder.path("in")).expect("folder");
    write(&folder.path("in/a.PNG"), "rgb", 1);
    write(&folder.path("in/b.png"), "grey", 1);
    write(&folder.path("in/c.png"), "deep", 1);
    write(&folder.path("in/d.png"), "alpha", 1);
    write(&folder.path("in/f.bmp"), "rgb", 2);
    let whole = fs::read(folder.path("in/a.PNG")).expect("reads");
    fs::write(folder.path("in/e.png"), &whole[..whole.len() / 2]).expect("writes");
    let (input, output) = (folder.text("in"), folder.text("out"));
    let command =
        ["upscale", &input, "-o", &output, "--models", models(), "--steps", "1", "--batch", "2", "--json"];
    let run = tasr(&command);
    assert_eq!(run.code, 3, "{run}");
    assert!(run.stderr.ends_with("tasr: error: 1 of 6 pictures failed; 5 were written\n"), "{run}");
    let lines: Vec<Value> = run.stdout.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let status = |status: &str| lines.iter().filter(|line| line["status"] == status).count();
    assert_eq!((lines.len(), status("written"), status("failed")), (7, 5, 1), "{run}");
    let failed = lines.iter().find(|line| line["status"] == "failed").expect("one");
    let error = failed["error"].as_str().expect("text");
    assert!(error.contains("e.png") && error.contains("damaged"), "{run}");

    // One grey picture in four kinds of file is one picture: content seeds the noise.
    let result = |name: &str| folder.path("out").join(name);
    let first = rgb(&result("a.png"));
    check_kind(&result("a.png"), ColorType::Rgb8, RESULT);
    for name in ["b.png", "c.png"] {
        check_kind(&result(name), ColorType::Rgb8, RESULT);
        assert!(rgb(&result(name)) == first, "{name} differs from a.png");
    }
    check_kind(&result("d.png"), ColorType::Rgba8, RESULT);
    assert!(rgb(&result("d.png")) == first, "the colour of d.png differs");
    let transparent = read(&result("d.png"));
    for (x, expected) in [(2, alpha(0)), (RESULT - 3, alpha(SIDE - 1))] {
        assert_eq!(transparent.get_pixel(x, 9).0[3], expected, "alpha at {x}");
    }
    check_kind(&result("f.bmp"), ColorType::Rgb8, RESULT);
    assert!(rgb(&result("f.bmp")) != first);
    assert!(first.iter().any(|&byte| byte != first[0]), "the result is one colour");

    // The same picture on its own, in another place, in no batch, with one thread.
    let (single, alone) = (folder.text("in/f.bmp"), folder.text("alone.png"));
    tasr_ok(&[
        "upscale",
        &single,
        "-o",
        &alone,
        "--models",
        models(),
        "--steps",
        "1",
        "--threads",
        "1",
        "-q",
    ]);
    assert!(rgb(&folder.path("alone.png")) == rgb(&result("f.bmp")), "batch and threads change the result");
    assert_eq!(parameters(&folder.path("alone.png"))["seed"], 231);

    // Finished outputs stay, and the weights are not even looked for when nothing is to do.
    fs::remove_file(folder.path("in/e.png")).expect("removes");
    let before = fs::metadata(result("a.png")).expect("there").modified().expect("time");
    let again = tasr_ok(&["upscale", &input, "-o", &output, "--models", "no/such/folder"]);
    assert_eq!(again.stdout, "", "{again}");
    assert_eq!(again.stderr.matches("skipped").count(), 5, "{again}");
    assert_eq!(fs::metadata(result("a.png")).expect("there").modified().expect("time"), before);

    // --overwrite does look for them.
    let anew = tasr(&["upscale", &input, "-o", &output, "--models", "no/such/folder", "--overwrite"]);
    assert_eq!(anew.code, 4, "{anew}");
}
