//! UNet and ControlNet: LDM names and those of diffusers, both ways.
//!
//! LDM numbers the blocks through, diffusers by level: with R residual blocks a level, input block
//! i >= 1 is level (i-1) / (R+1), block (i-1) % (R+1), where block R is the downsampler; output block
//! i is level i / (R+1), block i % (R+1). R is read off the names.

use super::super::checkpoint::Checkpoint;
use super::{Place, count_of, index, number_after, rename};
use crate::error::Result;

/// Parts of a residual block: (LDM, diffusers).
const RESIDUAL: [(&str, &str); 6] = [
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

/// Parts outside the blocks: (LDM, diffusers).
const OUTER: [(&str, &str); 6] = [
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
    ("middle_block_out.0", "controlnet_mid_block"),
];

/// Whether the bare names are those of a diffusers UNet or ControlNet.
pub(crate) fn is_diffusers(file: &Checkpoint) -> bool {
    file.contains("conv_in.weight") && file.has_prefix("down_blocks.0.resnets.0.time_emb_proj.")
}

/// Whether diffusers names are those of a ControlNet.
pub(crate) fn is_controlnet(file: &Checkpoint) -> bool {
    file.has_prefix("controlnet_down_blocks.")
}

/// Diffusers names to LDM names under `prefix`.
pub(crate) fn to_ldm(file: &Checkpoint, prefix: &str) -> Result<Checkpoint> {
    let resnet = |name: &str| {
        let (_, block) = name.strip_prefix("down_blocks.")?.split_once(".resnets.")?;
        index(block.split('.').next()?)
    };
    let blocks = count_of(file.names(), resnet);
    let attends = |level: usize| file.has_prefix(&format!("up_blocks.{level}.attentions."));
    rename(file, |name| match ldm_name(name, blocks, attends) {
        Some(ldm) => Place::Name(format!("{prefix}{ldm}")),
        None => Place::Unknown,
    })
}

/// Bare LDM names to those of diffusers.
pub(crate) fn to_diffusers(file: &Checkpoint) -> Result<Checkpoint> {
    let blocks = blocks_of_ldm(file);
    rename(file, |name| diffusers_name(name, blocks).map_or(Place::Unknown, Place::Name))
}

/// Residual blocks a level, from bare LDM names: the first downsampler follows them.
pub(crate) fn blocks_of_ldm(file: &Checkpoint) -> usize {
    let downsampler = |name: &str| {
        let at = number_after(name, "input_blocks.")?;
        name.contains(".0.op.").then_some(at)
    };
    match file.names().filter_map(downsampler).min() {
        Some(first) => first.saturating_sub(1),
        None => count_of(file.names(), |name| number_after(name, "input_blocks.")).saturating_sub(1),
    }
}

fn ldm_name(name: &str, blocks: usize, attends: impl Fn(usize) -> bool) -> Option<String> {
    for (ldm, diffusers) in OUTER {
        if let Some(rest) = within(name, diffusers) {
            return Some(format!("{ldm}.{rest}"));
        }
    }
    let (head, rest) = name.split_once('.')?;
    let stride = blocks + 1;
    match head {
        "controlnet_down_blocks" => {
            let (i, rest) = numbered(rest)?;
            Some(format!("zero_convs.{i}.0.{rest}"))
        }
        "mid_block" => {
            let (part, rest) = rest.split_once('.')?;
            let (i, rest) = numbered(rest)?;
            match part {
                "resnets" if i < 2 => Some(format!("middle_block.{}.{}", 2 * i, residual_to_ldm(rest)?)),
                "attentions" if i == 0 => Some(format!("middle_block.1.{rest}")),
                _ => None,
            }
        }
        "down_blocks" | "up_blocks" => {
            let (level, rest) = numbered(rest)?;
            let (part, rest) = rest.split_once('.')?;
            let (i, rest) = numbered(rest)?;
            let down = head == "down_blocks";
            let side = if down { "input_blocks" } else { "output_blocks" };
            let at = level * stride + i + usize::from(down);
            match part {
                "resnets" => Some(format!("{side}.{at}.0.{}", residual_to_ldm(rest)?)),
                "attentions" => Some(format!("{side}.{at}.1.{rest}")),
                "downsamplers" if down && i == 0 => {
                    Some(format!("{side}.{}.0.op.{}", at + blocks, within(rest, "conv")?))
                }
                "upsamplers" if !down && i == 0 => {
                    let slot = if attends(level) { 2 } else { 1 };
                    Some(format!("{side}.{}.{slot}.conv.{}", at + blocks, within(rest, "conv")?))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn diffusers_name(name: &str, blocks: usize) -> Option<String> {
    for (ldm, diffusers) in OUTER {
        if let Some(rest) = within(name, ldm) {
            return Some(format!("{diffusers}.{rest}"));
        }
    }
    let (head, rest) = name.split_once('.')?;
    let stride = blocks + 1;
    let (at, rest) = numbered(rest)?;
    match head {
        "zero_convs" => Some(format!("controlnet_down_blocks.{at}.{}", within(rest, "0")?)),
        "middle_block" => match at {
            0 | 2 => Some(format!("mid_block.resnets.{}.{}", at / 2, residual_to_diffusers(rest)?)),
            1 => Some(format!("mid_block.attentions.0.{rest}")),
            _ => None,
        },
        "input_blocks" => {
            let (level, i) = (at.checked_sub(1)? / stride, (at - 1) % stride);
            if let Some(rest) = within(rest, "0.op") {
                return (i == blocks).then(|| format!("down_blocks.{level}.downsamplers.0.conv.{rest}"));
            }
            match numbered(rest)? {
                (0, rest) if i < blocks => {
                    Some(format!("down_blocks.{level}.resnets.{i}.{}", residual_to_diffusers(rest)?))
                }
                (1, rest) if i < blocks => Some(format!("down_blocks.{level}.attentions.{i}.{rest}")),
                _ => None,
            }
        }
        "output_blocks" => {
            let (level, i) = (at / stride, at % stride);
            if let Some(rest) = within(rest, "1.conv").or_else(|| within(rest, "2.conv")) {
                return (i == blocks).then(|| format!("up_blocks.{level}.upsamplers.0.conv.{rest}"));
            }
            match numbered(rest)? {
                (0, rest) => Some(format!("up_blocks.{level}.resnets.{i}.{}", residual_to_diffusers(rest)?)),
                (1, rest) => Some(format!("up_blocks.{level}.attentions.{i}.{rest}")),
                _ => None,
            }
        }
        _ => None,
    }
}

fn residual_to_ldm(rest: &str) -> Option<String> {
    RESIDUAL.iter().find_map(|(ldm, diffusers)| Some(format!("{ldm}.{}", within(rest, diffusers)?)))
}

fn residual_to_diffusers(rest: &str) -> Option<String> {
    RESIDUAL.iter().find_map(|(ldm, diffusers)| Some(format!("{diffusers}.{}", within(rest, ldm)?)))
}

/// What follows `module.` in `name`.
pub(super) fn within<'a>(name: &'a str, module: &str) -> Option<&'a str> {
    name.strip_prefix(module)?.strip_prefix('.')
}

/// A leading number and what follows its dot.
pub(super) fn numbered(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((index(number)?, rest))
}
