//! Lets the program carry the mini system where its weights lie in assets/mini.

use std::fmt::Write;

use crate::Places;

/// Stable Diffusion, TASR, stage 1: the order of everything that takes three files.
const FILES: [&str; 3] = ["sd", "tasr", "stage1"];

/// Writes `mini.rs`: the bytes of the files, or nothing where one of them is absent.
pub fn write(places: &Places) -> Result<(), String> {
    // Of the folder above, which is there: what is not there would be built anew each time.
    println!("cargo::rerun-if-changed=assets");
    let paths = FILES.map(|name| places.root.join("assets/mini").join(format!("{name}.safetensors")));
    let mut text = String::from("/// The mini system's files: Stable Diffusion, TASR, stage 1.\n");
    match paths.iter().all(|path| path.is_file()) {
        true => {
            text.push_str("static FILES: Option<[&[u8]; 3]> = Some([\n");
            for path in &paths {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "    include_bytes!({:?}),", path.display().to_string());
            }
            text.push_str("]);\n");
        }
        false => text.push_str("static FILES: Option<[&[u8]; 3]> = None;\n"),
    }
    let out = places.out.join("mini.rs");
    std::fs::write(&out, text).map_err(|e| format!("{}: {e}", out.display()))
}
