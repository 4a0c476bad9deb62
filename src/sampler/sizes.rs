//! Which size the image has at each stage.
//!
//! The official program counts with Python numbers: products in f64, cut towards zero. The same is done here, so
//! that a size such as 45 x 1.4 = 62.999... is 62 in both.

use crate::error::{Error, Result};

/// Stage 1 always enlarges by this factor.
pub const STAGE1_SCALE: usize = 4;
/// The diffusion model runs on images whose shorter side is at least this many pixels.
pub const WORKING_SHORT_EDGE: usize = 512;
/// Working images are padded right and below to a multiple of this: three halvings of a latent that is an eighth.
pub const PAD_MULTIPLE: usize = 64;
/// Pixels along one side of a latent element.
pub const LATENT_CELL: usize = 8;
/// No side of any stage may be longer; it keeps every product of sizes far inside 64 bits.
pub const LONGEST_SIDE: usize = 1 << 20;

/// Height and width in pixels.
pub type Size = [usize; 2];

/// The sizes of one image on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The input.
    pub low: Size,
    /// What stage 1 gives: four times the input.
    pub stage1: Size,
    /// What the diffusion model refines: stage 1 resized to the final size, or to a shorter side of 512 if the
    /// final size is below that.
    pub working: Size,
    /// `working` rounded up to multiples of 64.
    pub padded: Size,
    /// What is written: the input times the scale, cut to whole pixels.
    pub finished: Size,
}

impl Sizes {
    /// # Errors
    /// A usage error when the scale is not a positive number or leaves less than a pixel; an input error when the
    /// image is empty, or some stage would have a side of more than 2^20 pixels (a large scale, or a strip whose
    /// short side has to grow to 512).
    pub fn new(low: Size, scale: f64) -> Result<Sizes> {
        Sizes::with_short_edge(low, scale, WORKING_SHORT_EDGE)
    }

    /// As [`Sizes::new`] with another least shorter side of the working image.
    ///
    /// # Errors
    /// As [`Sizes::new`].
    pub fn with_short_edge(low: Size, scale: f64, short_edge: usize) -> Result<Sizes> {
        if low.contains(&0) {
            return Err(Error::input(format!("the image is empty: {} pixels", show(low))));
        }
        let finished = final_size(low, scale)?;
        let stage1 = bounded(low.map(|side| side as f64 * STAGE1_SCALE as f64), "stage 1's output")?;
        let working = if finished[0].min(finished[1]) < short_edge {
            short_edge_size(stage1, short_edge)?
        } else {
            finished
        };
        Ok(Sizes { low, stage1, working, padded: working.map(pad), finished })
    }

    /// Height and width of the working image's latent.
    pub fn latent(&self) -> Size {
        self.padded.map(|side| side / LATENT_CELL)
    }
}

/// The input's size times the scale, each side cut to whole pixels.
///
/// # Errors
/// As [`Sizes::new`].
pub fn final_size(low: Size, scale: f64) -> Result<Size> {
    if !(scale.is_finite() && scale > 0.0) {
        return Err(Error::usage(format!("{scale} is not a factor to enlarge by"))
            .at("--scale")
            .fix("give a positive number such as 4"));
    }
    let size = bounded(low.map(|side| side as f64 * scale), "the result")?;
    if size.contains(&0) {
        return Err(Error::usage(format!("{scale} times {} pixels leaves no pixel", show(low)))
            .at("--scale")
            .fix("give a larger number"));
    }
    Ok(size)
}

/// `size` with its shorter side set to `short_edge` and the longer one in proportion, cut to whole pixels.
///
/// # Errors
/// An input error when the longer side exceeds 2^20 pixels.
pub fn short_edge_size(size: Size, short_edge: usize) -> Result<Size> {
    let [h, w] = size.map(|side| side as f64);
    let edge = short_edge as f64;
    // The quotient comes first and is rounded, as in the official code: 588 * (512 / 196) is cut to 1535, not 1536.
    let sides = if h == w {
        [edge, edge]
    } else if h < w {
        [edge, w * (edge / h)]
    } else {
        [h * (edge / w), edge]
    };
    bounded(sides, &format!("the working image, whose shorter side must be {short_edge},"))
}

/// The next multiple of 64.
pub fn pad(side: usize) -> usize {
    side.next_multiple_of(PAD_MULTIPLE)
}

fn bounded(sides: [f64; 2], what: &str) -> Result<Size> {
    if sides.iter().all(|side| *side <= LONGEST_SIDE as f64) {
        return Ok(sides.map(|side| side as usize));
    }
    Err(Error::input(format!("{what} would have {:.0} x {:.0} pixels", sides[1], sides[0]))
        .fix(format!("crop the image or lower --scale; a side may have {LONGEST_SIDE} pixels")))
}

fn show([h, w]: Size) -> String {
    format!("{w} x {h}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// Values computed with Python.
    #[test]
    fn final_sizes_are_cut_as_python_cuts() {
        for (low, scale, expected) in [
            ([71, 49], 4.3, [305, 210]),
            ([37, 53], 4.3, [159, 227]),
            ([128, 128], 4.0, [512, 512]),
            ([45, 50], 1.4, [62, 70]),    // 45 * 1.4 is a little below 63
            ([50, 100], 2.3, [114, 229]), // 50 * 2.3 is a little below 115
        ] {
            assert_eq!(final_size(low, scale).unwrap(), expected, "{low:?} * {scale}");
        }
    }

    #[test]
    fn short_edges_as_in_python() {
        assert_eq!(short_edge_size([37, 53], 48).unwrap(), [48, 68]);
        assert_eq!(short_edge_size([284, 196], 512).unwrap(), [741, 512]);
        assert_eq!(short_edge_size([148, 212], 512).unwrap(), [512, 733]);
        assert_eq!(short_edge_size([40, 40], 512).unwrap(), [512, 512]);
        // 588 * (512 / 196) is exactly 1536, and 1535.999... in f64.
        assert_eq!(short_edge_size([588, 196], 512).unwrap(), [1535, 512]);
    }

    #[test]
    fn small_results_work_at_512() {
        let sizes = Sizes::new([71, 49], 4.3).unwrap();
        assert_eq!(sizes.stage1, [284, 196]);
        assert_eq!(sizes.finished, [305, 210]);
        assert_eq!(sizes.working, [741, 512]);
        assert_eq!(sizes.padded, [768, 512]);
        assert_eq!(sizes.latent(), [96, 64]);
    }

    #[test]
    fn large_results_work_at_their_own_size() {
        let sizes = Sizes::new([200, 130], 4.3).unwrap();
        assert_eq!(sizes.finished, [860, 559]);
        assert_eq!(sizes.working, sizes.finished);
        assert_eq!(sizes.padded, [896, 576]);
        assert_eq!(Sizes::new([128, 300], 4.0).unwrap().working, [512, 1200]);
    }

    #[test]
    fn a_shrinking_scale_still_works_at_512() {
        let sizes = Sizes::new([100, 100], 0.5).unwrap();
        assert_eq!((sizes.finished, sizes.working), ([50, 50], [512, 512]));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for scale in [0.0, -4.0, f64::NAN, f64::INFINITY, 1e-9] {
            let error = Sizes::new([64, 64], scale).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().starts_with("--scale: "), "{error}");
        }
        for (low, scale) in [([0, 5], 4.0), ([64, 64], 1e12), ([1, 100_000], 4.0), ([usize::MAX, 64], 4.0)] {
            assert_eq!(Sizes::new(low, scale).unwrap_err().kind(), Kind::Input, "{low:?} * {scale}");
        }
    }
}
