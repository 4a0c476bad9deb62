//! Sizes of the networks: read off tensor shapes, or one of three presets.

use crate::error::{Error, Result};
use crate::nn::Scope;

/// Width of one attention head in UNet, ControlNet and text tower.
pub const HEAD_WIDTH: usize = 64;

/// Sizes of UNet and ControlNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenoiserConfig {
    /// base width
    pub channels: usize,
    /// width of each level, finest first
    pub widths: Vec<usize>,
    /// residual blocks of an encoder level; the decoder has one more
    pub blocks: usize,
    /// which levels have transformers
    pub attention: Vec<bool>,
    /// width of the text features
    pub context: usize,
    /// channels of the latent
    pub latent: usize,
}

impl DenoiserConfig {
    /// Stable Diffusion 2.1, or the small network of the tests.
    fn preset(channels: usize, context: usize) -> Self {
        DenoiserConfig {
            channels,
            widths: [1, 2, 4, 4].map(|m| m * channels).to_vec(),
            blocks: 2,
            attention: vec![true, true, true, false],
            context,
            latent: 4,
        }
    }

    /// Reads the sizes of the encoder under `scope`; `copies` is how many latents enter it (the
    /// ControlNet takes two).
    ///
    /// # Errors
    /// The first convolution is missing: this is no such network.
    pub fn infer(scope: &Scope, copies: usize) -> Result<Self> {
        let stem = scope.shape("input_blocks.0.0.weight");
        let (channels, latent) = match stem.as_deref() {
            Some(&[o, i, 3, 3]) if i % copies == 0 && o > 0 => (o, i / copies),
            _ => {
                return Err(Error::weights(
                    "there is no input_blocks.0.0.weight of an SD 2.1 UNet or ControlNet",
                ));
            }
        };
        let (mut widths, mut attention, mut counts) = (vec![channels], vec![false], vec![0]);
        let mut context = None;
        // 40 blocks are more than any network of the family has; holes in between are reported on loading.
        for i in 1..40 {
            let block = scope.sub(format!("input_blocks.{i}"));
            let level = widths.len() - 1;
            if block.shape("0.op.weight").is_some() {
                widths.push(widths[level]);
                attention.push(false);
                counts.push(0);
                continue;
            }
            let outputs =
                block.shape("0.out_layers.3.weight").or_else(|| block.shape("0.in_layers.2.weight"));
            if let Some(&[o, ..]) = outputs.as_deref() {
                widths[level] = o;
                counts[level] += 1;
            }
            if let Some(&[_, width]) = block.shape("1.transformer_blocks.0.attn2.to_k.weight").as_deref() {
                attention[level] = true;
                context = Some(width);
            }
        }
        let blocks = counts.iter().copied().max().unwrap_or(0);
        let middle = || match scope.shape("middle_block.1.transformer_blocks.0.attn2.to_k.weight").as_deref()
        {
            Some(&[_, width]) => Some(width),
            _ => None,
        };
        let context = context.or_else(middle).ok_or_else(|| {
            Error::weights("no cross-attention was found: this is not an SD 2.1 UNet or ControlNet")
        })?;
        if blocks == 0 || widths.iter().any(|w| w % 32 != 0) {
            return Err(Error::weights(format!("the levels {widths:?} are not those of an SD 2.1 network")));
        }
        Ok(DenoiserConfig { channels, widths, blocks, attention, context, latent })
    }

    /// True for the two finest levels. Their images are large and even (latents are multiples of 8) and their
    /// weights few: where Winograd's algorithm gains most.
    pub fn is_large(level: usize) -> bool {
        level < 2
    }

    /// Width of the time embedding.
    pub fn embedding(&self) -> usize {
        4 * self.channels
    }

    /// Widths of the encoder's outputs, finest first: what the decoder's skips carry.
    pub fn skips(&self) -> Vec<usize> {
        let mut skips = vec![self.channels];
        for (level, &width) in self.widths.iter().enumerate() {
            skips.extend(std::iter::repeat_n(width, self.blocks));
            if level + 1 < self.widths.len() {
                skips.push(width);
            }
        }
        skips
    }

    /// (decoder width, skip width) met by each output block.
    pub fn joins(&self) -> Vec<(usize, usize)> {
        let mut skips = self.skips();
        let mut width = self.middle();
        let mut joins = Vec::new();
        for &level in self.widths.iter().rev() {
            for _ in 0..=self.blocks {
                joins.push((width, skips.pop().unwrap_or(level)));
                width = level;
            }
        }
        joins
    }

    /// Width of the middle block.
    pub fn middle(&self) -> usize {
        self.widths.last().copied().unwrap_or(self.channels)
    }
}

/// Sizes of the autoencoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaeConfig {
    /// width of each level, finest first
    pub widths: Vec<usize>,
    /// residual blocks of an encoder level, which may be none where all widths are equal; the decoder has one more
    pub blocks: usize,
    pub latent: usize,
}

