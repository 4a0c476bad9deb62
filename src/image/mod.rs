//! Pictures: everything between a file and `f32` pixels on the host.
//!
//! * [`discover`] and [`plan`](mod@plan): which files to read and what each output is called;
//! * [`decode`](mod@decode): PNG, JPEG, WebP, TIFF, BMP to a [`Picture`];
//! * [`alpha`], [`resize`]: transparency kept out of the network's way, and put back;
//! * [`encode`](mod@encode): a [`Picture`] to a file, whole or not at all;
//! * [`hash`]: the fingerprint that seeds the noise.

pub mod alpha;
pub mod decode;
pub mod discover;
pub mod encode;
pub mod format;
pub mod hash;
pub mod picture;
pub mod plan;
pub mod resize;

pub use alpha::{network_colour, recombine};
pub use decode::{DecodeLimits, decode, decode_bytes, stated_size};
pub use discover::{Source, discover};
pub use encode::{EncodeOptions, Encoded, check_size, encode, encode_bytes, write_whole};
pub use format::Format;
pub use hash::content_hash;
pub use picture::{Picture, to_byte};
pub use plan::{FormatChoice, Job, OutputRules, plan};
