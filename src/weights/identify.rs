//! What a file is, told by the names and shapes of its tensors.

use std::collections::BTreeMap;
use std::fmt;

use super::checkpoint::Checkpoint;
use super::dtype::Dtype;
use super::expected;
use super::names::{self, rrdbnet};
use crate::error::Result;
use crate::nn::Variant;

pub use super::names::rrdbnet::Naming;

/// The kind of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A single Stable Diffusion file with LDM names; which networks it holds.
    StableDiffusion {
        unet: bool,
        vae: bool,
        text: bool,
        /// one row stands for the features of every prompt
        empty: bool,
    },
    DiffusersUnet,
    DiffusersVae,
    DiffusersTextEncoder,
    /// ControlNet and adapters.
    Tasr(Variant),
    ControlNet,
    Adapter(Variant),
    /// Stage 1; sizes are 0 where the tensors that show them are missing.
    RrdbNet {
        naming: Naming,
        features: usize,
        blocks: usize,
        growth: usize,
    },
    SwinIr,
    ClipRn50,
    Musiq,
    Maniqa,
    Lpips,
    /// A torchvision classifier (AlexNet, VGG), the trunk of LPIPS.
    Classifier,
    Ram,
    /// Low-rank additions to RAM (DAPE).
    RamLora,
    Unknown,
}

/// Networks whose tensors share one canonical naming, and may share a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// UNet, autoencoder, text tower.
    StableDiffusion,
    /// ControlNet and adapters.
    Tasr,
    Stage1,
    /// Names are those of the file.
    Other,
}

impl Kind {
    pub fn family(&self) -> Family {
        match self {
            Kind::StableDiffusion { .. }
            | Kind::DiffusersUnet
            | Kind::DiffusersVae
            | Kind::DiffusersTextEncoder => Family::StableDiffusion,
            Kind::Tasr(_) | Kind::ControlNet | Kind::Adapter(_) => Family::Tasr,
            Kind::RrdbNet { .. } => Family::Stage1,
            _ => Family::Other,
        }
    }
}

impl Family {
    /// The tensors of a file of this family under their canonical names; `None` where there are none.
    ///
    /// # Errors
    /// Tensors that do not fit together.
    pub fn canonical(self, file: &Checkpoint) -> Result<Option<Checkpoint>> {
        match self {
            Family::StableDiffusion => names::sd(file.clone()).map(Some),
            Family::Tasr => names::tasr(file.clone()).map(Some),
            Family::Stage1 => names::stage1(file.clone()).map(Some),
            Family::Other => Ok(None),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::StableDiffusion => "Stable Diffusion",
            Family::Tasr => "TASR",
            Family::Stage1 => "stage 1",
            Family::Other => "another network",
        })
    }
}

/// What is known about a file.
#[derive(Clone, Debug)]
pub struct Identity {
    pub kind: Kind,
    /// Tensors and values of the networks, without companions such as schedules and EMA copies.
    pub tensors: usize,
    pub parameters: u64,
    /// Tensors and values by element type.
    pub dtypes: BTreeMap<Dtype, (usize, u64)>,
    /// Names (canonical) that a network of this kind and size has and the file lacks; a network that
    /// is wholly absent is one entry ending in `*`.
    pub missing: Vec<String>,
    /// Known companions, not used.
    pub extras: Vec<String>,
    /// Names that do not belong to this kind.
    pub unknown: Vec<String>,
}

/// Tells what an opened file is; canonical names are understood, too.
pub fn identify(file: &Checkpoint) -> Identity {
    let kind = kind_of(file);
    let named = kind.family().canonical(file).ok().flatten();
    let judged = named.is_some();
    let named = named.unwrap_or_else(|| file.clone());
    let mut dtypes = BTreeMap::new();
    let mut parameters = 0u64;
    for (_, entry) in named.iter() {
        let count = entry.count() as u64;
        let (tensors, values) = dtypes.entry(entry.dtype()).or_insert((0, 0));
        *tensors += 1;
        *values += count;
        parameters = parameters.saturating_add(count);
    }
    let (missing, mut unknown) = if judged { compare(&kind, &named) } else { (Vec::new(), Vec::new()) };
    unknown.extend(named.unknown().iter().cloned());
    Identity {
        kind,
        tensors: named.len(),
        parameters,
        dtypes,
        missing,
        extras: named.extras().to_vec(),
        unknown,
    }
}

