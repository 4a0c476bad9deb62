//! Every published naming of the networks, brought to one canonical form.
//!
//! Canonical are the names of the original LDM-style files:
//!
//! | prefix | network |
//! |---|---|
//! | `model.diffusion_model.` | UNet |
//! | `first_stage_model.` | autoencoder |
//! | `cond_stage_model.model.` | text tower |
//! | `cond_stage_model.empty` | instead of a text tower: the features of every prompt, [1, width] |
//! | `checkpoint_controlnet.` | ControlNet |
//! | `checkpoint_adapter.{i}.0.` | adapter i, 0 in the middle, then in decoder order |
//! | none (`conv_first`, `RRDB_trunk`, ...) | stage 1, RRDBNet |
//!
//! Accepted besides: diffusers folders and files, transformers text encoders, ControlNet files with
//! other or no prefixes, and three namings of RRDBNet.

pub(crate) mod rrdbnet;
mod tasr;
pub(crate) mod text;
pub(crate) mod unet;
pub(crate) mod vae;

use std::path::Path;

pub(crate) use self::tasr::{is_adapter, is_controlnet_file};
pub use self::text::blocks_run as text_blocks_run;
use super::checkpoint::Checkpoint;
use super::entry::TensorEntry;
use super::folder;
use super::identify::{Kind, kind_of};
use crate::error::{Error, Result};

pub const UNET: &str = "model.diffusion_model.";
pub const VAE: &str = "first_stage_model.";
pub const CONDITIONING: &str = "cond_stage_model.";
pub const TEXT: &str = "cond_stage_model.model.";
pub const EMPTY: &str = "cond_stage_model.empty";
pub const CONTROLNET: &str = "checkpoint_controlnet.";
pub const ADAPTER: &str = "checkpoint_adapter.";

/// The noise schedule that LDM files carry; it is computed here.
const SCHEDULE: [&str; 15] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "lvlb_weights",
    "logvar",
    "scale_factor",
];

/// Where a name of some file belongs.
pub(crate) enum Place {
    /// Under this canonical name.
    Name(String),
    /// A known companion that no network here uses.
    Extra,
    Unknown,
}

impl Checkpoint {
    /// Opens the Stable Diffusion weights: an LDM-style file or a diffusers folder.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; or the file holds something else, which the message names.
    pub fn open_sd(path: &Path) -> Result<Checkpoint> {
        if path.is_dir() {
            return open_diffusers(path);
        }
        sd(Checkpoint::open(path)?)
    }

    /// Opens the ControlNet and adapter weights.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; or the file holds something else, which the message names.
    pub fn open_tasr(path: &Path) -> Result<Checkpoint> {
        tasr::tasr(Checkpoint::open(path)?)
    }

    /// Opens the stage-1 weights, an RRDBNet in any of its namings.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; or the file holds something else, which the message names.
    pub fn open_stage1(path: &Path) -> Result<Checkpoint> {
        stage1(Checkpoint::open(path)?)
    }
}

impl Checkpoint {
    /// Opens the weights of the SwinIR that cleans training data. Its index and mask buffers are set aside.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; or the file holds something else, which the message names.
    pub fn open_swinir(path: &Path) -> Result<Checkpoint> {
        const BUFFERS: [&str; 2] = [".relative_position_index", ".attn_mask"];
        let wanted = (Kind::SwinIr, "SwinIR weights", "give general_swinir_v1.ckpt");
        open_bare(path, wanted, |name| BUFFERS.iter().any(|end| name.ends_with(end)))
    }

    /// Opens the weights of CLIP RN50: OpenAI's TorchScript archive RN50.pt, or its tensors in another container. Sizes
    /// and counters that no computation needs are set aside.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; or the file holds something else, which the message names.
    pub fn open_clip(path: &Path) -> Result<Checkpoint> {
        const SIZES: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];
        let wanted = (Kind::ClipRn50, "CLIP RN50 weights", "give OpenAI's RN50.pt");
        open_bare(path, wanted, |name| name.ends_with(".num_batches_tracked") || SIZES.contains(&name))
    }
}

/// A file of one kind, whose names stay, without what `extra` picks out.
fn open_bare(
    path: &Path,
    (kind, what, remedy): (Kind, &str, &str),
    extra: impl Fn(&str) -> bool,
) -> Result<Checkpoint> {
    let file = Checkpoint::open(path)?;
    if kind_of(&file) != kind {
        return Err(wrong_file(&file, what, remedy));
    }
    rename(&file, |name| if extra(name) { Place::Extra } else { Place::Name(name.to_owned()) })
}

/// Canonical names for Stable Diffusion weights: LDM names, or one part as diffusers stores it.
///
/// # Errors
/// No network of Stable Diffusion is in the set.
pub fn sd(file: Checkpoint) -> Result<Checkpoint> {
    let whole = if [UNET, VAE, TEXT, EMPTY].iter().any(|prefix| file.has_prefix(prefix)) {
        ldm(&file)?
    } else if unet::is_diffusers(&file) && !unet::is_controlnet(&file) {
        unet::to_ldm(&file, UNET)?
    } else if vae::is_diffusers(&file) {
        vae::to_ldm(&file)?
    } else if text::is_transformers(&file) {
        text::to_ldm(&file)?
    } else {
        return Err(wrong_file(
            &file,
            "Stable Diffusion weights",
            "give the Stable Diffusion 2.1 file with --sd",
        ));
    };
    Ok(whole)
}

