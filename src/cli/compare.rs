//! `tasr compare`: how close pictures are to an original.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::error::{Error, Result};
use crate::image::{Picture, decode, network_colour};
use crate::metrics::{Channels, gradient_energy, psnr, ssim};
use crate::ops::resize::resize_bicubic_host;

const EXAMPLES: &str = "\
Examples:
  tasr compare --with original.png upscaled.png
  tasr compare --with original.png low.png stage1.png upscaled.png --json

PSNR and SSIM are computed on luma (Y of YCbCr), as papers on super-resolution do. The gradient energy, the mean of
squared differences between neighbours of luma, is given as a share of the original's: below 1 there is less detail than
there was, above 1 more.";

/// Compare pictures with an original: PSNR, SSIM and gradient energy
///
/// A picture that is smaller than the original is enlarged bicubically first: the usual baseline.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Pictures to judge
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The original
    #[arg(long, value_name = "IMAGE")]
    with: PathBuf,
    /// Print a JSON line for each picture
    #[arg(long)]
    json: bool,
}

/// What a picture is worth.
struct Judged {
    psnr: f64,
    ssim: f64,
    /// of the picture, and of the original
    energy: [f64; 2],
    enlarged: bool,
}

/// Runs the command.
///
/// # Errors
/// Pictures that cannot be read, are larger than the original, or are too small for SSIM.
pub fn run(args: &Args) -> Result<()> {
    let original = decode(&args.with)?;
    let wanted = network_colour(&original);
    let size = (original.height, original.width);
    let own = gradient_energy(&wanted, size, Channels::Ycbcr).map_err(|e| e.at(told(&args.with)))?;
    if !args.json {
        println!("PSNR-Y dB   SSIM-Y   gradient energy");
    }
    for path in &args.images {
        let found = judged(&decode(path)?, &wanted, size, own).map_err(|e| e.at(told(path)))?;
        let Judged { psnr, ssim, energy: [energy, original], enlarged } = found;
        let share = energy / original;
        match args.json {
            true => println!(
                "{}",
                json!({"image": told(path), "original": told(&args.with), "bicubic": enlarged,
                    "psnr_y": rounded(psnr), "ssim_y": rounded(ssim), "gradient_energy": energy,
                    "gradient_energy_of_original": original})
            ),
            false => println!(
                "{psnr:9.2}   {ssim:6.4}   {share:15.3}   {}{}",
                told(path),
                if enlarged { ", enlarged bicubically" } else { "" }
            ),
        }
    }
    Ok(())
}

fn told(path: &Path) -> String {
    path.display().to_string()
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Compares `picture` with the colours `wanted` of an original of size `(h, w)` and gradient energy `own`.
fn judged(picture: &Picture, wanted: &[f32], (h, w): (usize, usize), own: f64) -> Result<Judged> {
    let colour = network_colour(picture);
    let enlarged = (picture.height, picture.width) != (h, w);
    if picture.height > h || picture.width > w {
        return Err(Error::input(format!(
            "{} x {} pixels cannot be compared with an original of {w} x {h}",
            picture.width, picture.height
        )));
    }
    let colour = match enlarged {
        false => colour.into_owned(),
        true => {
            let large = resize_bicubic_host(&colour, [1, picture.height, picture.width, 3], h, w);
            // As a file would have them, rounded to bytes.
            large.into_iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() / 255.0).collect()
        }
    };
    Ok(Judged {
        psnr: psnr(&colour, wanted, Channels::Ycbcr)?,
        ssim: ssim(&colour, wanted, (h, w), Channels::Ycbcr)?,
        energy: [gradient_energy(&colour, (h, w), Channels::Ycbcr)?, own],
        enlarged,
    })
}
