//! Moments of the autoencoder kept on disk: where crops and degradations repeat, pictures are encoded once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::config::Config;
use crate::error::{Error, Result};
use crate::image::hash::fnv1a_64;
use crate::models::Vae;
use crate::ops::Cx;
use crate::ops::elementwise::{combine, stack};
use crate::tensor::Tensor;
use crate::weights::write::{TensorSpec, Writer};
use crate::weights::{Checkpoint, Dtype};

/// The tensor of a file.
const NAME: &str = "moments";

/// A folder of encoded pictures. A picture is known by its values, and by the weights that clean and encode it.
pub struct LatentCache {
    folder: PathBuf,
    weights: u64,
}

impl LatentCache {
    /// The cache that `config` wants, if any; `cx` says whether anything is computed that could be kept.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn wanted(cx: &Cx, config: &Config) -> Result<Option<Self>> {
        match config.latent_cache.as_deref().filter(|_| !cx.device().is_plan()) {
            None => Ok(None),
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, &e))?;
                Ok(Some(LatentCache { folder: folder.to_owned(), weights: weights(config) }))
            }
        }
    }

    /// Moments f32 [N, h, w, 2C] of the images [1, H, W, 3] in [-1, 1] that `shown` makes of each of `pictures`
    /// [N, ...]: from the folder, else made and encoded one by one, so that they are the same whichever of them were
    /// there. `size` is H and W.
    ///
    /// # Errors
    /// The device fails, or a file cannot be written.
    pub fn moments(
        &self,
        cx: &Cx,
        vae: &Vae,
        pictures: &Tensor,
        [height, width]: [usize; 2],
        shown: &dyn Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let [n, h, w, _] = pictures.nhwc()?;
        let mut parts = Vec::with_capacity(n);
        for i in 0..n {
            let picture = pictures.narrow(i, 1)?;
            let values = picture.to_f32()?;
            let sides = [h as u64, w as u64, self.weights].into_iter().flat_map(u64::to_le_bytes);
            let hash = fnv1a_64(sides.chain(values.iter().flat_map(|v| v.to_le_bytes())));
            let path = self.folder.join(format!("{hash:016x}.safetensors"));
            let shape = [1, height / vae.factor(), width / vae.factor(), 2 * vae.latent()];
            parts.push(match kept(&path, &shape) {
                Some(values) => Tensor::from_f32(cx.device(), &values, shape)?,
                None => {
                    let moments = vae.moments(cx, &shown(&picture)?)?;
                    keep(&path, &shape, &moments.to_f32()?)?;
                    moments
                }
            });
        }
        match &parts[..] {
            [one] => combine(cx, &[(1.0, one)], 0.0),
            _ => stack(cx, &parts.iter().collect::<Vec<_>>()),
        }
    }
}

/// What tells the networks of this run from others: names, sizes and times of their files.
fn weights(config: &Config) -> u64 {
    let model = &config.model;
    let file = |path: &Option<PathBuf>| {
        let about = path.as_deref().and_then(|path| path.metadata().ok());
        format!("{path:?}{:?}", about.map(|about| (about.len(), about.modified().ok())))
    };
    let files = [&model.models, &model.sd, &model.swinir, &model.stage1].map(file);
    fnv1a_64(format!("{files:?}{:?}{:?}", model.preset, config.cleaner).bytes())
}

/// The values of a whole file of this shape; one that is damaged counts as absent.
fn kept(path: &Path, shape: &[usize]) -> Option<Vec<f32>> {
    let file = path.exists().then(|| Checkpoint::open(path).ok())??;
    let mut values = vec![0.0; shape.iter().product()];
    (file.get(NAME)?.shape() == shape).then_some(())?;
    file.read_f32(NAME, &mut values).ok()?;
    Some(values)
}

fn keep(path: &Path, shape: &[usize], values: &[f32]) -> Result<()> {
    let mut writer = Writer::create(path, vec![TensorSpec::new(NAME, Dtype::F32, shape)], &BTreeMap::new())?;
    writer.write_f32(NAME, values)?;
    writer.finish().map(|_| ())
}
