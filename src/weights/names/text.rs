//! Text tower: OpenCLIP names (as in LDM files) and those of transformers, both ways.
//!
//! OpenCLIP stacks query, key and value in one matrix; transformers keeps three, which are joined here
//! by reference. Files of transformers end with the penultimate block, since the last is never run.

use super::super::checkpoint::Checkpoint;
use super::super::entry::TensorEntry;
use super::unet::{numbered, within};
use super::{Place, TEXT, count_of, number_after, rename};
use crate::error::{Error, Result};

/// Parts of a block besides the attention's input: (OpenCLIP, transformers).
const BLOCK: [(&str, &str); 5] = [
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("attn.out_proj", "self_attn.out_proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
];

/// Parts outside the blocks: whole names.
const OUTER: [(&str, &str); 4] = [
    ("token_embedding.weight", "embeddings.token_embedding.weight"),
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("ln_final.weight", "final_layer_norm.weight"),
    ("ln_final.bias", "final_layer_norm.bias"),
];

const SPLIT: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// Whether the bare names are those of a transformers text encoder.
pub(crate) fn is_transformers(file: &Checkpoint) -> bool {
    file.names().any(|name| plain(name).starts_with("encoder.layers.0.self_attn."))
}

/// Older files put `text_model.` before every name.
fn plain(name: &str) -> &str {
    name.strip_prefix("text_model.").unwrap_or(name)
}

/// Transformers names to canonical ones, query, key and value joined.
pub(crate) fn to_ldm(file: &Checkpoint) -> Result<Checkpoint> {
    let mut made = rename(file, |name| {
        let name = plain(name);
        // position_ids counts 0..76; the projection of a CLIP model is not part of its text features.
        if matches!(name, "embeddings.position_ids" | "text_projection.weight" | "logit_scale")
            || split_part(name).is_some()
        {
            return Place::Extra;
        }
        ldm_name(name).map_or(Place::Unknown, |ldm| Place::Name(format!("{TEXT}{ldm}")))
    })?;
    made.extras.retain(|name| split_part(plain(name)).is_none());
    for layer in 0..count_of(file.names(), |name| number_after(plain(name), "encoder.layers.")) {
        for kind in ["weight", "bias"] {
            let find = |part: &str| {
                let name = format!("encoder.layers.{layer}.self_attn.{part}.{kind}");
                file.get(&name).or_else(|| file.get(&format!("text_model.{name}"))).ok_or(name)
            };
            let parts: Vec<_> = SPLIT.iter().map(|part| find(part)).collect();
            if parts.iter().all(|part| part.is_err()) {
                continue;
            }
            let parts =
                parts.into_iter().collect::<std::result::Result<Vec<&TensorEntry>, _>>().map_err(|name| {
                    Error::weights("the tensor is missing, though its neighbours are there")
                        .at(format!("{}: {name}", file.label()))
                        .fix("get the text encoder's weights again")
                })?;
            let joined = TensorEntry::joined(&parts).map_err(|what| {
                Error::weights(format!("query, key and value ({kind}) do not fit together: {what}"))
                    .at(format!("{}: encoder.layers.{layer}.self_attn", file.label()))
                    .fix("get the text encoder's weights again")
            })?;
            made.insert(format!("{TEXT}transformer.resblocks.{layer}.attn.in_proj_{kind}"), joined)?;
        }
    }
    Ok(made)
}

/// How many blocks of the tower run, from bare canonical names.
///
/// The features are those of the penultimate block. A file with the text projection is a whole OpenCLIP
/// tower, whose last block is never run; a file without it comes from transformers and ends with the
/// penultimate one.
pub fn blocks_run(file: &Checkpoint) -> usize {
    let blocks = count_of(file.names(), |name| number_after(name, "transformer.resblocks."));
    if file.contains("text_projection") { blocks.saturating_sub(1) } else { blocks }
}

/// Bare OpenCLIP names to those of transformers, with `text_model.`; query, key and value split.
///
/// # Errors
/// A stacked projection has a number of rows that three does not divide.
pub(crate) fn to_transformers(file: &Checkpoint) -> Result<Checkpoint> {
    let run = blocks_run(file);
    let mut made = file.emptied();
    for (name, entry) in file.iter() {
        let block = number_after(name, "transformer.resblocks.");
        if matches!(name, "text_projection" | "logit_scale") || block.is_some_and(|block| block >= run) {
            made.extras.push(name.to_owned());
            continue;
        }
        if let (Some(layer), Some((_, kind))) = (block, name.split_once(".attn.in_proj_")) {
            let rows = entry.shape().first().copied().unwrap_or(0);
            for (i, part) in SPLIT.iter().enumerate() {
                let third = (rows % 3 == 0).then(|| entry.rows(i * rows / 3..(i + 1) * rows / 3)).flatten();
                let third = third.ok_or_else(|| {
                    Error::weights(format!("{rows} rows do not split into query, key and value"))
                        .at(format!("{}: {name}", file.label()))
                        .fix("check that this is the text tower of Stable Diffusion 2.1")
                })?;
                made.insert(format!("text_model.encoder.layers.{layer}.self_attn.{part}.{kind}"), third)?;
            }
            continue;
        }
        match transformers_name(name) {
            Some(new) => made.insert(format!("text_model.{new}"), entry.clone())?,
            None => made.unknown.push(name.to_owned()),
        }
    }
    Ok(made)
}

/// (layer, part, kind) of a query, key or value tensor.
fn split_part(name: &str) -> Option<(usize, &str, &str)> {
    let (layer, rest) = numbered(within(name, "encoder.layers")?)?;
    let (part, kind) = within(rest, "self_attn")?.split_once('.')?;
    (SPLIT.contains(&part) && matches!(kind, "weight" | "bias")).then_some((layer, part, kind))
}

fn ldm_name(name: &str) -> Option<String> {
    if let Some((ldm, _)) = OUTER.iter().find(|(_, other)| *other == name) {
        return Some((*ldm).to_owned());
    }
    let (layer, rest) = numbered(within(name, "encoder.layers")?)?;
    BLOCK.iter().find_map(|(ldm, other)| {
        Some(format!("transformer.resblocks.{layer}.{ldm}.{}", within(rest, other)?))
    })
}

fn transformers_name(name: &str) -> Option<String> {
    if let Some((_, other)) = OUTER.iter().find(|(ldm, _)| *ldm == name) {
        return Some((*other).to_owned());
    }
    let (layer, rest) = numbered(within(name, "transformer.resblocks")?)?;
    BLOCK
        .iter()
        .find_map(|(ldm, other)| Some(format!("encoder.layers.{layer}.{other}.{}", within(rest, ldm)?)))
}
