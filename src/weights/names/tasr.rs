//! ControlNet and adapters, in the files of TASR, of DiffBIR v2 and of diffusers.

use super::super::checkpoint::Checkpoint;
use super::unet::{is_controlnet, numbered, to_ldm};
use super::{ADAPTER, CONTROLNET, Place, rename, wrong_file};
use crate::error::Result;

/// Prefixes under which ControlNets are published, besides the canonical one.
const OTHER_PREFIXES: [&str; 3] = ["control_model.", "controlnet.", "model.control_model."];

/// Canonical names for ControlNet and adapter weights.
pub(super) fn tasr(file: Checkpoint) -> Result<Checkpoint> {
    let made = if is_controlnet(&file) {
        to_ldm(&file, CONTROLNET)?
    } else {
        let bare = is_bare(&file);
        rename(&file, |name| place(name, bare))?
    };
    if made.is_empty() {
        let remedy = "give the TASR checkpoint (ControlNet and adapters) with --tasr";
        return Err(wrong_file(&file, "ControlNet and adapter weights", remedy));
    }
    Ok(made)
}

/// Whether a file holds a ControlNet in any accepted naming.
pub(crate) fn is_controlnet_file(file: &Checkpoint) -> bool {
    let prefixed = std::iter::once(CONTROLNET).chain(OTHER_PREFIXES).any(|prefix| file.has_prefix(prefix));
    prefixed || is_bare(file) || is_controlnet(file)
}

/// Whether a file holds a ControlNet without any prefix, as DiffBIR v2 does.
fn is_bare(file: &Checkpoint) -> bool {
    file.has_prefix("middle_block_out.") || file.has_prefix("zero_convs.")
}

/// Where a name belongs; `bare` files hold a ControlNet without any prefix.
fn place(name: &str, bare: bool) -> Place {
    for prefix in [CONTROLNET, ADAPTER] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return Place::Name(format!("{prefix}{}", rest.strip_prefix("module.").unwrap_or(rest)));
        }
    }
    for prefix in OTHER_PREFIXES {
        if let Some(rest) = name.strip_prefix(prefix) {
            return Place::Name(format!("{CONTROLNET}{rest}"));
        }
    }
    if name.starts_with("optimizer") {
        return Place::Extra;
    }
    if is_adapter(name) {
        return Place::Name(format!("{ADAPTER}{name}"));
    }
    let controlnet = ["time_embed.", "input_blocks.", "middle_block.", "zero_convs.", "middle_block_out."];
    if bare && controlnet.iter().any(|module| name.starts_with(module)) {
        return Place::Name(format!("{CONTROLNET}{name}"));
    }
    Place::Unknown
}

/// Whether a bare name is one of an adapter: `{i}.0.` and a part of some variant.
pub(crate) fn is_adapter(name: &str) -> bool {
    let parts = ["in_layers.", "out_layers.", "emb_layers.", "stages.", "transformer."];
    numbered(name)
        .and_then(|(_, rest)| rest.strip_prefix("0."))
        .is_some_and(|rest| parts.iter().any(|part| rest.starts_with(part)))
}