/// What the names in `file` say that it is. Translates no names, so that a translation may ask.
pub(super) fn kind_of(file: &Checkpoint) -> Kind {
    let has = |prefix: &str| file.has_prefix(prefix);
    let (unet, vae, text) = (has(names::UNET), has(names::VAE), has(names::TEXT));
    let empty = file.contains(names::EMPTY);
    if unet || vae || text || empty {
        return Kind::StableDiffusion { unet, vae, text, empty };
    }
    let controlnet = names::is_controlnet_file(file);
    match (controlnet, adapter_variant(file)) {
        (true, Some(variant)) => return Kind::Tasr(variant),
        (true, None) => return Kind::ControlNet,
        (false, Some(variant)) => return Kind::Adapter(variant),
        (false, None) => {}
    }
    if let Some(kind) = rrdbnet_kind(file) {
        return kind;
    }
    let dense = |name: &str| file.contains(name);
    if names::unet::is_diffusers(file) {
        Kind::DiffusersUnet
    } else if names::text::is_transformers(file) {
        Kind::DiffusersTextEncoder
    } else if has("layers.0.residual_group.blocks.0.attn.") {
        Kind::SwinIr
    } else if has("tagging_head.") || dense("label_embed") {
        Kind::Ram
    } else if file.names().any(|name| name.ends_with(".lora_A")) {
        Kind::RamLora
    } else if dense("visual.attnpool.positional_embedding") && has("visual.layer1.0.") {
        Kind::ClipRn50
    } else if dense("conv_root.weight") && has("transformer_encoder.") {
        Kind::Musiq
    } else if dense("vit.cls_token") && has("swintransformer1.") {
        Kind::Maniqa
    } else if dense("lin0.model.1.weight") || dense("lins.0.model.1.weight") {
        Kind::Lpips
    } else if dense("features.0.weight") && has("classifier.") {
        Kind::Classifier
    } else if names::vae::is_diffusers(file) {
        Kind::DiffusersVae
    } else {
        Kind::Unknown
    }
}

/// The adapters in a file, with or without their prefix.
fn adapter_variant(file: &Checkpoint) -> Option<Variant> {
    let parts = file
        .names()
        .map(|name| name.strip_prefix(names::ADAPTER).unwrap_or(name))
        .filter(|name| names::is_adapter(name));
    Variant::of_names(parts.filter_map(|name| name.splitn(3, '.').nth(2)))
}

/// `None` when no tensor is one of an RRDBNet, whatever the names begin with.
fn rrdbnet_kind(file: &Checkpoint) -> Option<Kind> {
    let naming = rrdbnet::naming(file)?;
    let old = rrdbnet::to_old(file).ok().filter(|old| !old.is_empty())?;
    let rows = |name: &str| old.get(name).and_then(|entry| entry.shape().first()).copied().unwrap_or(0);
    Some(Kind::RrdbNet {
        naming,
        features: rows("conv_first.weight"),
        growth: rows("RRDB_trunk.0.RDB1.conv1.weight"),
        blocks: names::count_of(old.names(), |name| names::number_after(name, "RRDB_trunk.")),
    })
}

