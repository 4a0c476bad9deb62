//! Pointwise functions that ops apply in passing.

/// A pointwise function.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    #[default]
    None,
    /// x * sigmoid(x)
    Silu,
    /// max(x, 0)
    Relu,
    /// x for x > 0, else slope * x
    LeakyRelu(f32),
    /// x * Phi(x), the exact form with erf
    Gelu,
}
