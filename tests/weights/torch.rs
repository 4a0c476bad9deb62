//! PyTorch checkpoints: what is read, what is skipped, what is refused, and that nothing runs.

use half::{bf16, f16};
use tasr::error::Error;
use tasr::weights::{Checkpoint, Dtype};

use crate::support::torch_file::{Py, View, Zip, checkpoint, checkpoint_as, dict, pairs, pickle, text, zip};
use crate::support::{f32_bytes, put};

fn open(bytes: &[u8]) -> Result<Checkpoint, Error> {
    let folder = tempfile::tempdir().expect("folder");
    // The map outlives the name.
    Checkpoint::open(&put(folder.path(), "file.ckpt", bytes))
}

fn read(file: &Checkpoint, name: &str) -> Vec<f32> {
    let mut out = vec![f32::NAN; file.get(name).expect(name).count()];
    file.read_f32(name, &mut out).expect(name);
    out
}

fn failure(bytes: &[u8]) -> String {
    open(bytes).err().expect("must be refused").to_string()
}

fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 * 0.5 - 3.0).collect()
}

/// A pickle tensor at `offset` of a storage of 24 floats under key 0.
fn view(offset: i64, shape: &[i64], strides: &[i64]) -> Py {
    Py::Tensor(View { offset, shape: shape.to_vec(), strides: strides.to_vec(), ..View::whole("0", &[24]) })
}

#[test]
fn reads_nested_state_in_both_protocols_and_zip64() {
    let root = dict(vec![
        ("epoch", Py::Int(7)),
        ("global_step", Py::Int(1 << 40)),
        ("rate", Py::Float(0.5)),
        (
            "state_dict",
            Py::Ordered(pairs(vec![
                ("module.a.weight", Py::Parameter(View::whole("0", &[2, 3]))),
                ("module.a.bias", Py::Tensor(View::whole("1", &[]))),
            ])),
        ),
        ("optimizer_states", Py::List(vec![dict(vec![("exp_avg", Py::Tensor(View::whole("0", &[6])))])])),
    ]);
    let storages = [("0", f32_bytes(&ramp(6))), ("1", f32_bytes(&[42.0]))];
    for (protocol, how) in [(2, Zip::Plain), (4, Zip::Plain), (2, Zip::Wide)] {
        let file = open(&checkpoint_as(&root, &storages, protocol, how)).expect("opens");
        assert_eq!(file.names().collect::<Vec<_>>(), ["a.weight", "a.bias"]);
        let weight = file.get("a.weight").expect("weight");
        assert_eq!((weight.dtype(), weight.shape()), (Dtype::F32, &[2, 3][..]));
        assert_eq!(file.bytes_f32_le("a.weight"), Some(&ramp(6)[..]), "aligned storages are read in place");
        assert_eq!(read(&file, "a.bias"), [42.0]);
        assert_eq!(file.metadata()["epoch"], "7");
        assert_eq!(file.metadata()["global_step"], (1u64 << 40).to_string());
        assert_eq!(file.metadata()["rate"], "0.5");
        file.release("a.weight");
        assert_eq!(read(&file, "a.weight"), ramp(6), "released pages load again");
    }
}

