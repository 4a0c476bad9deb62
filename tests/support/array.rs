//! Arrays in f64, row-major: the inputs and results of the oracles.

use half::{bf16, f16};
use tasr::tensor::{DType, Shape};

/// What a value is rounded to on a device that computes in half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// as the networks' weights and activations: the context's element type
    Network,
    /// always f32: images, latents, statistics
    Plain,
}

#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
    pub stored: Stored,
}

impl Array {
    pub fn new(shape: &[usize], values: Vec<f64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values do not fill {shape:?}");
        Array { shape: shape.to_vec(), values, stored: Stored::Network }
    }

    /// Filled by the coordinates of each element.
    pub fn build(shape: &[usize], value: impl Fn(&[usize]) -> f64) -> Self {
        let mut place = vec![0; shape.len()];
        let count = shape.iter().product();
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(value(&place));
            for axis in (0..shape.len()).rev() {
                place[axis] += 1;
                if place[axis] < shape[axis] {
                    break;
                }
                place[axis] = 0;
            }
        }
        Self::new(shape, values)
    }

    /// The same, always stored as f32.
    pub fn plain(self) -> Self {
        Array { stored: Stored::Plain, ..self }
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Array { values: self.values.iter().map(|&v| f(v)).collect(), ..self.clone() }
    }

    /// The element at `place`.
    pub fn at(&self, place: &[usize]) -> f64 {
        assert_eq!(place.len(), self.shape.len());
        let index = place.iter().zip(&self.shape).fold(0, |index, (&i, &size)| {
            assert!(i < size, "{place:?} leaves {:?}", self.shape);
            index * size + i
        });
        self.values[index]
    }

    /// [N, H, W, C] of an image.
    pub fn nhwc(&self) -> [usize; 4] {
        self.shape.clone().try_into().expect("an image has four axes")
    }

    pub fn last(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Every value rounded as `dtype` stores it.
    pub fn rounded(&self, dtype: DType) -> Self {
        let dtype = if self.stored == Stored::Plain { DType::F32 } else { dtype };
        self.map(|v| match dtype {
            DType::F32 => f64::from(v as f32),
            DType::F16 => f16::from_f64(v).to_f64(),
            DType::BF16 => bf16::from_f64(v).to_f64(),
        })
    }

    pub fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }
}

/// `sizes` as the shape of a tensor.
pub fn shape(sizes: &[usize]) -> Shape {
    match *sizes {
        [] => Shape::from([]),
        [a] => Shape::from([a]),
        [a, b] => Shape::from([a, b]),
        [a, b, c] => Shape::from([a, b, c]),
        [a, b, c, d] => Shape::from([a, b, c, d]),
        _ => panic!("{sizes:?} has more than four axes"),
    }
}
