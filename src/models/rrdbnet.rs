//! Stage 1: the RRDBNet x4 that removes degradations (BSRNet, BSRGAN, Real-ESRGAN x4plus).

use super::config::RrdbConfig;
use crate::error::Result;
use crate::nn::{Conv, Layer, Scope, Visit, layers};
use crate::ops::conv2d::Conv2d;
use crate::ops::elementwise::{cast, combine};
use crate::ops::{Activation, Cx, Segments};
use crate::tensor::{DType, Tensor};

const LEAKY: Activation = Activation::LeakyRelu(0.2);

/// Five convolutions, each seeing all earlier outputs.
struct DenseBlock([Conv; 5]);

impl DenseBlock {
    fn load(scope: &Scope, config: &RrdbConfig) -> Result<Self> {
        let conv = |i: usize| {
            let outputs = if i < 5 { config.growth } else { config.features };
            Conv::load(&scope.sub(format!("conv{i}")), config.features + (i - 1) * config.growth, outputs, 3)
        };
        Ok(DenseBlock([conv(1)?, conv(2)?, conv(3)?, conv(4)?, conv(5)?]))
    }

    /// x + 0.2 * conv5(everything)
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let mut seen = vec![x.clone()];
        let (last, growing) =
            self.0.split_last().ok_or_else(|| crate::error::Error::internal("no convolutions"))?;
        for conv in growing {
            let input = Segments::cat(&seen.iter().collect::<Vec<_>>());
            seen.push(conv.forward_with(cx, &Conv2d::new(input), &conv.epilogue().activation(LEAKY))?);
        }
        let input = Segments::cat(&seen.iter().collect::<Vec<_>>());
        last.forward_with(cx, &Conv2d::new(input), &last.epilogue().scale(0.2).residual(x))
    }
}

impl Layer for DenseBlock {
    fn visit(&mut self, visit: Visit) -> Result<()> {
        self.0.visit(visit)
    }
}

layers! {
    RrdbNet { conv_first, trunk, trunk_conv, upconv1, upconv2, hr_conv, conv_last }
}

/// The stage-1 network.
pub struct RrdbNet {
    conv_first: Conv,
    trunk: Vec<[DenseBlock; 3]>,
    trunk_conv: Conv,
    upconv1: Conv,
    upconv2: Conv,
    hr_conv: Conv,
    conv_last: Conv,
}

impl RrdbNet {
    /// It always enlarges by this.
    pub const SCALE: usize = 4;

    /// Loads the network of these sizes under `scope`, in the old naming.
    pub fn load(scope: &Scope, config: &RrdbConfig) -> Result<Self> {
        let f = config.features;
        let same = |name: &str| Conv::load(&scope.sub(name), f, f, 3);
        let dense =
            |i: usize, k: usize| DenseBlock::load(&scope.sub(format!("RRDB_trunk.{i}.RDB{k}")), config);
        Ok(RrdbNet {
            conv_first: Conv::load(&scope.sub("conv_first"), 3, f, 3)?,
            trunk: (0..config.blocks)
                .map(|i| Ok([dense(i, 1)?, dense(i, 2)?, dense(i, 3)?]))
                .collect::<Result<_>>()?,
            trunk_conv: same("trunk_conv")?,
            upconv1: same("upconv1")?,
            upconv2: same("upconv2")?,
            hr_conv: same("HRconv")?,
            conv_last: Conv::load(&scope.sub("conv_last"), f, 3, 3)?,
        })
    }

    /// image [N, H, W, 3] in [0, 1] -> f32 [N, 4H, 4W, 3], not clamped
    pub fn forward(&self, cx: &Cx, image: &Tensor) -> Result<Tensor> {
        let image = cast(cx, image, cx.dtype())?;
        let first = self.conv_first.forward(cx, &Conv2d::new(Segments::one(&image)))?;
        let mut h = first.clone();
        for blocks in &self.trunk {
            let mut inner = h.clone();
            for block in blocks {
                inner = block.forward(cx, &inner)?;
            }
            h = combine(cx, &[(1.0, &h), (0.2, &inner)], 0.0)?;
        }
        let trunk = Conv2d::new(Segments::one(&h));
        let mut h = self.trunk_conv.forward_with(cx, &trunk, &self.trunk_conv.epilogue().residual(&first))?;
        for conv in [&self.upconv1, &self.upconv2] {
            let input = Conv2d::new(Segments::one(&h)).upsample();
            h = conv.forward_with(cx, &input, &conv.epilogue().activation(LEAKY))?;
        }
        let end = self.hr_conv.epilogue().activation(LEAKY);
        let h = self.hr_conv.forward_with(cx, &Conv2d::new(Segments::one(&h)), &end)?;
        cast(cx, &self.conv_last.forward(cx, &Conv2d::new(Segments::one(&h)))?, DType::F32)
    }
}
