//! Moments of the autoencoder kept on disk: where crops and degradations repeat, pictures are encoded once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// A folder of encoded pictures. A picture is known by its values, and by the weights that encode it.
pub struct LatentCache {
    folder: PathBuf,
    weights: u64,
}

impl LatentCache {
    /// Uses `folder`, made if need be; `weights` tells autoencoders apart.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: &Path, weights: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, &e))?;
        Ok(LatentCache { folder: folder.to_owned(), weights })
    }

    /// Moments f32 [N, h, w, 8] of images [N, H, W, 3] in [-1, 1]: from the folder, else encoded one by one, so that
    /// they are the same whichever of them were there.
    ///
    /// # Errors
    /// The device fails, or a file cannot be written.
    pub fn moments(&self, cx: &Cx, vae: &Vae, images: &Tensor) -> Result<Tensor> {
        let [n, h, w, _] = images.nhwc()?;
        let mut parts = Vec::with_capacity(n);
        for i in 0..n {
            let image = images.narrow(i, 1)?;
            let values = image.to_f32()?;
            let sides = [h as u64, w as u64, self.weights].into_iter().flat_map(u64::to_le_bytes);
            let hash = fnv1a_64(sides.chain(values.iter().flat_map(|v| v.to_le_bytes())));
            let path = self.folder.join(format!("{hash:016x}.safetensors"));
            let shape = [1, h / vae.factor(), w / vae.factor(), 2 * vae.latent()];
            parts.push(match kept(&path, &shape) {
                Some(values) => Tensor::from_f32(cx.device(), &values, shape)?,
                None => {
                    let moments = vae.moments(cx, &image)?;
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
