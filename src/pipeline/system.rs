//! All networks of a run, from checkpoints or synthetic.

use std::path::{Path, PathBuf};

use super::denoiser::Networks;
use super::stage::Stage;
use crate::error::{Error, Result};
use crate::models::config::SystemConfig;
use crate::models::text::TextEncoder;
use crate::models::{
    Adapters, Conditioning, ControlNet, DenoiserConfig, RrdbConfig, RrdbNet, UNet, Vae, VaeConfig, Variant,
};
use crate::nn::{Scope, Source};
use crate::ops::Cx;
use crate::weights::names::{ADAPTER, CONDITIONING, CONTROLNET, EMPTY, TEXT, UNET, VAE};
use crate::weights::{Checkpoint, CheckpointSource, SyntheticSource};

/// Which adapters a run uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterChoice {
    /// Whatever the file holds; an error when it holds none.
    Held,
    /// This variant; an error when the file holds another or none.
    Only(Variant),
    /// None: plain ControlNet.
    None,
}

/// The networks that run once the text is encoded, by stage.
pub struct System<'w> {
    pub stage1: Stage<RrdbNet>,
    pub vae: Stage<Vae>,
    pub sampler: Stage<Sampler>,
    weights: &'w Weights,
    factor: usize,
    latent: usize,
}

/// The networks of a model call.
pub struct Sampler {
    pub unet: UNet,
    pub controlnet: ControlNet,
    pub adapters: Option<Adapters>,
}

struct Files {
    sd: Checkpoint,
    tasr: Checkpoint,
    stage1: Checkpoint,
}

impl Sampler {
    /// The networks.
    pub fn networks(&self) -> Networks<'_> {
        Networks { unet: &self.unet, controlnet: &self.controlnet, adapters: self.adapters.as_ref() }
    }
}

impl System<'_> {
    /// Where the networks come from.
    pub(super) fn weights(&self) -> &Weights {
        self.weights
    }

    /// Pixels per latent along an axis.
    pub fn factor(&self) -> usize {
        self.factor
    }

    /// Channels of the latent.
    pub fn latent(&self) -> usize {
        self.latent
    }

    /// Which adapters the networks have.
    pub fn variant(&self) -> Result<Option<Variant>> {
        Ok(self.sampler.get()?.adapters.as_ref().map(Adapters::variant))
    }
}

enum Origin {
    Files(Box<Files>),
    Synthetic(Box<SystemConfig>),
}

/// Opened weights: mapped, and read when a network is loaded.
pub struct Weights {
    origin: Origin,
    adapter: AdapterChoice,
}

/// A source that gathers problems until it is finished.
enum Opened<'a> {
    File(CheckpointSource<'a>),
    Synthetic(SyntheticSource),
}

impl<'a> Opened<'a> {
    fn source(&self) -> &dyn Source {
        match self {
            Opened::File(source) => source,
            Opened::Synthetic(source) => source,
        }
    }

    /// What messages call it.
    fn label(&self) -> &str {
        match self {
            Opened::File(source) => source.label(),
            Opened::Synthetic(_) => "synthetic weights",
        }
    }

    fn finish(self, prefixes: &[&str]) -> Result<()> {
        match self {
            Opened::File(source) => source.finish(prefixes),
            Opened::Synthetic(_) => Ok(()),
        }
    }
}

impl Weights {
    /// Opens the three checkpoints: SD 2.1 (file or folder), TASR, stage 1.
    ///
    /// # Errors
    /// A file is missing or is no checkpoint.
    pub fn open(sd: &Path, tasr: &Path, stage1: &Path, adapter: AdapterChoice) -> Result<Self> {
        let files =
            [Checkpoint::open_sd(sd)?, Checkpoint::open_tasr(tasr)?, Checkpoint::open_stage1(stage1)?];
        Ok(Self::of(files, adapter))
    }

    /// Opened checkpoints: SD 2.1, TASR, stage 1, under canonical names.
    pub fn of([sd, tasr, stage1]: [Checkpoint; 3], adapter: AdapterChoice) -> Self {
        Weights { origin: Origin::Files(Box::new(Files { sd, tasr, stage1 })), adapter }
    }

    /// Weights that are functions of their names, of a preset's sizes.
    pub fn synthetic(config: SystemConfig, variant: Option<Variant>) -> Self {
        let adapter = variant.map_or(AdapterChoice::None, AdapterChoice::Only);
        Weights { origin: Origin::Synthetic(Box::new(config)), adapter }
    }

