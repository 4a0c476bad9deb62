//! RRDBNet (stage 1): three namings of one network, brought to that of BSRNet.

use super::super::checkpoint::Checkpoint;
use super::unet::{numbered, within};
use super::{Place, rename};
use crate::error::Result;

/// How a file names its RRDBNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// BSRNet, BSRGAN, ESRGAN after 2019: `RRDB_trunk.i.RDBj.convk`.
    Old,
    /// Real-ESRGAN, BasicSR: `body.i.rdbj.convk`.
    New,
    /// The first ESRGAN release: `model.1.sub.i.RDBj.convk.0`.
    First,
}

/// The layers outside the trunk: (old, new, first).
const OUTER: [(&str, &str, &str); 6] = [
    ("conv_first", "conv_first", "model.0"),
    ("upconv1", "conv_up1", "model.3"),
    ("upconv2", "conv_up2", "model.6"),
    ("HRconv", "conv_hr", "model.8"),
    ("conv_last", "conv_last", "model.10"),
    ("trunk_conv", "conv_body", "model.1.sub.trunk"),
];

/// The naming of a file, or `None` if it is no RRDBNet.
pub fn naming(file: &Checkpoint) -> Option<Naming> {
    if file.has_prefix("RRDB_trunk.") {
        Some(Naming::Old)
    } else if file.has_prefix("body.0.rdb1.") {
        Some(Naming::New)
    } else if file.has_prefix("model.1.sub.0.RDB1.") {
        Some(Naming::First)
    } else {
        None
    }
}

/// The tensors under the old names; empty if the file is no RRDBNet.
pub(crate) fn to_old(file: &Checkpoint) -> Result<Checkpoint> {
    let Some(naming) = naming(file) else { return Ok(file.emptied()) };
    // In the first naming the convolution after the trunk is the entry after its last block.
    let blocks = super::count_of(file.names(), |name| {
        let (i, rest) = numbered(name.strip_prefix("model.1.sub.")?)?;
        rest.starts_with("RDB").then_some(i)
    });
    rename(file, |name| old_name(name, naming, blocks).map_or(Place::Unknown, Place::Name))
}

fn old_name(name: &str, naming: Naming, blocks: usize) -> Option<String> {
    for (old, new, first) in OUTER {
        let here = match naming {
            Naming::Old => within(name, old),
            Naming::New => within(name, new),
            Naming::First if old == "trunk_conv" => within(name, &format!("model.1.sub.{blocks}")),
            Naming::First => within(name, first),
        };
        if let Some(kind @ ("weight" | "bias")) = here {
            return Some(format!("{old}.{kind}"));
        }
    }
    let (trunk, dense) = match naming {
        Naming::Old => ("RRDB_trunk", "RDB"),
        Naming::New => ("body", "rdb"),
        Naming::First => ("model.1.sub", "RDB"),
    };
    let (block, rest) = numbered(within(name, trunk)?)?;
    let (dense, rest) = numbered(rest.strip_prefix(dense)?)?;
    let (conv, kind) = numbered(rest.strip_prefix("conv")?)?;
    let kind = if naming == Naming::First { kind.strip_prefix("0.")? } else { kind };
    let known = (1..=3).contains(&dense) && (1..=5).contains(&conv) && matches!(kind, "weight" | "bias");
    known.then(|| format!("RRDB_trunk.{block}.RDB{dense}.conv{conv}.{kind}"))
}
