//! Which timestep-aware adapters there are, told by the names of their tensors.

/// Which adapters a checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The published code.
    Official,
    /// The text of the article.
    Paper,
    /// The article's ablation without adaptive norms: official, but t does not enter.
    NoTimestep,
    /// The article's ablation with a transformer block in the place of the convolutions. The article gives no design
    /// but a kinship with ELLA: ours is in `models/adapters/transformer.rs`.
    Transformer,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Variant::Official => "official",
            Variant::Paper => "paper",
            Variant::NoTimestep => "no-timestep",
            Variant::Transformer => "transformer",
        }
    }

    /// The variant whose adapters have tensors with these `names`: what follows `{i}.0.` in a checkpoint, of all
    /// adapters or of as many as there are. `None` if there is none of an adapter.
    pub fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (mut first, mut paper, mut timed, mut transformer) = (false, false, false, false);
        for name in names {
            first |= ["in_layers.", "out_layers."].iter().any(|part| name.starts_with(part));
            paper |= name.starts_with("stages.");
            timed |= name.starts_with("emb_layers.");
            transformer |= name.starts_with("transformer.");
        }
        match () {
            () if paper => Some(Variant::Paper),
            () if transformer => Some(Variant::Transformer),
            () if timed => Some(Variant::Official),
            () if first => Some(Variant::NoTimestep),
            () => None,
        }
    }

    /// The layers that have a weight and a bias each, by their names behind `{i}.0.`.
    pub fn layers(self) -> &'static [&'static str] {
        match self {
            Variant::Official => &[
                "in_layers.0",
                "in_layers.2",
                "out_layers.0",
                "out_layers.2",
                "out_layers.4",
                "emb_layers.1",
            ],
            Variant::Paper => {
                &["stages.0.norm", "stages.0.conv", "stages.1.norm", "stages.1.conv", "stages.1.emb"]
            }
            Variant::NoTimestep => {
                &["in_layers.0", "in_layers.2", "out_layers.0", "out_layers.2", "out_layers.4"]
            }
            Variant::Transformer => &[
                "in_layers.0",
                "in_layers.2",
                "emb_layers.1",
                "transformer.norm1",
                "transformer.qkv",
                "transformer.proj",
                "transformer.norm2",
                "transformer.ff.0",
                "transformer.ff.2",
                "out_layers.4",
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_told_by_their_own_layers() {
        for variant in [Variant::Official, Variant::Paper, Variant::NoTimestep, Variant::Transformer] {
            assert_eq!(Variant::of_names(variant.layers().iter().copied()), Some(variant));
        }
        assert_eq!(Variant::of_names(["zero_convs.0.0.weight"].into_iter()), None);
    }
}
