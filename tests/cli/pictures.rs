//! Pictures for the program to read, and what it wrote.

use std::path::Path;

use image::{ColorType, DynamicImage, GenericImageView, ImageBuffer, ImageReader};

/// Side of the test pictures: results of 64, computed at 512.
pub const SIDE: u32 = 16;

/// A grey picture that differs with `seed`.
fn grey(seed: u32) -> impl Fn(u32, u32) -> u8 {
    move |x, y| ((x * 13 + y * 7 + seed * 31) % 200 + 20) as u8
}

/// Writes the same grey picture in a kind of file: "grey", "rgb", "deep" (16 bits), "alpha" (half transparent), at
/// `path`, whose extension names the format.
pub fn write(path: &Path, kind: &str, seed: u32) {
    let value = grey(seed);
    let picture: DynamicImage = match kind {
        "grey" => ImageBuffer::from_fn(SIDE, SIDE, |x, y| image::Luma([value(x, y)])).into(),
        "rgb" => ImageBuffer::from_fn(SIDE, SIDE, |x, y| image::Rgb([value(x, y); 3])).into(),
        "deep" => {
            ImageBuffer::from_fn(SIDE, SIDE, |x, y| image::Rgb([u16::from(value(x, y)) * 257; 3])).into()
        }
        "alpha" => ImageBuffer::from_fn(SIDE, SIDE, |x, y| {
            let v = value(x, y);
            image::Rgba([v, v, v, alpha(x)])
        })
        .into(),
        other => panic!("no kind {other}"),
    };
    picture.save(path).expect("picture");
}

/// Transparency of a column: never wholly transparent, so that no colour is invented.
pub fn alpha(x: u32) -> u8 {
    if x < SIDE / 2 { 255 } else { 100 }
}

/// The picture at `path`, whatever it is called.
pub fn read(path: &Path) -> DynamicImage {
    let reader = ImageReader::open(path).expect("opens").with_guessed_format().expect("format");
    reader.decode().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Its colour bytes.
pub fn rgb(path: &Path) -> Vec<u8> {
    read(path).to_rgb8().into_raw()
}

#[track_caller]
pub fn check_kind(path: &Path, colour: ColorType, side: u32) {
    let picture = read(path);
    assert_eq!((picture.color(), picture.dimensions()), (colour, (side, side)), "{}", path.display());
}

/// The text entries of a PNG.
pub fn png_text(path: &Path) -> Vec<(String, String)> {
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).expect("opens")));
    let reader = decoder.read_info().expect("png");
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter().map(|t| (t.keyword.clone(), t.text.clone()));
    let wide = info.utf8_text.iter().map(|t| (t.keyword.clone(), t.get_text().expect("text")));
    plain.chain(wide).collect()
}

/// The parameters that a PNG carries as JSON.
pub fn parameters(path: &Path) -> serde_json::Value {
    let text = png_text(path);
    let (_, json) = text.iter().find(|(key, _)| key == "tasr").expect("parameters");
    serde_json::from_str(json).expect("json")
}
