//! Degradations: each stage against values of independent implementations (fixtures/degrade/make.py), the
//! distributions of what is drawn, and that the same seed gives the same bytes.

mod distributions;
mod recipes;
mod stages;

use std::path::Path;

use tasr::train::degrade::Image;
use tasr::weights::Checkpoint;

/// The fixture's tensor `name`.
fn stored(name: &str) -> (Vec<usize>, Vec<f32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/degrade/stages.safetensors");
    let file = Checkpoint::open(&path).expect("opens");
    let shape = file.require(name).expect("is there").shape().to_vec();
    let mut values = vec![0.0; shape.iter().product()];
    file.read_f32(name, &mut values).expect("reads");
    (shape, values)
}

/// The fixture's photo, 52 x 43.
fn photo() -> Image {
    let (shape, values) = stored("image");
    Image::new(shape[0], shape[1], values).expect("a picture")
}

/// Values that differ from the fixture's by more than `tolerance`.
#[track_caller]
fn check(name: &str, found: &Image, tolerance: f32) {
    let (shape, expected) = stored(name);
    assert_eq!([found.height, found.width, 3], shape[..], "{name}");
    close(name, &found.values, &expected, tolerance);
}

#[track_caller]
fn close(name: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        // Written so that NaN fails.
        let near = (f - e).abs() <= tolerance;
        assert!(near, "{name}: {f} for {e} at {i}");
    }
}
