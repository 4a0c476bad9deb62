//! Virtual concatenation along the channels: norms and convolutions read the parts in place.

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// One part of a concatenation: `tensor`, or `tensor + plus`, [N, H, W, C].
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub tensor: &'a Tensor,
    pub plus: Option<&'a Tensor>,
}

/// Parts that share [N, H, W], one after the other along C.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    parts: Vec<Segment<'a>>,
}

impl<'a> Segments<'a> {
    /// A single tensor.
    pub fn one(tensor: &'a Tensor) -> Self {
        Segments { parts: vec![Segment { tensor, plus: None }] }
    }

    /// Several tensors in order.
    pub fn cat(tensors: &[&'a Tensor]) -> Self {
        Segments { parts: tensors.iter().map(|&tensor| Segment { tensor, plus: None }).collect() }
    }

    /// Parts that may be sums of two tensors.
    pub fn new(parts: Vec<Segment<'a>>) -> Self {
        Segments { parts }
    }

    pub fn parts(&self) -> &[Segment<'a>] {
        &self.parts
    }

    /// Every tensor read, sums taken apart.
    pub fn tensors(&self) -> Vec<&'a Tensor> {
        self.parts.iter().flat_map(|part| std::iter::once(part.tensor).chain(part.plus)).collect()
    }

    /// The same with its own handles to the tensors.
    pub fn owned(&self) -> OwnedSegments {
        OwnedSegments(self.parts.iter().map(|part| (part.tensor.clone(), part.plus.cloned())).collect())
    }

    /// The element type of every part.
    ///
    /// # Errors
    /// The parts differ.
    pub fn dtype(&self) -> Result<DType> {
        let tensors = self.tensors();
        match tensors.first().map(|tensor| tensor.dtype()) {
            Some(dtype) if tensors.iter().all(|tensor| tensor.dtype() == dtype) => Ok(dtype),
            _ => Err(Error::internal("segments of different element types")),
        }
    }

    /// [N, H, W, C] of the concatenation.
    ///
    /// # Errors
    /// A part is not an image or differs from the others in N, H or W.
    pub fn nhwc(&self) -> Result<[usize; 4]> {
        let first = self.parts.first().ok_or_else(|| Error::internal("an op was given no input"))?;
        let [n, h, w, _] = first.tensor.nhwc()?;
        let mut channels = 0;
        for part in &self.parts {
            let shape = part.tensor.nhwc()?;
            if shape[..3] != [n, h, w] || part.plus.is_some_and(|plus| plus.shape() != part.tensor.shape()) {
                return Err(Error::internal(format!("segment {shape:?} does not join [{n}, {h}, {w}, _]")));
            }
            channels += shape[3];
        }
        Ok([n, h, w, channels])
    }
}

/// [`Segments`] that own their tensors: what a backward keeps.
#[derive(Clone, Debug)]
pub struct OwnedSegments(Vec<(Tensor, Option<Tensor>)>);

impl OwnedSegments {
    /// Every tensor replaced by what `to` makes of it.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn map(self, to: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let part = |(tensor, plus): (Tensor, Option<Tensor>)| {
            Ok((to(&tensor)?, plus.as_ref().map(&to).transpose()?))
        };
        self.0.into_iter().map(part).collect::<Result<_>>().map(OwnedSegments)
    }

    pub fn view(&self) -> Segments<'_> {
        Segments {
            parts: self.0.iter().map(|(tensor, plus)| Segment { tensor, plus: plus.as_ref() }).collect(),
        }
    }
}
