//! From a picture of any size to the square that is trained on.

use super::Random;
use super::image::Image;
use super::resize::{Antialiased, resize_bytes};

/// Which part of a picture is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// Anywhere; pictures that are too small are mirrored at their right and lower edges.
    #[default]
    Random,
    /// The middle, padded likewise.
    Centre,
    /// As the published configuration: halved while the short side is twice the square or more, resized so that it
    /// fits the square, then the middle.
    Fit,
}

impl Crop {
    /// The square of `size` pixels.
    pub fn apply(self, image: &Image, size: usize, random: &mut Random) -> Image {
        match self {
            Crop::Random => {
                let mut corner = |side: usize| random.index(side.max(size) - size + 1);
                let corner = (corner(image.height), corner(image.width));
                image.window(corner, (size, size))
            }
            Crop::Centre => centre(image, size),
            Crop::Fit => fit(image, size),
        }
    }
}

fn centre(image: &Image, size: usize) -> Image {
    let corner = |side: usize| (side.max(size) - size) / 2;
    image.window((corner(image.height), corner(image.width)), (size, size))
}

fn fit(image: &Image, size: usize) -> Image {
    if (image.height, image.width) == (size, size) {
        return image.clone();
    }
    let mut image = image.clone();
    while image.height.min(image.width) >= 2 * size {
        image = resize_bytes(&image, (image.height / 2, image.width / 2), Antialiased::Box);
    }
    let factor = size as f64 / image.height.min(image.width) as f64;
    let sized = |side: usize| ((side as f64 * factor).round_ties_even() as usize).max(size);
    image = resize_bytes(&image, (sized(image.height), sized(image.width)), Antialiased::Bicubic);
    centre(&image, size)
}
