//! The safetensors writer.

use std::collections::BTreeMap;

use half::{bf16, f16};
use tasr::weights::write::{TensorSpec, Writer};
use tasr::weights::{Checkpoint, Dtype};

use crate::support::torch_file::{Py, View, checkpoint, dict};
use crate::support::{f32_bytes, put};

#[test]
fn round_trip_in_any_order_with_metadata() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("out.safetensors");
    let specs = vec![
        TensorSpec::new("half \"quoted\"", Dtype::F16, &[3]),
        TensorSpec::new("full", Dtype::F32, &[2, 1]),
        TensorSpec::new("brain", Dtype::BF16, &[1]),
        TensorSpec::new("wide", Dtype::F64, &[]),
        TensorSpec::new("ids", Dtype::I64, &[2]),
        TensorSpec::new("none", Dtype::F32, &[0, 4]),
    ];
    let metadata = BTreeMap::from([("kind".to_owned(), "test".to_owned())]);
    let mut out = Writer::create(&path, specs, &metadata).expect("create");
    let ids: Vec<u8> = [5i64, -6].iter().flat_map(|v| v.to_le_bytes()).collect();
    out.write_bytes("ids", &ids).expect("ids");
    out.write_f32("full", &[0.1, -0.2]).expect("full");
    out.write_f32("half \"quoted\"", &[0.1, 70000.0, f32::INFINITY]).expect("half");
    out.write_f32("brain", &[0.1]).expect("brain");
    out.write_f32("wide", &[0.1]).expect("wide");
    out.write_f32("none", &[]).expect("none");
    assert!(!path.exists(), "the name appears when the file is whole");
    assert_eq!(out.finish().expect("finish"), ["half \"quoted\""], "70000 is beyond float16");

    let bytes = std::fs::read(&path).expect("read");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    assert_eq!(header % 8, 0);
    let parsed = safetensors::SafeTensors::deserialize(&bytes).expect("the format's own reader");
    assert_eq!(parsed.len(), 6);
    let file = Checkpoint::open(&path).expect("opens");
    assert_eq!(file.metadata()["kind"], "test");
    assert_eq!(file.bytes_f32_le("full"), Some(&[0.1, -0.2][..]));
    let half = file.get("half \"quoted\"").and_then(|t| t.f16s()).expect("aligned");
    assert_eq!(half, [f16::from_f32(0.1), f16::INFINITY, f16::INFINITY]);
    assert_eq!(file.get("brain").and_then(|t| t.bf16s()).expect("aligned"), [bf16::from_f32(0.1)]);
    let mut wide = [0f64];
    file.read("wide", &mut wide).expect("wide");
    assert_eq!(wide, [f64::from(0.1f32)]);
    assert_eq!(file.get("ids").and_then(|t| t.bytes()), Some(&ids[..]));
    assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 1, "no temporary file stays");
}

#[test]
fn stored_tensors_stream_and_convert() {
    let folder = tempfile::tempdir().expect("folder");
    let count = (1 << 20) + 77;
    let values: Vec<f32> = (0..count * 2).map(|i| (i as f32).sin() * 300.0).collect();
    let strided = View { shape: vec![2, count], strides: vec![1, 2], ..View::whole("0", &[2 * count]) };
    let large = View { shape: vec![1], strides: vec![1], ..View::whole("1", &[1]) };
    let root = dict(vec![("t", Py::Tensor(strided)), ("large", Py::Tensor(large))]);
    let source = checkpoint(&root, &[("0", f32_bytes(&values)), ("1", f32_bytes(&[1e6]))]);
    let source = Checkpoint::open(&put(folder.path(), "in.ckpt", &source)).expect("opens");
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64] {
        let path = folder.path().join("out");
        let specs = ["t", "large"]
            .map(|name| TensorSpec::new(name, dtype, source.get(name).expect("tensor").shape()));
        let mut out = Writer::create(&path, specs.to_vec(), &BTreeMap::new()).expect("create");
        for (name, entry) in source.iter() {
            out.write_entry(name, entry).expect(name);
        }
        let overflowed = out.finish().expect("finish");
        assert_eq!(overflowed, if dtype == Dtype::F16 { vec!["large"] } else { vec![] });
        let made = Checkpoint::open(&path).expect("opens");
        let mut found = vec![0f32; values.len()];
        made.read_f32("t", &mut found).expect("read");
        let count = count as usize;
        for (i, value) in found.iter().enumerate() {
            let exact = values[(i % count) * 2 + i / count];
            let expected = match dtype {
                Dtype::F16 => f16::from_f32(exact).to_f32(),
                Dtype::BF16 => bf16::from_f32(exact).to_f32(),
                _ => exact,
            };
            assert_eq!(*value, expected, "{dtype} {i}");
        }
    }
}

#[test]
fn misuse_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("out");
    let specs = || vec![TensorSpec::new("a", Dtype::F32, &[2]), TensorSpec::new("n", Dtype::I64, &[1])];
    let twice = vec![TensorSpec::new("a", Dtype::F32, &[2]); 2];
    assert!(Writer::create(&path, twice, &BTreeMap::new()).is_err());
    assert!(Writer::create(&folder.path().join("no/such/folder"), specs(), &BTreeMap::new()).is_err());
    let mut out = Writer::create(&path, specs(), &BTreeMap::new()).expect("create");
    assert!(out.write_f32("b", &[1.0]).is_err());
    assert!(out.write_f32("a", &[1.0]).is_err());
    assert!(out.write_f32("n", &[1.0]).is_err());
    out.write_f32("a", &[1.0, 2.0]).expect("fits");
    assert!(out.write_f32("a", &[1.0, 2.0]).is_err());
    drop(out);
    let out = Writer::create(&path, specs(), &BTreeMap::new()).expect("create");
    assert!(out.finish().expect_err("incomplete").to_string().contains("not written"));
    assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
}