impl VaeConfig {
    fn preset(channels: usize) -> Self {
        VaeConfig { widths: [1, 2, 4, 4].map(|m| m * channels).to_vec(), blocks: 2, latent: 4 }
    }

    /// Reads the sizes of the autoencoder under `scope`.
    ///
    /// # Errors
    /// There is no such network.
    pub fn infer(scope: &Scope) -> Result<Self> {
        // Of the decoder, which has a block where the encoder may have none.
        let first = |level: usize, block: usize| {
            scope.shape(&format!("decoder.up.{level}.block.{block}.conv2.weight"))
        };
        let widths: Vec<usize> = (0..8).map_while(|level| first(level, 0)).map(|shape| shape[0]).collect();
        let blocks = (0..8).take_while(|&block| first(0, block).is_some()).count().saturating_sub(1);
        let latent = match scope.shape("post_quant_conv.weight").as_deref() {
            Some(&[o, ..]) => o,
            _ => 4,
        };
        let uneven = blocks == 0 && widths.windows(2).any(|pair| pair[0] != pair[1]);
        if widths.is_empty() || uneven || widths.iter().any(|w| w % 32 != 0) {
            return Err(Error::weights("no autoencoder like that of SD 2.1 was found"));
        }
        Ok(VaeConfig { widths, blocks, latent })
    }
}

/// Sizes of the text tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextConfig {
    pub width: usize,
    /// blocks of the checkpoint, the last of which is never run
    pub layers: usize,
    pub vocabulary: usize,
    pub length: usize,
    /// columns of the projection that is in the checkpoint and unused; none in diffusers' files
    pub projection: Option<usize>,
}

impl TextConfig {
    fn preset(width: usize, layers: usize, projection: usize) -> Self {
        TextConfig { width, layers, vocabulary: 49408, length: 77, projection: Some(projection) }
    }

    /// Reads the sizes of the text tower under `scope`. Diffusers' files lack the unused last block: they
    /// have no projection either, and then every block is run.
    ///
    /// # Errors
    /// There is no such network.
    pub fn infer(scope: &Scope) -> Result<Self> {
        let missing = || Error::weights("no OpenCLIP text tower was found");
        let (vocabulary, width) = match scope.shape("token_embedding.weight").as_deref() {
            Some(&[v, d]) if d % HEAD_WIDTH == 0 && d > 0 => (v, d),
            _ => return Err(missing()),
        };
        let length = match scope.shape("positional_embedding").as_deref() {
            Some(&[l, _]) => l,
            _ => return Err(missing()),
        };
        let block = |i: usize| scope.shape(&format!("transformer.resblocks.{i}.ln_1.weight")).is_some();
        // The highest block, so that a hole in between is reported as missing and not taken for the end.
        let layers = (0..64).rev().find(|&i| block(i)).map_or(0, |last| last + 1);
        let projection = scope.shape("text_projection").map(|shape| shape.last().copied().unwrap_or(width));
        if layers == 0 {
            return Err(missing());
        }
        Ok(TextConfig { width, layers, vocabulary, length, projection })
    }

    /// Blocks that are run: all but the last of an OpenCLIP file.
    pub fn run(&self) -> usize {
        self.layers - usize::from(self.projection.is_some())
    }
}

/// What the denoiser is conditioned on besides the picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conditioning {
    /// Prompts, read by a text tower.
    Text(TextConfig),
    /// One row of this width, whatever the prompt: a system that was trained without text.
    Empty(usize),
}

impl Conditioning {
    /// Reads under `scope` (`cond_stage_model.`) which it is, and its sizes.
    ///
    /// # Errors
    /// There is neither.
    pub fn infer(scope: &Scope) -> Result<Self> {
        match scope.shape("empty").as_deref() {
            Some(&[1, width]) => Ok(Conditioning::Empty(width)),
            _ => TextConfig::infer(&scope.sub("model")).map(Conditioning::Text),
        }
    }

    /// Rows of the features of a prompt.
    pub fn length(&self) -> usize {
        match self {
            Conditioning::Text(config) => config.length,
            Conditioning::Empty(_) => 1,
        }
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        match self {
            Conditioning::Text(config) => config.width,
            Conditioning::Empty(width) => *width,
        }
    }
}

/// Sizes of the stage-1 network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RrdbConfig {
    pub features: usize,
    pub blocks: usize,
    pub growth: usize,
}

