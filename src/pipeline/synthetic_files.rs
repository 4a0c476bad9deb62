//! Synthetic checkpoints: the files of a whole system under the published names, with weights that are pure
//! functions of their names (see [`crate::weights::synthetic`]). They stand in for the published weights
//! wherever pictures do not matter: tests, benchmarks, trying the program out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::progress::{FileEnd, Progress};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::models::config::SystemConfig;
use crate::models::text::TextEncoder;
use crate::models::{Adapters, ControlNet, RrdbNet, UNet, Vae, Variant};
use crate::nn::Scope;
use crate::ops::Cx;
use crate::tensor::DType;
use crate::weights::names::{ADAPTER, CONDITIONING, CONTROLNET, UNET, VAE};
use crate::weights::space::require_space;
use crate::weights::write::{TensorSpec, Writer};
use crate::weights::{Dtype, Manifest, synthetic};

/// Names and shapes of a file's tensors.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// The checkpoints of one system.
#[derive(Clone, Debug)]
pub struct SyntheticFiles {
    preset: String,
    config: SystemConfig,
    variant: Option<Variant>,
}

impl SyntheticFiles {
    /// The system of a preset (`sd21`, `mini`, `tiny`), with adapters of `variant` or none.
    ///
    /// # Errors
    /// There is no such preset.
    pub fn new(preset: &str, variant: Option<Variant>) -> Result<Self> {
        Ok(SyntheticFiles { preset: preset.to_owned(), config: SystemConfig::preset(preset)?, variant })
    }

    /// A system of other sizes, called `name` in the files.
    pub fn of(name: &str, config: SystemConfig, variant: Option<Variant>) -> Self {
        SyntheticFiles { preset: name.to_owned(), config, variant }
    }

    /// The tensors of each file, in the order of loading: exactly those that the networks of these sizes expect.
    ///
    /// # Errors
    /// Sizes that no network can have.
    pub fn manifests(&self) -> Result<[(&'static str, Shapes); 3]> {
        let cx = Cx::new(Device::plan(Target::Cpu), DType::F32)?;
        let (sd, tasr, stage1) = (Manifest::default(), Manifest::default(), Manifest::default());
        UNet::load(&Scope::new(&cx, &sd, UNET), &self.config.denoiser)?;
        Vae::load(&Scope::new(&cx, &sd, VAE), &self.config.vae)?;
        TextEncoder::load(&Scope::new(&cx, &sd, CONDITIONING), &self.config.text)?;
        ControlNet::load(&Scope::new(&cx, &tasr, CONTROLNET), &self.config.denoiser)?;
        if let Some(variant) = self.variant {
            Adapters::load(&Scope::new(&cx, &tasr, ADAPTER), &self.config.denoiser, variant)?;
        }
        RrdbNet::load(&Scope::new(&cx, &stage1, ""), &self.config.rrdb)?;
        Ok([
            ("sd.safetensors", sd.into_tensors()),
            ("tasr.safetensors", tasr.into_tensors()),
            ("stage1.safetensors", stage1.into_tensors()),
        ])
    }

    /// Writes the three files into `folder`, which is made if need be, with values rounded to `dtype`. Each file
    /// gets its name when it is whole. Returns their paths.
    ///
    /// # Errors
    /// A file is there already and `overwrite` is false; the disk has not enough room or cannot be written; an
    /// interrupt.
    pub fn write(
        &self,
        folder: &Path,
        dtype: Dtype,
        overwrite: bool,
        progress: &dyn Progress,
    ) -> Result<Vec<PathBuf>> {
        let files = self.manifests()?;
        let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
        if let Some(there) = paths.iter().find(|path| path.exists() && !overwrite) {
            return Err(Error::usage("the file exists already")
                .at(there.display().to_string())
                .fix("give another folder with -o, or --overwrite to replace it"));
        }
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, &e))?;
        let sizes = files.each_ref().map(|(_, shapes)| byte_count(shapes, dtype));
        require_space(&paths[0], sizes.iter().sum())?;
        progress.begin_run(files.len());
        for ((path, (name, shapes)), bytes) in paths.iter().zip(&files).zip(sizes) {
            progress.begin_file(name);
            self.write_file(path, shapes, dtype, bytes, progress)?;
            progress.end_file(name, FileEnd::Written { output: &path.display().to_string() });
        }
        Ok(paths)
    }

    fn write_file(
        &self,
        path: &Path,
        shapes: &Shapes,
        dtype: Dtype,
        bytes: u64,
        progress: &dyn Progress,
    ) -> Result<()> {
        let metadata = BTreeMap::from([
            ("format".to_owned(), "pt".to_owned()),
            ("tasr.weights".to_owned(), "synthetic: values are functions of tensor names".to_owned()),
            ("tasr.preset".to_owned(), self.preset.clone()),
        ]);
        let specs = shapes.iter().map(|(name, shape)| TensorSpec::new(name, dtype, shape)).collect();
        let mut writer = Writer::create(path, specs, &metadata)?;
        progress.steps("writing, MB", (bytes / STEP) as usize);
        let done = AtomicU64::new(0);
        for (name, shape) in shapes {
            writer.write_made(name, |first, out| {
                progress.check_interrupt()?;
                synthetic::fill_piece(name, shape, first, out);
                let more = (out.len() * dtype.size()) as u64;
                let before = done.fetch_add(more, Ordering::Relaxed);
                ((before / STEP)..((before + more) / STEP)).for_each(|_| progress.step());
                Ok(())
            })?;
        }
        writer.finish().map(|_| ())
    }
}

/// Bytes of one step of the progress bar.
const STEP: u64 = 1_000_000;

fn byte_count(shapes: &Shapes, dtype: Dtype) -> u64 {
    let values: u64 = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
    values * dtype.size() as u64
}