#[test]
fn views_share_a_storage_with_any_strides() {
    let root = dict(vec![
        ("plain", view(4, &[2, 3], &[3, 1])),
        ("transposed", view(4, &[3, 2], &[1, 3])),
        ("every_other", view(1, &[4], &[6])),
        ("channels_last", view(0, &[1, 3, 2, 4], &[24, 1, 12, 3])),
        ("expanded", view(5, &[3, 2], &[0, 1])),
        ("empty", view(24, &[0, 5], &[5, 1])),
        ("scalar", view(23, &[], &[])),
    ]);
    let data = ramp(24);
    let file = open(&checkpoint(&root, &[("0", f32_bytes(&data))])).expect("opens");
    let pick = |at: &[usize]| at.iter().map(|i| data[*i]).collect::<Vec<_>>();
    assert_eq!(read(&file, "plain"), data[4..10]);
    assert_eq!(read(&file, "transposed"), pick(&[4, 7, 5, 8, 6, 9]));
    assert_eq!(read(&file, "every_other"), pick(&[1, 7, 13, 19]));
    let expected: Vec<usize> =
        (0..3).flat_map(|c| (0..2).flat_map(move |h| (0..4).map(move |w| c + 12 * h + 3 * w))).collect();
    assert_eq!(read(&file, "channels_last"), pick(&expected));
    assert_eq!(read(&file, "expanded"), pick(&[5, 6, 5, 6, 5, 6]));
    assert!(read(&file, "empty").is_empty());
    assert_eq!(read(&file, "scalar"), [data[23]]);
    assert!(file.bytes_f32_le("transposed").is_none() && file.bytes_f32_le("plain").is_some());
    // Any piece of a strided tensor equals that piece of the whole.
    let whole = read(&file, "channels_last");
    for first in 0..24 {
        for len in 0..=24 - first {
            let mut piece = vec![f32::NAN; len];
            file.get("channels_last").expect("tensor").read_at(first, &mut piece).expect("in range");
            assert_eq!(piece, whole[first..first + len]);
        }
    }
}

