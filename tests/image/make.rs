//! Picture files made in memory, and the samples that they hold.

use image::codecs::{bmp::BmpEncoder, jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use image::{ExtendedColorType as Colour, ImageEncoder};
use std::io::Cursor;
use tasr::image::Format;
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::Tag;

pub const WIDTH: u32 = 7;
pub const HEIGHT: u32 = 5;

/// A small seeded generator (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Distinct samples `[HEIGHT, WIDTH, channels]` of the given depth.
pub fn samples(channels: usize, bits: u8) -> Vec<u16> {
    let mut random = Random(channels as u64 * 100 + u64::from(bits));
    (0..WIDTH as usize * HEIGHT as usize * channels).map(|_| (random.next() >> (64 - bits)) as u16).collect()
}

fn native(samples: &[u16], bits: u8) -> Vec<u8> {
    match bits {
        8 => samples.iter().map(|&v| v as u8).collect(),
        _ => samples.iter().flat_map(|v| v.to_ne_bytes()).collect(),
    }
}

fn colour(channels: usize, bits: u8) -> Colour {
    match (channels, bits) {
        (1, 8) => Colour::L8,
        (2, 8) => Colour::La8,
        (3, 8) => Colour::Rgb8,
        (4, 8) => Colour::Rgba8,
        (1, 16) => Colour::L16,
        (2, 16) => Colour::La16,
        (3, 16) => Colour::Rgb16,
        (4, 16) => Colour::Rgba16,
        other => panic!("no such kind: {other:?}"),
    }
}

/// A file of WIDTH x HEIGHT pixels with `samples`, and metadata where the format's encoder writes it.
pub fn file(
    format: Format,
    samples: &[u16],
    channels: usize,
    bits: u8,
    icc: Option<&[u8]>,
    exif: Option<&[u8]>,
) -> Vec<u8> {
    fn write(mut e: impl ImageEncoder, data: &[u8], c: Colour, icc: Option<&[u8]>, exif: Option<&[u8]>) {
        if let Some(icc) = icc {
            e.set_icc_profile(icc.to_vec()).unwrap();
        }
        if let Some(exif) = exif {
            e.set_exif_metadata(exif.to_vec()).unwrap();
        }
        e.write_image(data, WIDTH, HEIGHT, c).unwrap();
    }
    let (data, c) = (native(samples, bits), colour(channels, bits));
    let mut out = Vec::new();
    match format {
        Format::Png => write(PngEncoder::new(&mut out), &data, c, icc, exif),
        Format::Jpeg => write(JpegEncoder::new_with_quality(&mut out, 100), &data, c, icc, exif),
        Format::WebP => write(WebPEncoder::new_lossless(&mut out), &data, c, icc, exif),
        Format::Bmp => write(BmpEncoder::new(&mut out), &data, c, icc, exif),
        Format::Tiff => return tiff_file(samples, channels, bits, icc, 1),
    }
    out
}

/// A TIFF file, whose orientation is a tag of its own.
pub fn tiff_file(
    samples: &[u16],
    channels: usize,
    bits: u8,
    icc: Option<&[u8]>,
    orientation: u16,
) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    let eight: Vec<u8> = samples.iter().map(|&v| v as u8).collect();
    macro_rules! page {
        ($kind:ty, $data:expr) => {{
            let mut page = encoder.new_image::<$kind>(WIDTH, HEIGHT).unwrap();
            page.encoder().write_tag(Tag::Orientation, orientation).unwrap();
            if let Some(icc) = icc {
                page.encoder().write_tag(Tag::IccProfile, icc).unwrap();
            }
            page.write_data($data).unwrap();
        }};
    }
    match (channels, bits) {
        (1, 8) => page!(colortype::Gray8, &eight),
        (3, 8) => page!(colortype::RGB8, &eight),
        (4, 8) => page!(colortype::RGBA8, &eight),
        (1, 16) => page!(colortype::Gray16, samples),
        (3, 16) => page!(colortype::RGB16, samples),
        (4, 16) => page!(colortype::RGBA16, samples),
        other => panic!("no such TIFF: {other:?}"),
    }
    file.into_inner()
}

/// A profile of the given size and colour space with a sound header.
pub fn profile(bytes: usize, space: &[u8; 4]) -> Vec<u8> {
    let mut icc: Vec<u8> = (0..bytes).map(|i| (i * 7) as u8).collect();
    icc[16..20].copy_from_slice(space);
    icc[36..40].copy_from_slice(b"acsp");
    icc
}

/// An EXIF block that holds nothing but the orientation.
pub fn exif(orientation: u8) -> Vec<u8> {
    let mut block = b"MM\0*\0\0\0\x08\0\x01".to_vec();
    block.extend([1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0]);
    block.extend([0; 4]);
    block
}

/// `value / most` as NumPy and PyTorch give it: divided in `f64`, rounded to `f32`.
pub fn scaled(value: u16, bits: u8) -> f32 {
    (f64::from(value) / if bits == 8 { 255.0 } else { 65535.0 }) as f32
}
