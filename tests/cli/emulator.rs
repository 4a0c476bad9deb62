//! `--device emulator`: the same picture as on the CPU.

use std::path::Path;
use std::process::Command;

use crate::pictures::{self, parameters, rgb};
use crate::program::Folder;
use crate::weights::write_narrow;

/// Runs the program; what it said.
fn upscale(folder: &Folder, output: &Path, device: &str, dtype: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tasr"));
    // The build without the checks, which the kernels have passed in tests of their own.
    command.env("TASR_EMULATOR_CHECK", "0");
    command.args(["upscale", &folder.text("small.png"), "-o"]).arg(output);
    // Without guidance, and few steps: most of the time goes to 512 x 512 pixels in the autoencoder.
    command.args(["--models", &folder.text("models"), "--steps", "2", "--cfg", "1", "--json"]);
    let done = command.args(["--device", device, "--dtype", dtype]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{device} {dtype}: {said}");
    said
}

/// Peak signal to noise ratio of two pictures of bytes, in dB.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    -10.0 * (squares / a.len() as f64 / 255f64.powi(2)).log10()
}

#[test]
fn a_photo_comes_out_as_on_the_cpu() {
    let folder = Folder::new();
    write_narrow(1, &folder.path("models"));
    pictures::write(&folder.path("small.png"), "rgb", 3);
    let said = upscale(&folder, &folder.path("cpu.png"), "cpu", "auto");
    assert!(said.contains("computing on the CPU") && said.contains("in f32"), "{said}");
    let output = folder.path("emulator.png");
    let said = upscale(&folder, &output, "emulator", "f32");
    assert!(said.contains("computing on kernel emulator (emulator) in f32"), "{said}");
    // Bytes are cut, not rounded: a difference in the last bit of f32 may move one by 1.
    let ratio = psnr(&rgb(&output), &rgb(&folder.path("cpu.png")));
    assert!(ratio >= 65.0, "{ratio:.1} dB");
    let told = parameters(&output);
    assert_eq!((&told["device"], &told["dtype"]), (&"emulator".into(), &"f32".into()));
}