/// (missing, unexpected) names of canonical tensors.
fn compare(kind: &Kind, named: &Checkpoint) -> (Vec<String>, Vec<String>) {
    let adapters =
        |variant: &Variant, count: usize| expected::adapter(&named.under(names::ADAPTER), *variant, count);
    let controlnet = || expected::controlnet(&named.under(names::CONTROLNET));
    let mut parts: Vec<(&str, Vec<String>)> = match kind {
        Kind::StableDiffusion { text, empty, .. } => Vec::from([
            (names::UNET, expected::unet(&named.under(names::UNET))),
            (names::VAE, expected::vae(&named.under(names::VAE))),
            match *empty && !*text {
                true => (names::EMPTY, vec![String::new()]),
                false => (names::TEXT, expected::text(&named.under(names::TEXT))),
            },
        ]),
        Kind::DiffusersUnet => vec![(names::UNET, expected::unet(&named.under(names::UNET)))],
        Kind::DiffusersVae => vec![(names::VAE, expected::vae(&named.under(names::VAE)))],
        Kind::DiffusersTextEncoder => vec![(names::TEXT, expected::text(&named.under(names::TEXT)))],
        Kind::Tasr(variant) => {
            let control = controlnet();
            let residuals = control.iter().filter(|name| name.starts_with("zero_convs.")).count() / 2 + 1;
            vec![(names::CONTROLNET, control), (names::ADAPTER, adapters(variant, residuals))]
        }
        Kind::ControlNet => vec![(names::CONTROLNET, controlnet()), (names::ADAPTER, vec!["0.0.".into()])],
        Kind::Adapter(variant) => {
            vec![(names::CONTROLNET, vec!["time_embed.".into()]), (names::ADAPTER, adapters(variant, 0))]
        }
        Kind::RrdbNet { .. } => vec![("", expected::rrdbnet(named))],
        _ => Vec::new(),
    };
    let mut missing = Vec::new();
    let mut wanted = std::collections::HashSet::new();
    for (prefix, list) in &mut parts {
        if !prefix.is_empty() && !named.has_prefix(prefix) {
            missing.push(format!("{prefix}*"));
            continue;
        }
        for name in list.iter() {
            let name = format!("{prefix}{name}");
            if !named.contains(&name) {
                missing.push(name.clone());
            }
            wanted.insert(name);
        }
    }
    let unneeded = ["text_projection", "logit_scale"].map(|name| format!("{}{name}", names::TEXT));
    let unexpected = named
        .names()
        .filter(|name| !wanted.contains(*name) && !unneeded.iter().any(|other| other == name))
        .map(str::to_owned)
        .collect();
    (missing, unexpected)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::StableDiffusion { unet, vae, text, empty } => {
                let held = [(unet, "UNet"), (vae, "autoencoder"), (text, "text tower"), (empty, "no text")];
                let held: Vec<_> =
                    held.iter().filter(|(present, _)| **present).map(|(_, name)| *name).collect();
                write!(f, "Stable Diffusion, single file ({})", held.join(", "))
            }
            Kind::DiffusersUnet => f.write_str("the UNet of a diffusers folder"),
            Kind::DiffusersVae => f.write_str("the autoencoder of a diffusers folder"),
            Kind::DiffusersTextEncoder => f.write_str("the text encoder of a diffusers folder"),
            Kind::Tasr(variant) => write!(f, "TASR, ControlNet and {} adapters", variant.name()),
            Kind::ControlNet => f.write_str("a ControlNet without adapters"),
            Kind::Adapter(variant) => write!(f, "{} adapters without a ControlNet", variant.name()),
            Kind::RrdbNet { naming, features, blocks, growth } => {
                let naming = match naming {
                    Naming::Old => "BSRNet names",
                    Naming::New => "Real-ESRGAN names",
                    Naming::First => "first ESRGAN names",
                };
                write!(f, "RRDBNet, {blocks} blocks of {features} features, growth {growth} ({naming})")
            }
            Kind::SwinIr => f.write_str("SwinIR"),
            Kind::ClipRn50 => f.write_str("CLIP with a ResNet-50"),
            Kind::Musiq => f.write_str("MUSIQ"),
            Kind::Maniqa => f.write_str("MANIQA"),
            Kind::Lpips => f.write_str("LPIPS"),
            Kind::Classifier => f.write_str("a torchvision classifier"),
            Kind::Ram => f.write_str("RAM, the tagger"),
            Kind::RamLora => f.write_str("low-rank additions to RAM (DAPE)"),
            Kind::Unknown => f.write_str("of an unknown kind"),
        }
    }
}