#[test]
fn every_element_type_is_read() {
    let tensor = |class, key| Py::Tensor(View { class, ..View::whole(key, &[2]) });
    let classes = [
        ("DoubleStorage", Dtype::F64, [1.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("FloatStorage", Dtype::F32, f32_bytes(&[1.5, -2.0])),
        (
            "HalfStorage",
            Dtype::F16,
            [1.5, -2.0].iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        ),
        (
            "BFloat16Storage",
            Dtype::BF16,
            [1.5, -2.0].iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        ),
        ("LongStorage", Dtype::I64, vec![1; 16]),
        ("IntStorage", Dtype::I32, vec![1; 8]),
        ("ShortStorage", Dtype::I16, vec![1; 4]),
        ("CharStorage", Dtype::I8, vec![1; 2]),
        ("ByteStorage", Dtype::U8, vec![1; 2]),
        ("BoolStorage", Dtype::Bool, vec![1; 2]),
    ];
    for (class, dtype, bytes) in classes {
        let bytes: Vec<u8> = bytes;
        let file =
            open(&checkpoint(&dict(vec![("t", tensor(class, "0"))]), &[("0", bytes.clone())])).expect(class);
        let entry = file.get("t").expect("tensor");
        assert_eq!((entry.dtype(), entry.bytes()), (dtype, Some(&bytes[..])));
        if dtype.is_float() {
            assert_eq!(read(&file, "t"), [1.5, -2.0], "{class}");
        } else {
            let error = file.read_f32("t", &mut [0.0; 2]).expect_err("no float").to_string();
            assert!(error.contains(&dtype.to_string()), "{error}");
        }
    }
    let complex = dict(vec![("t", tensor("ComplexFloatStorage", "0")), ("u", tensor("FloatStorage", "0"))]);
    let file = open(&checkpoint(&complex, &[("0", vec![0; 16])])).expect("the rest is read");
    assert_eq!(file.names().collect::<Vec<_>>(), ["u"]);
    assert!(file.skipped()[0].why.contains("ComplexFloatStorage"));
}

#[test]
fn wrappers_are_removed_in_order_of_preference() {
    let inner = |key| dict(vec![("w", Py::Tensor(View::whole(key, &[1])))]);
    let storages = [("0", f32_bytes(&[0.0])), ("1", f32_bytes(&[1.0]))];
    let both = dict(vec![("params", inner("0")), ("params_ema", inner("1"))]);
    assert_eq!(read(&open(&checkpoint(&both, &storages)).expect("opens"), "w"), [1.0]);
    for key in ["params", "state_dict", "model", "checkpoint"] {
        let file = open(&checkpoint(&dict(vec![(key, inner("1"))]), &storages)).expect(key);
        assert_eq!(file.names().collect::<Vec<_>>(), ["w"], "{key}");
    }
    let nested = dict(vec![("model", dict(vec![("state_dict", inner("1"))])), ("lr", Py::Float(1e-5))]);
    assert_eq!(read(&open(&checkpoint(&nested, &storages)).expect("opens"), "w"), [1.0]);
    let tasr = dict(vec![
        ("checkpoint_controlnet", inner("0")),
        ("checkpoint_adapter", dict(vec![("module.0.0.w", Py::Tensor(View::whole("1", &[1])))])),
        ("optimizer_state_dict_adapter", dict(vec![("state", inner("0"))])),
    ]);
    let file = open(&checkpoint(&tasr, &storages)).expect("opens");
    assert_eq!(
        file.names().collect::<Vec<_>>(),
        ["checkpoint_controlnet.w", "checkpoint_adapter.module.0.0.w"]
    );
    assert_eq!(file.skipped()[0].name, "optimizer_state_dict_adapter");
}

#[test]
fn calls_outside_the_allow_list_are_not_run() {
    let folder = tempfile::tempdir().expect("folder");
    let witness = folder.path().join("ran");
    let command = format!("touch {}", witness.display());
    let evil = Py::Call("os", "system", vec![text(&command)]);
    let root = dict(vec![
        ("hyper_parameters", Py::Object("argparse", "Namespace", pairs(vec![("lr", Py::Float(1.0))]))),
        ("callbacks", Py::List(vec![evil.clone(), Py::Call("builtins", "eval", vec![text("1/0")])])),
        ("scalar", Py::Call("numpy.core.multiarray", "scalar", vec![Py::Global("numpy", "dtype")])),
        (
            "state_dict",
            dict(vec![("w", Py::Tensor(View::whole("0", &[2]))), ("odd", evil), ("version", Py::Int(3))]),
        ),
    ]);
    let file = open(&checkpoint(&root, &[("0", f32_bytes(&[1.0, 2.0]))])).expect("opens");
    assert_eq!(file.names().collect::<Vec<_>>(), ["w"]);
    assert!(!witness.exists());

    let module = dict(vec![("net", Py::Object("mymodels.net", "Generator", vec![]))]);
    let error = failure(&checkpoint(&module, &[]));
    assert!(error.contains("mymodels.net.Generator") && error.contains("state_dict()"), "{error}");
}

#[test]
fn torchscript_modules_are_dictionaries() {
    let conv = Py::Object(
        "__torch__.torch.nn.modules.conv",
        "Conv2d",
        pairs(vec![("weight", Py::Tensor(View::whole("0", &[3]))), ("training", Py::Int(0))]),
    );
    let root =
        Py::Object("__torch__.net", "Net", pairs(vec![("conv", conv), ("_is_full_backward_hook", Py::None)]));
    let file = open(&checkpoint(&root, &[("0", f32_bytes(&[1.0, 2.0, 3.0]))])).expect("opens");
    assert_eq!(read(&file, "conv.weight"), [1.0, 2.0, 3.0]);
}

#[test]
fn newer_and_wrapped_rebuilds() {
    let storage = |class| Py::Tensor(View { class, ..View::whole("0", &[2]) });
    // _rebuild_from_type_v2(function, type, args, state) around a parameter.
    let wrapped = Py::Call(
        "torch._tensor",
        "_rebuild_from_type_v2",
        vec![
            Py::Global("torch._utils", "_rebuild_parameter"),
            Py::Global("torch.nn", "Parameter"),
            Py::Tuple(vec![storage("FloatStorage"), Py::None, Py::None]),
            Py::Tuple(vec![]),
        ],
    );
    let file =
        open(&checkpoint(&dict(vec![("w", wrapped)]), &[("0", f32_bytes(&[1.0, 2.0]))])).expect("opens");
    assert_eq!(read(&file, "w"), [1.0, 2.0]);
}

#[test]
fn bounds_of_views_are_checked() {
    let data = [("0", f32_bytes(&ramp(24)))];
    for (offset, shape, strides) in [
        (20, vec![5], vec![1]),
        (0, vec![25], vec![1]),
        (0, vec![2, 13], vec![13, 1]),
        (25, vec![0], vec![1]),
        (0, vec![i64::MAX, i64::MAX], vec![1, 1]),
        (0, vec![1 << 40], vec![0]),
        (i64::MAX, vec![1], vec![1]),
        (-1, vec![1], vec![1]),
        (0, vec![-1], vec![1]),
        (0, vec![2], vec![-1]),
        (0, vec![2, 2], vec![1]),
        (0, vec![1; 20], vec![1; 20]),
    ] {
        let error = failure(&checkpoint(&dict(vec![("w", view(offset, &shape, &strides))]), &data));
        assert!(error.contains("data.pkl: ") && error.contains("tensor"), "{error}");
    }
    let claims = |count| View { count, ..View::whole("0", &[2]) };
    for count in [25, i64::MAX, -1] {
        let error = failure(&checkpoint(&dict(vec![("w", Py::Tensor(claims(count)))]), &data));
        assert!(error.contains("storage"), "{error}");
    }
    let error = failure(&checkpoint(&dict(vec![("w", Py::Tensor(View::whole("9", &[2])))]), &data));
    assert!(error.contains("archive/data/9 is not in the archive"), "{error}");
}

#[test]
fn damaged_archives_get_one_sentence() {
    let root = dict(vec![("w", Py::Tensor(View::whole("0", &[2])))]);
    let data = [("0", f32_bytes(&[1.0, 2.0]))];
    let good = checkpoint(&root, &data);
    assert!(failure(&good[..good.len() - 30]).contains("directory is missing"));
    let error = failure(&checkpoint_as(&root, &data, 2, Zip::Deflated));
    assert!(
        error
            .contains("entries archive/data.pkl, archive/byteorder, archive/data/0 are compressed (deflate)"),
        "{error}"
    );
    assert!(failure(&zip(&[("readme.txt", b"hello")], Zip::Plain)).contains("no data.pkl"));
    let pickled = pickle(&root, 2);
    let big = zip(&[("a/data.pkl", &pickled), ("a/byteorder", b"big"), ("a/data/0", &data[0].1)], Zip::Plain);
    assert!(failure(&big).contains("big-endian"));
    let cut = zip(&[("a/data.pkl", &pickled[..pickled.len() - 9]), ("a/data/0", &data[0].1)], Zip::Plain);
    assert!(failure(&cut).contains("data.pkl: it is cut off"));
    assert!(failure(&checkpoint(&dict(vec![("epoch", Py::Int(3))]), &[])).contains("holds no tensors"));
    let old_opcode = zip(&[("a/data.pkl", b"\x80\x02I1\n.")], Zip::Plain);
    assert!(failure(&old_opcode).contains("opcode 0x49"));
}

#[test]
fn hostile_structures_are_bounded() {
    // Thirty dictionaries, each twice in the next: a billion names from a few hundred bytes.
    let mut bomb = vec![0x80, 2, b'}'];
    for level in 0..30u8 {
        bomb.extend([b'q', level, b'0', b'}', b'(']);
        bomb.extend([b'X', 1, 0, 0, 0, b'a', b'h', level, b'X', 1, 0, 0, 0, b'b', b'h', level, b'u']);
    }
    bomb.push(b'.');
    let error = failure(&zip(&[("a/data.pkl", &bomb)], Zip::Plain));
    assert!(error.contains("nested too deeply or too large"), "{error}");
    // A dictionary that contains itself, and nesting a million deep.
    let cycle = b"\x80\x02}q\x00X\x01\0\0\0ah\x00s.";
    assert!(failure(&zip(&[("a/data.pkl", cycle)], Zip::Plain)).contains("nested too deeply"));
    let mut deep = vec![0x80, 2, b'N'];
    deep.resize(400_000, 0x85);
    deep.push(b'.');
    assert!(failure(&zip(&[("a/data.pkl", &deep)], Zip::Plain)).contains("nested too deeply"));
}
