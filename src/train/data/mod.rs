//! Training data: lists of pictures with prompts, samples made by worker threads.

mod dataset;
mod list;
mod loader;

pub use dataset::{DataOptions, Dataset, Sample};
pub use list::{Entry, PromptSource, entries};
pub use loader::Loader;
