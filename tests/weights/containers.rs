//! Files told by content, safetensors, shards, and what is no checkpoint at all.

use std::path::Path;

use tasr::error::Kind;
use tasr::weights::{Checkpoint, Dtype};

use crate::support::torch_file::{View, checkpoint, dict};
use crate::support::{f32_bytes, put, safetensors_bytes, torch_file::Py};

fn failure(path: &Path) -> String {
    Checkpoint::open(path).err().expect("must be refused").to_string()
}

fn sample() -> Vec<u8> {
    safetensors_bytes(&[
        ("b", "F32", vec![2, 2], f32_bytes(&[1.0, 2.0, 3.0, 4.0])),
        ("a", "I64", vec![1], vec![7, 0, 0, 0, 0, 0, 0, 0]),
        ("empty", "F16", vec![0, 3], vec![]),
    ])
}

#[test]
fn safetensors_are_read_in_place_whatever_the_extension() {
    let folder = tempfile::tempdir().expect("folder");
    let file = Checkpoint::open(&put(folder.path(), "model.ckpt", &sample())).expect("opens");
    assert_eq!(file.len(), 3);
    let b = file.get("b").expect("tensor");
    assert_eq!((b.dtype(), b.shape(), b.strides()), (Dtype::F32, &[2, 2][..], Some(&[2, 1][..])));
    assert_eq!(b.bytes().expect("contiguous"), f32_bytes(&[1.0, 2.0, 3.0, 4.0]));
    assert!(b.source().ends_with("model.ckpt"));
    let mut out = [0.0; 4];
    file.read_f32("b", &mut out).expect("read");
    assert_eq!(out, [1.0, 2.0, 3.0, 4.0]);
    assert!(file.read_f32("b", &mut [0.0; 3]).is_err());
    assert!(file.require("zz").err().expect("absent").to_string().contains("model.ckpt: zz"));
}

#[test]
fn damage_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let say = |bytes: &[u8]| failure(&put(folder.path(), "f.safetensors", bytes));
    let good = sample();
    assert!(say(&good[..good.len() - 4]).contains("the tensors need 24 bytes, the file has 20"));
    assert!(say(&good[..40]).contains("cut off"));
    assert!(say(&[&good[..], b"tail"].concat()).contains("4 bytes follow the last tensor"));
    assert!(say(b"").contains("empty"));
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(say(&huge).contains("claims 18446744073709551615 bytes"));
    let mut broken = good.clone();
    broken[12] = 0xFF;
    assert!(say(&broken).contains("header is damaged"));
    let header = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    let overlap = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert!(say(&[header(overlap), vec![0; 4]].concat()).contains("damaged"));
    let giant =
        r#"{"a":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}}"#;
    assert!(say(&header(giant)).contains("need 2305843009213693951 bytes"));
    assert_eq!(Checkpoint::open(folder.path()).err().expect("folder").kind(), Kind::Weights);
    assert_eq!(Checkpoint::open(&folder.path().join("none")).err().expect("absent").kind(), Kind::Io);
}

#[test]
fn foreign_element_types_are_skipped_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    let bytes =
        safetensors_bytes(&[("q", "F8_E4M3", vec![2], vec![1, 2]), ("w", "F32", vec![1], f32_bytes(&[1.0]))]);
    let file = Checkpoint::open(&put(folder.path(), "f", &bytes)).expect("opens");
    assert_eq!(file.names().collect::<Vec<_>>(), ["w"]);
    assert_eq!(file.skipped()[0].name, "q");
}

#[test]
fn flat_wrappers_and_parallel_prefixes_are_removed() {
    let folder = tempfile::tempdir().expect("folder");
    let one = |value| f32_bytes(&[value]);
    let bytes = safetensors_bytes(&[
        ("params.module.w", "F32", vec![1], one(1.0)),
        ("params_ema.module._orig_mod.w", "F32", vec![1], one(2.0)),
    ]);
    let file = Checkpoint::open(&put(folder.path(), "f", &bytes)).expect("opens");
    assert_eq!(file.names().collect::<Vec<_>>(), ["w"]);
    assert_eq!(file.bytes_f32_le("w").map_or(0.0, |w| w[0]), 2.0);
}

#[test]
fn shards_make_one_set() {
    let folder = tempfile::tempdir().expect("folder");
    let shard = |name| safetensors_bytes(&[(name, "F32", vec![1], f32_bytes(&[1.0]))]);
    put(folder.path(), "m-00001-of-00002.safetensors", &shard("a"));
    let index = |map: &str| put(folder.path(), "m.safetensors.index.json", map.as_bytes());
    let whole = r#"{"metadata":{"total_size":8},"weight_map":{"a":"m-00001-of-00002.safetensors","b":"m-00002-of-00002.safetensors"}}"#;
    assert!(failure(&index(whole)).contains("m-00002-of-00002.safetensors is missing"));
    put(folder.path(), "m-00002-of-00002.safetensors", &shard("b"));
    let file = Checkpoint::open(&index(whole)).expect("opens");
    assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b"]);
    assert!(
        failure(&index(r#"{"weight_map":{"a":"../m-00001-of-00002.safetensors"}}"#))
            .contains("no file of its folder")
    );
    assert!(
        failure(&index(r#"{"weight_map":{"z":"m-00001-of-00002.safetensors"}}"#)).contains("no shard holds")
    );
    assert!(
        failure(&index(r#"{"weight_map":{"a":"m.safetensors.index.json"}}"#))
            .contains("no file of its folder")
    );
    put(folder.path(), "m-00002-of-00002.safetensors", &shard("a"));
    assert!(failure(&index(whole)).contains("is also in"));
}

#[test]
fn several_files_merge() {
    let folder = tempfile::tempdir().expect("folder");
    let torch =
        checkpoint(&dict(vec![("w", Py::Tensor(View::whole("0", &[1])))]), &[("0", f32_bytes(&[9.0]))]);
    let paths = [put(folder.path(), "a", &sample()), put(folder.path(), "b", &torch)];
    let both = Checkpoint::open_all(&paths).expect("opens");
    assert_eq!(both.len(), 4);
    let error = Checkpoint::open_all(&[paths[0].clone(), paths[0].clone()]).err().expect("twice").to_string();
    assert!(error.contains("two tensors are called"), "{error}");
}

/// Bytes of this process that lie in memory.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[cfg(target_os = "linux")]
#[test]
fn a_converted_tensor_gives_its_memory_back() {
    const COUNT: usize = 100 << 20;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("large");
    let spec = ("w".to_owned(), "float16".to_owned(), vec![COUNT]);
    crate::support::sparse_safetensors(&path, &[spec]);
    let file = Checkpoint::open(&path).expect("opens");
    let mut out = vec![1f32; 1 << 20];
    for first in (0..COUNT).step_by(out.len()) {
        file.get("w").expect("tensor").read_at(first, &mut out).expect("read");
    }
    let held = resident();
    file.release("w");
    let freed = held.saturating_sub(resident());
    // Other tests run beside this one, so the two readings differ by a little more or less.
    assert!(freed > COUNT * 2 * 3 / 4, "of {} bytes only {freed} were given back", COUNT * 2);
    assert_eq!(out, vec![0.0; 1 << 20]);
}