/// Canonical names for ControlNet and adapter weights.
///
/// # Errors
/// Neither is in the set.
pub fn tasr(file: Checkpoint) -> Result<Checkpoint> {
    tasr::tasr(file)
}

/// Canonical names for stage-1 weights.
///
/// # Errors
/// The set is no RRDBNet.
pub fn stage1(file: Checkpoint) -> Result<Checkpoint> {
    let made = rrdbnet::to_old(&file)?;
    if made.is_empty() {
        return Err(wrong_file(
            &file,
            "stage-1 (RRDBNet) weights",
            "give BSRNet.pth or another RRDBNet with --stage1",
        ));
    }
    Ok(made)
}

/// The three parts of Stable Diffusion under the names of diffusers and transformers, from canonical
/// names: (folder, weights). Parts that are absent are left out; what has no counterpart there (the
/// text tower's last block, which is never run, and its projection) is listed as an extra.
///
/// # Errors
/// A fused text projection cannot be split in three.
pub fn to_diffusers(canonical: &Checkpoint) -> Result<Vec<(&'static str, Checkpoint)>> {
    let parts = [
        ("unet", unet::to_diffusers(&canonical.under(UNET))?),
        ("vae", vae::to_diffusers(&canonical.under(VAE))?),
        ("text_encoder", text::to_transformers(&canonical.under(TEXT))?),
    ];
    Ok(parts.into_iter().filter(|(_, part)| !part.is_empty()).collect())
}

fn open_diffusers(path: &Path) -> Result<Checkpoint> {
    if !folder::is_diffusers(path) {
        return Err(Error::weights("the folder holds no unet/, so it is not a diffusers model")
            .at(path.display().to_string())
            .fix("give the folder that contains unet/, vae/ and text_encoder/, or a single file"));
    }
    let parts = folder::PARTS
        .iter()
        .map(|part| {
            let file = folder::open_part(path, part)?;
            let label = file.label().to_owned();
            let named = match *part {
                "unet" => unet::to_ldm(&file, UNET)?,
                "vae" => vae::to_ldm(&file)?,
                _ => text::to_ldm(&file)?,
            };
            if named.is_empty() {
                return Err(Error::weights(format!("no tensor has a name that diffusers gives its {part}"))
                    .at(label)
                    .fix("get this part of the folder again"));
            }
            Ok(named)
        })
        .collect::<Result<Vec<_>>>()?;
    Checkpoint::merge(parts).map(|whole| whole.relabelled(path.display().to_string()))
}

/// LDM-style files: canonical already, apart from their companions.
fn ldm(file: &Checkpoint) -> Result<Checkpoint> {
    if file.has_prefix("cond_stage_model.transformer.") {
        return Err(Error::weights("this is a Stable Diffusion 1.x file, whose text tower is another one")
            .at(file.label().to_owned())
            .fix("use Stable Diffusion 2.1 base"));
    }
    if file.has_prefix("conditioner.embedders.") {
        return Err(Error::weights("this is a Stable Diffusion XL file")
            .at(file.label().to_owned())
            .fix("use Stable Diffusion 2.1 base"));
    }
    rename(file, |name| {
        let extra = name.starts_with("model_ema.")
            || name.starts_with("first_stage_model.loss.")
            || name == "cond_stage_model.model.attn_mask"
            || SCHEDULE.contains(&name);
        if extra {
            Place::Extra
        } else if [UNET, VAE, TEXT].iter().any(|prefix| name.starts_with(prefix)) || name == EMPTY {
            Place::Name(name.to_owned())
        } else {
            Place::Unknown
        }
    })
}

/// The tensors of `file` under the names that `place` gives them.
pub(crate) fn rename(file: &Checkpoint, place: impl Fn(&str) -> Place) -> Result<Checkpoint> {
    reshape(file, |name, entry| (place(name), entry.clone()))
}

/// As [`rename`], for namings that also differ in shapes.
pub(crate) fn reshape(
    file: &Checkpoint,
    place: impl Fn(&str, &TensorEntry) -> (Place, TensorEntry),
) -> Result<Checkpoint> {
    let mut made = file.emptied();
    for (name, entry) in file.iter() {
        match place(name, entry) {
            (Place::Name(name), entry) => made.insert(name, entry)?,
            (Place::Extra, _) => made.extras.push(name.to_owned()),
            (Place::Unknown, _) => made.unknown.push(name.to_owned()),
        }
    }
    Ok(made)
}

/// A file of another kind than asked for.
fn wrong_file(file: &Checkpoint, wanted: &str, remedy: &str) -> Error {
    Error::weights(format!("expected {wanted}, this is {}", kind_of(file)))
        .at(file.label().to_owned())
        .fix(remedy.to_owned())
}

/// A small number in a name.
pub(crate) fn index(text: &str) -> Option<usize> {
    let plain = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    if plain && (text == "0" || !text.starts_with('0')) { text.parse().ok() } else { None }
}

/// One more than the largest number that `find` reads off the names; 0 without any.
pub(crate) fn count_of<'a>(
    names: impl Iterator<Item = &'a str>,
    find: impl Fn(&str) -> Option<usize>,
) -> usize {
    names.filter_map(find).map(|i| i + 1).max().unwrap_or(0)
}

/// The number after `before` and up to the next dot.
pub(crate) fn number_after(name: &str, before: &str) -> Option<usize> {
    index(name.strip_prefix(before)?.split('.').next()?)
}
