//! CLIP's RN50: a residual network with average pooling and an attention pool, batch norms folded into convolutions.

use super::ClipConfig;
use crate::error::{Error, Result};
use crate::models::config::HEAD_WIDTH;
use crate::nn::{Conv, Linear, Scope};
use crate::ops::attention::{Heads, attention};
use crate::ops::average_pool::average_pool;
use crate::ops::conv2d::{Conv2d, Padding};
use crate::ops::elementwise::{cast, pointwise};
use crate::ops::group_norm::Affine;
use crate::ops::tokens::{join_tokens, mean_token};
use crate::ops::{Activation, Cx, Segments};
use crate::tensor::{DType, Tensor};

const MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
const DEVIATION: [f32; 3] = [0.26862954, 0.261_302_6, 0.275_777_1];
/// Pixels to one feature of the last stage, along a side.
const FACTOR: usize = 32;

/// 1x1, 3x3, average pool, 1x1, and the input, projected where its size changes.
struct Bottleneck {
    conv1: Conv,
    conv2: Conv,
    conv3: Conv,
    shortcut: Option<Conv>,
    stride: usize,
}

impl Bottleneck {
    fn load(scope: &Scope, inputs: usize, planes: usize, stride: usize, first: bool) -> Result<Self> {
        let normed = |i: usize, inputs, outputs, kernel| {
            let (conv, norm) = (scope.sub(format!("conv{i}")), scope.sub(format!("bn{i}")));
            Conv::load_normed(&conv, &norm, inputs, outputs, kernel)
        };
        let shortcut = || {
            let (conv, norm) = (scope.sub("downsample.0"), scope.sub("downsample.1"));
            Conv::load_normed(&conv, &norm, inputs, 4 * planes, 1)
        };
        Ok(Bottleneck {
            conv1: normed(1, inputs, planes, 1)?,
            conv2: normed(2, planes, planes, 3)?,
            conv3: normed(3, planes, 4 * planes, 1)?,
            shortcut: first.then(shortcut).transpose()?,
            stride,
        })
    }

    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let pooled = |x: Tensor| if self.stride > 1 { average_pool(cx, &x, self.stride) } else { Ok(x) };
        let h = activated(cx, &self.conv1, x)?;
        let h = pooled(activated(cx, &self.conv2, &h)?)?;
        let identity = match &self.shortcut {
            None => x.clone(),
            Some(conv) => conv.forward(cx, &Conv2d::new(Segments::one(&pooled(x.clone())?)))?,
        };
        let end = self.conv3.epilogue().residual(&identity);
        let sum = self.conv3.forward_with(cx, &Conv2d::new(Segments::one(&h)), &end)?;
        pointwise(cx, &sum, Activation::Relu)
    }
}

fn activated(cx: &Cx, conv: &Conv, x: &Tensor) -> Result<Tensor> {
    conv.forward_with(cx, &Conv2d::new(Segments::one(x)), &conv.epilogue().activation(Activation::Relu))
}

/// The image tower.
pub struct ClipVisual {
    stem: [Conv; 3],
    stages: Vec<Bottleneck>,
    query: Linear,
    /// k | v
    key_value: Linear,
    out: Linear,
}

impl ClipVisual {
    /// Loads the tower of these sizes under `scope` (`visual.`).
    pub fn load(scope: &Scope, config: &ClipConfig) -> Result<Self> {
        let (half, width) = (config.width / 2, config.width);
        let stem = |i: usize, inputs, outputs| {
            let (conv, norm) = (scope.sub(format!("conv{i}")), scope.sub(format!("bn{i}")));
            Conv::load_normed(&conv, &norm, inputs, outputs, 3)
        };
        let mut stages = Vec::new();
        let mut inputs = width;
        for (stage, &count) in config.stages.iter().enumerate() {
            let planes = width << stage;
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let block = scope.sub(format!("layer{}.{i}", stage + 1));
                stages.push(Bottleneck::load(&block, inputs, planes, stride, i == 0)?);
                inputs = 4 * planes;
            }
        }
        let pool = scope.sub("attnpool");
        pool.unused("positional_embedding", &[config.positions, inputs]);
        Ok(ClipVisual {
            stem: [stem(1, 3, half)?, stem(2, half, half)?, stem(3, half, width)?],
            stages,
            query: Linear::load(&pool.sub("q_proj"), inputs, inputs)?,
            key_value: Linear::load_joined(&pool, &["k_proj", "v_proj"], inputs, inputs, &[], true)?,
            out: Linear::load(&pool.sub("c_proj"), inputs, config.features)?,
        })
    }

    /// image [N, H, W, 3] in [0, 1] -> f32 [N, features], not normalised. Any size from 32 x 32 on: nothing is resized
    /// and no position is added.
    ///
    /// # Errors
    /// A side below 32.
    pub fn forward(&self, cx: &Cx, image: &Tensor) -> Result<Tensor> {
        let [n, h, w, _] = image.nhwc()?;
        if h < FACTOR || w < FACTOR {
            return Err(Error::input(format!(
                "CLIP takes images of at least {FACTOR} pixels a side, not {w} x {h}"
            )));
        }
        let image = cast(cx, image, cx.dtype())?;
        let (scales, shifts) =
            (DEVIATION.map(|d| 1.0 / d), std::array::from_fn::<_, 3, _>(|i| -MEAN[i] / DEVIATION[i]));
        let coefficients = Tensor::from_f32(cx.device(), &[scales, shifts].concat().repeat(n), [n, 2, 3])?;
        let normed = Affine { coefficients, activation: Activation::None };
        let [first, rest @ ..] = &self.stem;
        let conv = Conv2d::new(Segments::one(&image)).prologue(&normed).stride(2, Padding::Same);
        let mut x = first.forward_with(cx, &conv, &first.epilogue().activation(Activation::Relu))?;
        for conv in rest {
            x = activated(cx, conv, &x)?;
        }
        x = average_pool(cx, &x, 2)?;
        for block in &self.stages {
            x = block.forward(cx, &x)?;
        }
        let features = cast(cx, &self.pool(cx, &x)?, DType::F32)?;
        let width = features.shape().last();
        features.reshape([n, width])
    }

    /// The attention pool [N, H, W, C] -> [N, 1, features]: the mean asks, and it and all pixels answer.
    fn pool(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let [n, h, w, c] = x.nhwc()?;
        let pixels = x.reshape([n, h * w, c])?;
        let mean = mean_token(cx, &pixels)?;
        let tokens = join_tokens(cx, &mean, &pixels)?;
        let (q, kv) = (self.query.forward(cx, &mean)?, self.key_value.forward(cx, &tokens)?);
        let operands = (Heads::new(&q, 0), Heads::new(&kv, 0), Heads::new(&kv, c));
        self.out.forward(cx, &attention(cx, operands, c / HEAD_WIDTH, HEAD_WIDTH, false)?)
    }
}