    fn sd(&self) -> Opened<'_> {
        match &self.origin {
            Origin::Files(files) => Opened::File(CheckpointSource::new(&files.sd)),
            Origin::Synthetic(_) => Opened::Synthetic(SyntheticSource),
        }
    }

    fn tasr(&self) -> Opened<'_> {
        match &self.origin {
            Origin::Files(files) => Opened::File(CheckpointSource::new(&files.tasr)),
            Origin::Synthetic(_) => Opened::Synthetic(SyntheticSource),
        }
    }

    fn stage1(&self) -> Opened<'_> {
        match &self.origin {
            Origin::Files(files) => Opened::File(CheckpointSource::new(&files.stage1)),
            Origin::Synthetic(_) => Opened::Synthetic(SyntheticSource),
        }
    }

    fn config<C>(
        &self,
        opened: &Opened,
        cx: &Cx,
        prefix: &str,
        of: impl Fn(&SystemConfig) -> C,
        infer: impl Fn(&Scope) -> Result<C>,
    ) -> Result<C> {
        match &self.origin {
            Origin::Synthetic(config) => Ok(of(config)),
            Origin::Files(_) => {
                infer(&Scope::new(cx, opened.source(), prefix)).map_err(|error| error.at(opened.label()))
            }
        }
    }

    /// Whether prompts change anything: false for a system without a text tower.
    pub fn reads_prompts(&self) -> bool {
        match &self.origin {
            Origin::Files(files) => !files.sd.contains(EMPTY),
            Origin::Synthetic(config) => matches!(config.text, Conditioning::Text(_)),
        }
    }

    /// Loads what encodes prompts.
    ///
    /// # Errors
    /// One error that lists every tensor that is missing, mis-shaped or unknown.
    pub fn load_text(&self, cx: &Cx) -> Result<TextEncoder> {
        let sd = self.sd();
        let config = self.config(&sd, cx, CONDITIONING, |c| c.text.clone(), Conditioning::infer)?;
        let encoder = TextEncoder::load(&Scope::new(cx, sd.source(), CONDITIONING), &config)?;
        sd.finish(&[if matches!(config, Conditioning::Text(_)) { TEXT } else { CONDITIONING }])?;
        Ok(encoder)
    }

    /// Loads everything but the text tower.
    ///
    /// # Errors
    /// For each file one error that lists every tensor that is missing, mis-shaped or unknown; or networks that
    /// do not belong together.
    pub fn load(&self, cx: &Cx) -> Result<System<'_>> {
        let dtype = cx.dtype();
        let stage1 = self.load_stage1(cx)?;
        let sd = self.sd();
        let (vae, unet, unet_config) =
            (self.load_vae_from(&sd, cx)?, self.load_unet_from(&sd, cx)?, self.unet_config(&sd, cx)?);
        let unet_label = sd.label().to_owned();
        sd.finish(&[VAE, UNET])?;
        let (controlnet, adapters) = self.load_control(cx, &unet_config, &unet_label)?;
        let (factor, latent) = (vae.factor(), vae.latent());
        Ok(System {
            stage1: Stage::new("stage 1", Weights::load_stage1, stage1, dtype),
            vae: Stage::new("the autoencoder", Weights::load_vae, vae, dtype),
            sampler: Stage::new(
                "the sampler",
                Weights::load_sampler,
                Sampler { unet, controlnet, adapters },
                dtype,
            ),
            weights: self,
            factor,
            latent,
        })
    }

    /// Loads the stage-1 network only.
    pub fn load_stage1(&self, cx: &Cx) -> Result<RrdbNet> {
        let stage1 = self.stage1();
        let config = self.config(&stage1, cx, "", |c| c.rrdb.clone(), RrdbConfig::infer)?;
        let network = RrdbNet::load(&Scope::new(cx, stage1.source(), ""), &config)?;
        stage1.finish(&[""])?;
        Ok(network)
    }

    /// Loads the autoencoder only.
    fn load_vae(&self, cx: &Cx) -> Result<Vae> {
        let sd = self.sd();
        let vae = self.load_vae_from(&sd, cx)?;
        sd.finish(&[VAE])?;
        Ok(vae)
    }

    /// Loads UNet, ControlNet and adapters only.
    fn load_sampler(&self, cx: &Cx) -> Result<Sampler> {
        let sd = self.sd();
        let (unet, config) = (self.load_unet_from(&sd, cx)?, self.unet_config(&sd, cx)?);
        let label = sd.label().to_owned();
        sd.finish(&[UNET])?;
        let (controlnet, adapters) = self.load_control(cx, &config, &label)?;
        Ok(Sampler { unet, controlnet, adapters })
    }

    fn load_vae_from(&self, sd: &Opened, cx: &Cx) -> Result<Vae> {
        let config = self.config(sd, cx, VAE, |c| c.vae.clone(), VaeConfig::infer)?;
        Vae::load(&Scope::new(cx, sd.source(), VAE), &config)
    }

    fn unet_config(&self, sd: &Opened, cx: &Cx) -> Result<DenoiserConfig> {
        self.config(sd, cx, UNET, |c| c.denoiser.clone(), |s| DenoiserConfig::infer(s, 1))
    }

    fn load_unet_from(&self, sd: &Opened, cx: &Cx) -> Result<UNet> {
        UNet::load(&Scope::new(cx, sd.source(), UNET), &self.unet_config(sd, cx)?)
    }

    /// ControlNet and adapters, held against the UNet's sizes.
    fn load_control(
        &self,
        cx: &Cx,
        unet: &DenoiserConfig,
        unet_label: &str,
    ) -> Result<(ControlNet, Option<Adapters>)> {
        let tasr = self.tasr();
        let config =
            self.config(&tasr, cx, CONTROLNET, |c| c.denoiser.clone(), |s| DenoiserConfig::infer(s, 2))?;
        if config != *unet {
            return Err(Error::weights(format!(
                "the ControlNet has levels {:?}, text width {}; the UNet of {} has {:?}, {}",
                config.widths, config.context, unet_label, unet.widths, unet.context
            ))
            .at(tasr.label())
            .fix("give files that belong together"));
        }
        let controlnet = ControlNet::load(&Scope::new(cx, tasr.source(), CONTROLNET), &config)?;
        let scope = Scope::new(cx, tasr.source(), ADAPTER);
        let variant = self.variant(&scope, tasr.label())?;
        let adapters = variant.map(|variant| Adapters::load(&scope, &config, variant)).transpose()?;
        drop(scope);
        let prefixes: &[&str] = if variant.is_some() { &[CONTROLNET, ADAPTER] } else { &[CONTROLNET] };
        tasr.finish(prefixes)?;
        Ok((controlnet, adapters))
    }

    /// The adapters to load, after holding the choice against the file.
    fn variant(&self, scope: &Scope, label: &str) -> Result<Option<Variant>> {
        let held = match self.origin {
            Origin::Files(_) => Adapters::detect(scope),
            Origin::Synthetic(_) => match self.adapter {
                AdapterChoice::Only(variant) => Some(variant),
                AdapterChoice::Held => Some(Variant::Official),
                AdapterChoice::None => None,
            },
        };
        let refuse = |what: String, fix: &str| Err(Error::weights(what).at(label).fix(fix));
        match (self.adapter, held) {
            (AdapterChoice::None, _) => Ok(None),
            (AdapterChoice::Held, Some(held)) => Ok(Some(held)),
            (AdapterChoice::Only(wanted), Some(held)) if wanted == held => Ok(Some(held)),
            (AdapterChoice::Only(wanted), Some(held)) => refuse(
                format!("holds {} adapters, --adapter asks for {}", held.name(), wanted.name()),
                "leave --adapter out to take what the file holds",
            ),
            (_, None) => refuse(
                "holds no adapters (checkpoint_adapter.*)".into(),
                "give the TASR file, or --adapter none for a plain ControlNet",
            ),
        }
    }
}

/// The names under which weights are looked for in a models folder: SD 2.1, TASR, stage 1.
pub const FILE_NAMES: [&[&str]; 3] = [
    &[
        "sd.safetensors",
        "v2-1_512-ema-pruned.safetensors",
        "v2-1_512-ema-pruned.ckpt",
        "sd21",
        "stable-diffusion-2-1-base",
    ],
    &["tasr.safetensors", "tasr_v1.pt", "tasr_v1.pth", "tasr_v1.ckpt"],
    &["stage1.safetensors", "BSRNet.pth", "BSRGAN.pth", "RealESRGAN_x4plus.pth"],
];

/// The first file of `FILE_NAMES[which]` that `folder` has.
pub fn find_in(folder: &Path, which: usize) -> Option<PathBuf> {
    FILE_NAMES.get(which)?.iter().map(|name| folder.join(name)).find(|path| path.exists())
}
