//! Prompts by picture.

use std::fs;

use tasr::models::text::Tokenizer;
use tasr::weights::Checkpoint;

use crate::pictures::{parameters, write};
use crate::program::{Folder, tasr, tasr_ok};
use crate::weights::models;

#[test]
fn each_picture_takes_its_prompt_from_the_list() {
    let folder = Folder::new();
    write(&folder.path("a.png"), "rgb", 1);
    write(&folder.path("b.png"), "rgb", 2);
    let long = "a very long story ".repeat(40);
    let list = serde_json::json!([
        {"lr_image": "b.png", "response": "a red fox"},
        {"image": folder.text("a.png"), "prompt": long},
    ]);
    fs::write(folder.path("list.json"), list.to_string()).expect("writes");
    let (list, output, trace) =
        (folder.text("list.json"), folder.text("out"), folder.text("trace.safetensors"));
    let run = tasr_ok(&[
        "upscale",
        "--prompts",
        &list,
        "-o",
        &output,
        "--models",
        models(),
        "--steps",
        "1",
        "--batch",
        "2",
        "--trace",
        &trace,
        "--trace-keep",
        "tokens.cond",
    ]);
    assert_eq!(run.stderr.matches("longer than 75 tokens").count(), 1, "{run}");
    let made = |name: &str| parameters(&folder.path("out").join(name));
    assert_eq!(
        (&made("b.png")["prompt"], &made("b.png")["prompt_truncated"]),
        (&"a red fox".into(), &false.into())
    );
    assert_eq!(
        (&made("a.png")["prompt"], &made("a.png")["prompt_truncated"]),
        (&long.clone().into(), &true.into())
    );
    let file = Checkpoint::open(&folder.path("trace.safetensors")).expect("trace");
    let entry = file.require("tokens.cond").expect("tokens");
    assert_eq!(entry.shape(), [2, 77]);
    let ids: Vec<u32> =
        entry.bytes().expect("bytes").as_chunks().0.iter().map(|raw| u32::from_le_bytes(*raw)).collect();
    let tokenizer = Tokenizer::new();
    // In the order of the list.
    assert_eq!(ids[..77], tokenizer.encode("a red fox").ids);
    assert_eq!(ids[77..], tokenizer.encode(&long).ids);
}

#[test]
fn prompts_are_ignored_where_there_is_no_text_tower() {
    let folder = Folder::new();
    write(&folder.path("a.png"), "rgb", 3);
    let (picture, models) = (folder.text("a.png"), folder.text("models"));
    tasr_ok(&["synth", "--preset", "mini", "-q", "-o", &models]);
    let upscale = |name: &str, more: &[&str]| {
        let output = folder.text(name);
        let base = ["upscale", &picture, "-o", &output, "--models", &models, "--steps", "2"];
        let run = tasr_ok(&[&base[..], more].concat());
        let rows = image::open(&output).expect("opens").to_rgb8().into_raw();
        (run, rows, parameters(&folder.path(name)))
    };
    let (plain, rows, told) = upscale("plain.png", &[]);
    assert!(!plain.stderr.contains("prompts are ignored"), "{plain}");
    // Equal contexts: only the positive call is made, and that is what the picture says.
    assert_eq!(told["cfg"].as_f64(), Some(1.0), "{told}");
    let (asked, others, _) = upscale("asked.png", &["--prompt", "a red fox", "--cfg", "7"]);
    assert_eq!(asked.stderr.matches("prompts are ignored").count(), 1, "{asked}");
    assert!(rows == others, "a prompt changed the picture");
}

#[test]
fn damaged_lists_are_refused() {
    let folder = Folder::new();
    write(&folder.path("a.png"), "rgb", 1);
    let (list, output) = (folder.text("list.json"), folder.text("out"));
    for (text, message) in [
        ("[{\"image\": \"a.png\",\n \"prompt\": }]", "list.json: this is not JSON: expected value at line 2"),
        ("[{\"image\": \"a.png\"}]", "list.json: entry 1 has no text \"response\" or \"prompt\""),
        ("{\"image\": \"a.png\", \"prompt\": \"x\"}", "list.json: the JSON is not a list"),
        ("[{\"image\": \"b.png\", \"prompt\": \"x\"}]", "the image b.png of entry 1 is not there"),
        ("[]", "list.json: the list is empty"),
    ] {
        fs::write(folder.path("list.json"), text).expect("writes");
        let run = tasr(&["upscale", "--prompts", &list, "-o", &output]);
        assert!(run.code == 3 && run.stderr.contains(message), "{message}\n{run}");
        assert_eq!(run.stderr.lines().count(), 1, "{run}");
    }
    let gone = folder.text("gone.json");
    let run = tasr(&["upscale", "--prompts", &gone, "-o", &output]);
    assert!(run.code == 7 && run.stderr.contains("gone.json: cannot read the prompts"), "{run}");
}
