//! Autoencoder: LDM names and those of diffusers, both ways.
//!
//! Diffusers numbers the decoder's levels in running order, LDM by resolution (reversed). The
//! attention's matrices are 1x1 convolutions in LDM; files of old diffusers versions name them
//! differently.

use super::super::checkpoint::Checkpoint;
use super::super::entry::TensorEntry;
use super::unet::{numbered, within};
use super::{Place, VAE, count_of, number_after, reshape};
use crate::error::Result;

/// The attention's parts: (LDM, diffusers, diffusers in old files).
const ATTENTION: [(&str, &str, &str); 5] = [
    ("norm", "group_norm", "group_norm"),
    ("q", "to_q", "query"),
    ("k", "to_k", "key"),
    ("v", "to_v", "value"),
    ("proj_out", "to_out.0", "proj_attn"),
];

/// Whether the bare names are those of a diffusers autoencoder.
pub(crate) fn is_diffusers(file: &Checkpoint) -> bool {
    file.has_prefix("encoder.down_blocks.") || file.has_prefix("decoder.up_blocks.")
}

/// Diffusers names to canonical ones.
pub(crate) fn to_ldm(file: &Checkpoint) -> Result<Checkpoint> {
    let levels = count_of(file.names(), |name| number_after(name, "decoder.up_blocks."));
    reshape(file, |name, entry| match ldm_name(name, levels) {
        Some(ldm) => (Place::Name(format!("{VAE}{ldm}")), attention_rank(&ldm, entry, 4)),
        None => (Place::Unknown, entry.clone()),
    })
}

/// Bare LDM names to those of diffusers.
pub(crate) fn to_diffusers(file: &Checkpoint) -> Result<Checkpoint> {
    let levels = count_of(file.names(), |name| number_after(name, "decoder.up."));
    reshape(file, |name, entry| match diffusers_name(name, levels) {
        Some(made) => (Place::Name(made), attention_rank(name, entry, 2)),
        None => (Place::Unknown, entry.clone()),
    })
}

/// The entry with the rank that the naming gives to attention matrices. One that does not fit stays as
/// it is, for the report of mis-shaped tensors to name.
fn attention_rank(ldm: &str, entry: &TensorEntry, rank: usize) -> TensorEntry {
    let matrix = ldm.contains(".mid.attn_1.") && ldm.ends_with(".weight") && !ldm.ends_with(".norm.weight");
    if matrix { entry.with_rank(rank).unwrap_or_else(|| entry.clone()) } else { entry.clone() }
}

fn ldm_name(name: &str, levels: usize) -> Option<String> {
    if within(name, "quant_conv").or_else(|| within(name, "post_quant_conv")).is_some() {
        return Some(name.to_owned());
    }
    let (side, rest) = name.split_once('.').filter(|(side, _)| matches!(*side, "encoder" | "decoder"))?;
    let (part, tail) = rest.split_once('.')?;
    match part {
        "conv_in" | "conv_out" => Some(name.to_owned()),
        "conv_norm_out" => Some(format!("{side}.norm_out.{tail}")),
        "mid_block" => {
            let (kind, tail) = tail.split_once('.')?;
            let (i, tail) = numbered(tail)?;
            match kind {
                "resnets" if i < 2 => Some(format!("{side}.mid.block_{}.{}", i + 1, shortcut_to_ldm(tail))),
                "attentions" if i == 0 => ATTENTION.iter().find_map(|(ldm, new, old)| {
                    let tail = within(tail, new).or_else(|| within(tail, old))?;
                    Some(format!("{side}.mid.attn_1.{ldm}.{tail}"))
                }),
                _ => None,
            }
        }
        "down_blocks" if side == "encoder" => {
            let (level, tail) = numbered(tail)?;
            block_to_ldm(&format!("encoder.down.{level}"), "downsample", tail)
        }
        "up_blocks" if side == "decoder" => {
            let (level, tail) = numbered(tail)?;
            block_to_ldm(&format!("decoder.up.{}", levels.checked_sub(level + 1)?), "upsample", tail)
        }
        _ => None,
    }
}

fn block_to_ldm(level: &str, sampler: &str, tail: &str) -> Option<String> {
    if let Some(tail) = within(tail, &format!("{sampler}rs.0.conv")) {
        return Some(format!("{level}.{sampler}.conv.{tail}"));
    }
    let (i, tail) = numbered(within(tail, "resnets")?)?;
    Some(format!("{level}.block.{i}.{}", shortcut_to_ldm(tail)))
}

fn diffusers_name(name: &str, levels: usize) -> Option<String> {
    if within(name, "quant_conv").or_else(|| within(name, "post_quant_conv")).is_some() {
        return Some(name.to_owned());
    }
    let (side, rest) = name.split_once('.').filter(|(side, _)| matches!(*side, "encoder" | "decoder"))?;
    let (part, tail) = rest.split_once('.')?;
    match part {
        "conv_in" | "conv_out" => Some(name.to_owned()),
        "norm_out" => Some(format!("{side}.conv_norm_out.{tail}")),
        "mid" => {
            if let Some(tail) = within(tail, "attn_1") {
                return ATTENTION.iter().find_map(|(ldm, new, _)| {
                    Some(format!("{side}.mid_block.attentions.0.{new}.{}", within(tail, ldm)?))
                });
            }
            let (block, tail) = tail.split_once('.')?;
            let i = match block {
                "block_1" => 0,
                "block_2" => 1,
                _ => return None,
            };
            Some(format!("{side}.mid_block.resnets.{i}.{}", shortcut_to_diffusers(tail)))
        }
        "down" if side == "encoder" => {
            let (level, tail) = numbered(tail)?;
            block_to_diffusers(&format!("encoder.down_blocks.{level}"), "downsample", tail)
        }
        "up" if side == "decoder" => {
            let (level, tail) = numbered(tail)?;
            let level = levels.checked_sub(level + 1)?;
            block_to_diffusers(&format!("decoder.up_blocks.{level}"), "upsample", tail)
        }
        _ => None,
    }
}

fn block_to_diffusers(level: &str, sampler: &str, tail: &str) -> Option<String> {
    if let Some(tail) = within(tail, &format!("{sampler}.conv")) {
        return Some(format!("{level}.{sampler}rs.0.conv.{tail}"));
    }
    let (i, tail) = numbered(within(tail, "block")?)?;
    Some(format!("{level}.resnets.{i}.{}", shortcut_to_diffusers(tail)))
}

fn shortcut_to_ldm(tail: &str) -> String {
    tail.strip_prefix("conv_shortcut.").map_or(tail.to_owned(), |rest| format!("nin_shortcut.{rest}"))
}

fn shortcut_to_diffusers(tail: &str) -> String {
    tail.strip_prefix("nin_shortcut.").map_or(tail.to_owned(), |rest| format!("conv_shortcut.{rest}"))
}
