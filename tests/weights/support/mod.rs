//! Makes checkpoint files: PyTorch zips by a small pickle writer, safetensors with or without data,
//! and the manifests of published files.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

pub mod bytes;
pub mod torch_file;

pub use bytes::{f32_bytes, put, safetensors_bytes};

/// One line of a manifest: name, dtype as PyTorch calls it, shape.
pub type Spec = (String, String, Vec<usize>);

/// The tensors of a published file, from tests/fixtures/keys.
pub fn manifest(name: &str) -> Vec<Spec> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys").join(format!("{name}.txt.gz"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(File::open(path).expect("fixture")).read_to_string(&mut text).expect("gzip");
    text.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let (name, dtype) = (words.next().expect("name"), words.next().expect("dtype"));
            let shape = words.next().expect("shape");
            let shape =
                shape.split('x').filter(|d| !d.is_empty()).map(|d| d.parse().expect("size")).collect();
            (name.to_owned(), dtype.to_owned(), shape)
        })
        .collect()
}

/// The manifest with `prefix` before every name.
pub fn prefixed(prefix: &str, specs: Vec<Spec>) -> Vec<Spec> {
    specs.into_iter().map(|(name, dtype, shape)| (format!("{prefix}{name}"), dtype, shape)).collect()
}

fn safetensors_dtype(dtype: &str) -> (&'static str, usize) {
    match dtype {
        "float32" => ("F32", 4),
        "float16" => ("F16", 2),
        "bfloat16" => ("BF16", 2),
        "int64" => ("I64", 8),
        "int32" => ("I32", 4),
        other => panic!("{other} is not in the manifests"),
    }
}

/// A safetensors file of full size whose data is a hole: gigabytes of zeros that take no space.
pub fn sparse_safetensors(path: &Path, specs: &[Spec]) {
    let mut header = Map::new();
    let mut at = 0;
    for (name, dtype, shape) in specs {
        let (dtype, size) = safetensors_dtype(dtype);
        let end = at + size * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let header = Value::Object(header).to_string();
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
    let mut file = File::create(path).expect("file");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("write");
    file.write_all(header.as_bytes()).expect("write");
    file.set_len((8 + header.len() + at) as u64).expect("length");
}
