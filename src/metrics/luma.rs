//! The channels that a metric looks at.

/// All three, or a luma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    Rgb,
    /// (65.481 R + 128.553 G + 24.966 B + 16) / 255: what papers on super-resolution mean by the Y channel
    Ycbcr,
    /// 0.299 R + 0.587 G + 0.114 B; about 1.3 dB lower in PSNR
    Yiq,
}

impl Channels {
    /// The values of [H, W, 3] pixels in these channels, in [0, 1].
    pub(super) fn of(self, pixels: &[f32]) -> Vec<f64> {
        let wide = |p: &[f32]| [f64::from(p[0]), f64::from(p[1]), f64::from(p[2])];
        let luma = |[a, b, c]: [f64; 3], offset: f64| {
            pixels.chunks_exact(3).map(wide).map(|[r, g, blue]| a * r + b * g + c * blue + offset).collect()
        };
        match self {
            Channels::Rgb => pixels.iter().map(|&v| f64::from(v)).collect(),
            Channels::Ycbcr => luma([65.481, 128.553, 24.966].map(|v| v / 255.0), 16.0 / 255.0),
            Channels::Yiq => luma([0.299, 0.587, 0.114], 0.0),
        }
    }
}