impl RrdbConfig {
    /// Reads the sizes of the RRDBNet under `scope`.
    ///
    /// # Errors
    /// There is no such network, or one of another scale.
    pub fn infer(scope: &Scope) -> Result<Self> {
        let missing = || Error::weights("no RRDBNet was found");
        let features = match scope.shape("conv_first.weight").as_deref() {
            Some(&[o, 3, 3, 3]) => o,
            Some(shape) => {
                return Err(Error::weights(format!(
                    "conv_first.weight is {shape:?}, expected [features, 3, 3, 3]"
                ))
                .fix("give an RRDBNet of scale 4 (BSRNet, BSRGAN, RealESRGAN_x4plus)"));
            }
            None => return Err(missing()),
        };
        let growth = match scope.shape("RRDB_trunk.0.RDB1.conv1.weight").as_deref() {
            Some(&[o, ..]) => o,
            _ => return Err(missing()),
        };
        let block = |i: usize| scope.shape(&format!("RRDB_trunk.{i}.RDB1.conv1.weight")).is_some();
        let blocks = (0..256).rev().find(|&i| block(i)).map_or(0, |last| last + 1);
        Ok(RrdbConfig { features, blocks, growth })
    }
}

/// Sizes of the SwinIR that cleans training data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwinConfig {
    pub width: usize,
    pub heads: usize,
    /// side of a window
    pub window: usize,
    /// width of the perceptrons
    pub hidden: usize,
    pub groups: usize,
    /// blocks of a group
    pub blocks: usize,
    /// width of the layers that enlarge
    pub features: usize,
}

impl Default for SwinConfig {
    /// `swinir_codeformer`.
    fn default() -> Self {
        SwinConfig { width: 180, heads: 6, window: 8, hidden: 360, groups: 8, blocks: 6, features: 64 }
    }
}

impl SwinConfig {
    /// Reads the sizes of the SwinIR under `scope`.
    ///
    /// # Errors
    /// There is no such network.
    pub fn infer(scope: &Scope) -> Result<Self> {
        let block = |i: usize, j: usize| format!("layers.{i}.residual_group.blocks.{j}");
        let has = |i: usize, j: usize| scope.shape(&format!("{}.norm1.weight", block(i, j))).is_some();
        let sizes = |name: &str| scope.shape(&format!("{}.{name}", block(0, 0)));
        let (table, hidden) = (sizes("attn.relative_position_bias_table"), sizes("mlp.fc1.weight"));
        let features = scope.shape("conv_before_upsample.0.weight");
        let (Some(&[places, heads]), Some(&[hidden, width]), Some(&[features, ..])) =
            (table.as_deref(), hidden.as_deref(), features.as_deref())
        else {
            return Err(Error::weights("no SwinIR of an image restorer was found")
                .fix("give general_swinir_v1.ckpt or another swinir_codeformer"));
        };
        let window = places.isqrt().div_ceil(2);
        if heads == 0 || width % heads != 0 || (2 * window).saturating_sub(1).pow(2) != places {
            return Err(Error::weights(format!(
                "{heads} heads, {places} positions and width {width} make no SwinIR"
            )));
        }
        // The highest, so that a hole in between is reported as missing and not taken for the end.
        let groups = (0..64).rev().find(|&i| has(i, 0)).map_or(0, |last| last + 1);
        let blocks = (0..64).rev().find(|&j| has(0, j)).map_or(0, |last| last + 1);
        Ok(SwinConfig { width, heads, window, hidden, groups, blocks, features })
    }
}

/// Sizes of the whole system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemConfig {
    pub denoiser: DenoiserConfig,
    pub vae: VaeConfig,
    pub text: Conditioning,
    pub rrdb: RrdbConfig,
}

impl SystemConfig {
    /// `sd21`, the published size; `mini`, the size that is trained from nothing in minutes, without text; or `tiny`,
    /// the size of the tests.
    ///
    /// # Errors
    /// Another name.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "sd21" => Ok(SystemConfig {
                denoiser: DenoiserConfig::preset(320, 1024),
                vae: VaeConfig::preset(128),
                text: Conditioning::Text(TextConfig::preset(1024, 24, 1024)),
                rrdb: RrdbConfig { features: 64, blocks: 23, growth: 32 },
            }),
            "tiny" => Ok(SystemConfig {
                denoiser: DenoiserConfig::preset(64, 128),
                vae: VaeConfig::preset(32),
                text: Conditioning::Text(TextConfig::preset(128, 3, 128)),
                rrdb: RrdbConfig { features: 16, blocks: 2, growth: 8 },
            }),
            // Sixteen channels of latent, since few widths must keep what four did. Where 32 groups of a norm are one
            // channel each, no picture's brightness gets through: 64 is the least width of the autoencoder. Its encoder
            // is lean, since every stage of the training but the first encodes more than it decodes.
            "mini" => Ok(SystemConfig {
                denoiser: DenoiserConfig {
                    channels: 64,
                    widths: vec![64; 3],
                    blocks: 2,
                    attention: vec![false, false, true],
                    context: 64,
                    latent: 16,
                },
                vae: VaeConfig { widths: vec![64; 4], blocks: 0, latent: 16 },
                text: Conditioning::Empty(64),
                rrdb: RrdbConfig { features: 32, blocks: 6, growth: 16 },
            }),
            _ => Err(Error::usage(format!("unknown preset '{name}'"))
                .at("--preset")
                .fix("give mini, tiny or sd21")),
        }
    }
}
