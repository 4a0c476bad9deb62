//! Values of flags that clap has no parser for. An error is the end of a sentence that names value and flag.

use crate::sampler::sizes::{LATENT_CELL, PAD_MULTIPLE};

/// Tiles of the diffusion model or of stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileChoice {
    /// As memory demands.
    Auto,
    Off,
    Pixels(usize),
}

pub fn tile(text: &str) -> Result<TileChoice, String> {
    match text {
        "auto" => Ok(TileChoice::Auto),
        "0" => Ok(TileChoice::Off),
        _ => multiple(text, PAD_MULTIPLE, "give auto, 0 for no tiles, or a size such as 512")
            .map(TileChoice::Pixels),
    }
}

pub fn stage1_tile(text: &str) -> Result<TileChoice, String> {
    match text {
        "auto" => Ok(TileChoice::Auto),
        "0" => Ok(TileChoice::Off),
        _ => multiple(text, 1, "give auto, 0 for no tiles, or a size such as 256").map(TileChoice::Pixels),
    }
}

pub fn stride(text: &str) -> Result<usize, String> {
    multiple(text, LATENT_CELL, "half the tile is a good stride")
}

fn multiple(text: &str, of: usize, advice: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(pixels) if pixels > 0 && pixels.is_multiple_of(of) => Ok(pixels),
        Ok(_) => Err(format!("not a positive multiple of {of}; {advice}")),
        Err(_) => Err(format!("not a number of pixels; {advice}")),
    }
}

/// A number of things, at least one.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a whole number from 1 on".to_owned()),
        Ok(count) => Ok(count),
    }
}

pub fn finite(text: &str) -> Result<f64, String> {
    // What is beyond f32 would become infinite in the networks.
    text.parse::<f64>().ok().filter(|x| (*x as f32).is_finite()).ok_or_else(|| "not a number".to_owned())
}

pub fn positive(text: &str) -> Result<f64, String> {
    finite(text)
        .ok()
        .filter(|x| *x > 0.0)
        .ok_or_else(|| "not a positive number; give a factor such as 4".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_multiples_of_64() {
        assert_eq!(tile("auto"), Ok(TileChoice::Auto));
        assert_eq!(tile("0"), Ok(TileChoice::Off));
        assert_eq!(tile("512"), Ok(TileChoice::Pixels(512)));
        assert!(["500", "-64", "", "12x", "99999999999999999999"].iter().all(|text| tile(text).is_err()));
        assert!(stride("8").is_ok() && stride("0").is_err() && stride("12").is_err());
    }

    #[test]
    fn numbers_have_their_ranges() {
        assert!(count("1").is_ok() && count("0").is_err() && count("-1").is_err() && count("1.5").is_err());
        assert_eq!(finite("-1.5"), Ok(-1.5));
        assert!(["nan", "inf", "1e39", "x"].iter().all(|text| finite(text).is_err()));
        assert!(positive("0").is_err() && positive("-4").is_err() && positive("4.3").is_ok());
    }
}
