//! Noise replayed from a file, to repeat a run of another program exactly.

use crate::error::{Error, Result};
use crate::sampler::noise::NoiseSource;
use std::collections::HashMap;

/// Prefix of a draw's name in a file.
const PREFIX: &str = "noise.";

/// Noise given by name: `noise.start` holds the draw `start` as `[N, C, H, W]`, where N counts the images of the
/// run in their order; a batch takes the rows of its images.
#[derive(Clone, Debug)]
pub struct Replay {
    source: String,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
    first: usize,
    selected: usize,
}

impl Replay {
    /// Keeps the tensors named `noise.*` and drops the others, so that a whole trace can be given. `source` says
    /// where they come from, for messages: the file's name.
    ///
    /// # Errors
    /// An input error when none is there, when one is not `[N, C, H, W]` with that many values, or when one holds a
    /// value that is not finite.
    pub fn new(source: &str, tensors: HashMap<String, (Vec<usize>, Vec<f32>)>) -> Result<Replay> {
        let mut kept = HashMap::new();
        for (name, (shape, values)) in tensors {
            let Some(draw) = name.strip_prefix(PREFIX) else { continue };
            let refuse = |what: String| Err(Error::input(what).at(format!("{source}: {name}")));
            let elements = shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
            if shape.len() != 4 {
                return refuse(format!(
                    "noise has shape {shape:?}, expected [images, channels, height, width]"
                ));
            }
            if elements != Some(values.len()) {
                return refuse(format!("noise of shape {shape:?} holds {} values", values.len()));
            }
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return refuse(format!("noise value {at} is {}, which no run can use", values[at]));
            }
            kept.insert(draw.to_owned(), (shape, values));
        }
        if kept.is_empty() {
            return Err(Error::input("no tensor is named noise.*, so there is nothing to replay")
                .at(source)
                .fix("give a file that holds noise.start, noise.step0, ..."));
        }
        Ok(Replay { source: source.to_owned(), tensors: kept, first: 0, selected: 0 })
    }
}

impl NoiseSource for Replay {
    fn select(&mut self, first: usize, images: &[u64]) {
        self.first = first;
        self.selected = images.len();
    }

    fn draw(&mut self, name: &str, shape: [usize; 4]) -> Result<Vec<f32>> {
        if shape[0] != self.selected {
            return Err(Error::internal(format!(
                "noise {name} drawn for {} images, {} are selected",
                shape[0], self.selected
            )));
        }
        let place = format!("{}: {PREFIX}{name}", self.source);
        let Some((found, values)) = self.tensors.get(name) else {
            let mut names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
            names.sort_unstable();
            let more = if names.len() > 4 { ", ..." } else { "" };
            names.truncate(4);
            return Err(Error::input("this run needs the noise, but the file lacks it").at(place).fix(format!(
                "check --steps, --better-start and --tile against the recorded run (the file holds {}{more})",
                names.join(", ")
            )));
        };
        if found[1..] != shape[1..] {
            return Err(Error::input(format!(
                "noise has shape {found:?}, the image needs [{}, {}, {}] (channels, height, width)",
                shape[1], shape[2], shape[3]
            ))
            .at(place)
            .fix("replay with the image sizes, --scale and --tile of the recorded run"));
        }
        let rows = found[0];
        let last = self.first.saturating_add(shape[0]);
        if last > rows {
            return Err(Error::input(format!(
                "noise is there for {rows} images, the run asks for image {last}"
            ))
            .at(place)
            .fix("give as many images as the recorded run had, in its order"));
        }
        let size: usize = found[1..].iter().product();
        Ok(values[self.first * size..last * size].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn replay(list: &[(&str, &[usize], usize)]) -> Result<Replay> {
        let tensors = list.iter().map(|(name, shape, count)| {
            (name.to_string(), (shape.to_vec(), (0..*count).map(|i| i as f32).collect()))
        });
        Replay::new("run.safetensors", tensors.collect())
    }

    #[test]
    fn a_batch_takes_its_rows() {
        let mut noise = replay(&[("noise.start", &[3, 2, 1, 2], 12), ("x_start", &[7], 1)]).unwrap();
        noise.select(0, &[9, 9]);
        assert_eq!(noise.draw("start", [2, 2, 1, 2]).unwrap(), [0., 1., 2., 3., 4., 5., 6., 7.]);
        noise.select(2, &[9]);
        assert_eq!(noise.draw("start", [1, 2, 1, 2]).unwrap(), [8., 9., 10., 11.]);
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_named() {
        let mut noise = replay(&[("noise.start", &[3, 2, 1, 2], 12)]).unwrap();
        noise.select(2, &[1, 2]);
        let cases = [
            (
                "step0",
                [2, 2, 1, 2],
                "run.safetensors: noise.step0: this run needs the noise, but the file lacks it",
            ),
            (
                "start",
                [2, 2, 2, 2],
                "run.safetensors: noise.start: noise has shape [3, 2, 1, 2], the image needs [2, 2, 2]",
            ),
            (
                "start",
                [2, 2, 1, 2],
                "run.safetensors: noise.start: noise is there for 3 images, the run asks for image 4",
            ),
        ];
        for (name, shape, message) in cases {
            let error = noise.draw(name, shape).unwrap_err();
            assert_eq!(error.kind(), Kind::Input);
            assert!(error.to_string().starts_with(message), "{error}");
        }
        assert_eq!(noise.draw("start", [1, 2, 1, 2]).unwrap_err().kind(), Kind::Internal);
    }

    #[test]
    fn damaged_files_are_refused_at_once() {
        for (list, message) in [
            (&[("x_start", &[1usize, 1, 1, 1][..], 1)][..], "run.safetensors: no tensor is named noise.*"),
            (&[("noise.start", &[2, 2], 4)], "run.safetensors: noise.start: noise has shape [2, 2]"),
            (
                &[("noise.start", &[1, 2, 1, 2], 3)],
                "run.safetensors: noise.start: noise of shape [1, 2, 1, 2] holds 3",
            ),
            (&[("noise.start", &[usize::MAX, 2, 2, 2], 3)], "run.safetensors: noise.start: noise of shape"),
        ] {
            let error = replay(list).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
        }
        let nan = HashMap::from([("noise.a".to_owned(), (vec![1, 1, 1, 2], vec![0.0, f32::NAN]))]);
        assert!(
            Replay::new("f", nan).unwrap_err().to_string().starts_with("f: noise.a: noise value 1 is NaN")
        );
    }
}
