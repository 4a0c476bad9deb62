//! Which part of the training a run is.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};

/// A part of the training, in the order in which a system is trained from nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The RRDBNet that removes degradations.
    Stage1,
    /// The autoencoder.
    Vae,
    /// The UNet, unconditional noise prediction.
    UNet,
    /// 1: the ControlNet alone, noise prediction.
    ControlNet,
    /// 2: ControlNet and adapters by turns, timestep-aware losses.
    TimestepAware,
}

impl Stage {
    const NAMES: [(&'static str, Stage); 5] = [
        ("stage1", Stage::Stage1),
        ("vae", Stage::Vae),
        ("unet", Stage::UNet),
        ("1", Stage::ControlNet),
        ("2", Stage::TimestepAware),
    ];

    /// What the configuration calls it.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, stage)| *stage == self).map_or("", |(name, _)| name)
    }

    /// True where a network learns from pictures alone, from random weights on: no prompts, ControlNet or adapters.
    pub fn is_base(self) -> bool {
        matches!(self, Stage::Stage1 | Stage::Vae | Stage::UNet)
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, stage)| *stage)
            .ok_or_else(|| format!("there is no stage {text}; give stage1, vae, unet, 1 or 2"))
    }
}

/// A name, or for 1 and 2 also the number.
impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named;
        impl Visitor<'_> for Named {
            type Value = Stage;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("stage1, vae, unet, 1 or 2")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Stage, E> {
                text.parse().map_err(|what| E::custom(format!("train.stage: {what}")))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Stage, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Named)
    }
}
