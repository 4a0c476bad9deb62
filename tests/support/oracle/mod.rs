//! Every op written from its formula, in f64, with no regard to speed.

pub mod attention;
pub mod conv;
pub mod image;
pub mod linear;
pub mod norm;
pub mod pointwise;
