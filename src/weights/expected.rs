//! The tensor names that a network of given sizes has. The sizes are read off the tensors present, so
//! that a file with gaps tells what is missing.
//!
//! All names are canonical and bare (without the network's prefix).

use super::checkpoint::Checkpoint;
use super::names::{count_of, number_after, unet};
use crate::nn::Variant;

/// Names under construction.
struct Names(Vec<String>);

impl Names {
    /// A layer with weight and bias.
    fn layer(&mut self, name: &str) {
        self.0.push(format!("{name}.weight"));
        self.0.push(format!("{name}.bias"));
    }

    fn layers(&mut self, base: &str, names: &[&str]) {
        for name in names {
            self.layer(&format!("{base}.{name}"));
        }
    }

    /// The 1x1 convolution beside a residual block, where the width changes.
    fn shortcut(&mut self, file: &Checkpoint, block: &str, first_conv: &str, shortcut: &str) {
        let shape = file.get(&format!("{block}.{first_conv}.weight")).map(|entry| entry.shape());
        if let Some([outputs, inputs, ..]) = shape
            && outputs != inputs
        {
            self.layer(&format!("{block}.{shortcut}"));
        }
    }

    /// A residual block of UNet or ControlNet.
    fn residual(&mut self, file: &Checkpoint, block: &str) {
        self.layers(block, &["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"]);
        self.shortcut(file, block, "in_layers.2", "skip_connection");
    }

    /// A spatial transformer of depth 1.
    fn transformer(&mut self, base: &str) {
        self.layers(base, &["norm", "proj_in", "proj_out"]);
        let block = format!("{base}.transformer_blocks.0");
        for attention in ["attn1", "attn2"] {
            for matrix in ["to_q", "to_k", "to_v"] {
                self.0.push(format!("{block}.{attention}.{matrix}.weight"));
            }
            self.layer(&format!("{block}.{attention}.to_out.0"));
        }
        self.layers(&block, &["ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"]);
    }

    /// A residual block of the autoencoder.
    fn vae_residual(&mut self, file: &Checkpoint, block: &str) {
        self.layers(block, &["norm1", "conv1", "norm2", "conv2"]);
        self.shortcut(file, block, "conv1", "nin_shortcut");
    }
}

/// The encoder and middle that UNet and ControlNet share; (names, levels, blocks a level).
fn unet_encoder(file: &Checkpoint) -> (Names, usize, usize) {
    let mut names = Names(Vec::new());
    let blocks = unet::blocks_of_ldm(file).max(1);
    let last = count_of(file.names(), |name| number_after(name, "input_blocks."));
    let levels = last.saturating_sub(1).div_ceil(blocks + 1).max(1);
    names.layers("time_embed", &["0", "2"]);
    names.layer("input_blocks.0.0");
    for level in 0..levels {
        let first = 1 + level * (blocks + 1);
        let attends = (first..first + blocks).any(|i| file.has_prefix(&format!("input_blocks.{i}.1.")));
        for i in first..first + blocks {
            names.residual(file, &format!("input_blocks.{i}.0"));
            if attends {
                names.transformer(&format!("input_blocks.{i}.1"));
            }
        }
        if level + 1 < levels {
            names.layer(&format!("input_blocks.{}.0.op", first + blocks));
        }
    }
    names.residual(file, "middle_block.0");
    names.transformer("middle_block.1");
    names.residual(file, "middle_block.2");
    (names, levels, blocks)
}

/// UNet.
pub(crate) fn unet(file: &Checkpoint) -> Vec<String> {
    let (mut names, levels, blocks) = unet_encoder(file);
    for level in 0..levels {
        let first = level * (blocks + 1);
        // Level 0 of the decoder is the deepest; it attends where the encoder does.
        let down = 1 + (levels - 1 - level) * (blocks + 1);
        let attends = (down..down + blocks).any(|i| file.has_prefix(&format!("input_blocks.{i}.1.")));
        for i in first..=first + blocks {
            names.residual(file, &format!("output_blocks.{i}.0"));
            if attends {
                names.transformer(&format!("output_blocks.{i}.1"));
            }
        }
        if level + 1 < levels {
            let slot = if attends { 2 } else { 1 };
            names.layer(&format!("output_blocks.{}.{slot}.conv", first + blocks));
        }
    }
    names.layers("out", &["0", "2"]);
    names.0
}

