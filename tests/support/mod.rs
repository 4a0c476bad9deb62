//! What the test targets share: random inputs, oracles in f64, a comparator, and trials that run an op on a
//! device.

#![allow(dead_code, unused_imports)] // every test target uses its own part of this

pub mod array;
pub mod compare;
pub mod gradient;
pub mod oracle;
pub mod random;
pub mod trial;

pub use array::Array;
pub use compare::{Tolerance, compare};
pub use gradient::check_gradients;
pub use random::Random;
pub use trial::{Trial, Types, run};
