//! What the CPU sides of the ops share: matrix products, vectorised functions, work on rows.

pub mod math;
pub mod matmul;
pub mod rows;
