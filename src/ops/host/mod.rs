//! What the CPU sides of the ops share: matrix products, vectorised functions, work on rows.

pub mod aligned;
pub mod bf16;
pub mod element;
pub mod math;
pub mod matmul;
pub mod rows;