/// ControlNet.
pub(crate) fn controlnet(file: &Checkpoint) -> Vec<String> {
    let (mut names, levels, blocks) = unet_encoder(file);
    for i in 0..levels * (blocks + 1) {
        names.layer(&format!("zero_convs.{i}.0"));
    }
    names.layer("middle_block_out.0");
    names.0
}

/// Adapters, as many as the ControlNet beside them has residuals (13 in the published network).
pub(crate) fn adapter(file: &Checkpoint, variant: Variant, count: usize) -> Vec<String> {
    let mut names = Names(Vec::new());
    let count = count.max(count_of(file.names(), |name| number_after(name, "")));
    for i in 0..count {
        names.layers(&format!("{i}.0"), variant.layers());
    }
    names.0
}

/// Autoencoder.
pub(crate) fn vae(file: &Checkpoint) -> Vec<String> {
    let mut names = Names(Vec::new());
    let levels_of = |before: &str| count_of(file.names(), |name| number_after(name, before));
    let levels = levels_of("encoder.down.").max(levels_of("decoder.up.")).max(1);
    // An encoder may have none where its decoder has one; without either, one block stands for those that are missing.
    let blocks = match (levels_of("encoder.down.0.block."), levels_of("decoder.up.0.block.")) {
        (0, 0) => 1,
        (encoder, decoder) => encoder.max(decoder.saturating_sub(1)),
    };
    names.layer("quant_conv");
    names.layer("post_quant_conv");
    for side in ["encoder", "decoder"] {
        names.layers(side, &["conv_in", "norm_out", "conv_out"]);
        names.vae_residual(file, &format!("{side}.mid.block_1"));
        names.layers(&format!("{side}.mid.attn_1"), &["norm", "q", "k", "v", "proj_out"]);
        names.vae_residual(file, &format!("{side}.mid.block_2"));
    }
    for level in 0..levels {
        for i in 0..blocks {
            names.vae_residual(file, &format!("encoder.down.{level}.block.{i}"));
        }
        for i in 0..=blocks {
            names.vae_residual(file, &format!("decoder.up.{level}.block.{i}"));
        }
        if level + 1 < levels {
            names.layer(&format!("encoder.down.{level}.downsample.conv"));
        }
        if level > 0 {
            names.layer(&format!("decoder.up.{level}.upsample.conv"));
        }
    }
    names.0
}

/// Text tower. The projection and logit scale of a whole OpenCLIP tower are not needed.
pub(crate) fn text(file: &Checkpoint) -> Vec<String> {
    let mut names = Names(vec!["positional_embedding".into(), "token_embedding.weight".into()]);
    names.layer("ln_final");
    for i in 0..count_of(file.names(), |name| number_after(name, "transformer.resblocks.")).max(1) {
        let block = format!("transformer.resblocks.{i}");
        names.0.push(format!("{block}.attn.in_proj_weight"));
        names.0.push(format!("{block}.attn.in_proj_bias"));
        names.layers(&block, &["attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj"]);
    }
    names.0
}

/// RRDBNet, old names.
pub(crate) fn rrdbnet(file: &Checkpoint) -> Vec<String> {
    let mut names = Names(Vec::new());
    for layer in ["conv_first", "trunk_conv", "upconv1", "upconv2", "HRconv", "conv_last"] {
        names.layer(layer);
    }
    for block in 0..count_of(file.names(), |name| number_after(name, "RRDB_trunk.")).max(1) {
        for dense in 1..=3 {
            for conv in 1..=5 {
                names.layer(&format!("RRDB_trunk.{block}.RDB{dense}.conv{conv}"));
            }
        }
    }
    names.0
}
