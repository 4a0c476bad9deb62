//! Pictures: files to `f32` and back.

mod alpha;
mod counting;
mod damage;
mod discover;
mod encode;
mod formats;
mod make;
mod orientation;
mod resize;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;
