//! Thousands of damaged checkpoints: every one is read or refused, none panics or takes much memory.
//!
//! Seeded, so a failure names the input that makes it again. Run alone in its process: the allocator
//! counts what all threads hold.

#[path = "../weights/support/bytes.rs"]
mod bytes;
#[path = "../weights/support/torch_file.rs"]
mod torch_file;

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{f32_bytes, put, safetensors_bytes};
use tasr::weights::{Checkpoint, identify, names};
use torch_file::{Py, View, Zip, checkpoint, checkpoint_as, dict, pairs, pickle, text, zip};

/// The most that reading one of these inputs (a few kilobytes) may hold at once.
const MEMORY: usize = 8 << 20;
/// Mutants of each base file and each way to mutate it.
const ROUNDS: u64 = 2500;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged; the counters do not affect it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from `alloc` above with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// One to four random damages.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const WORDS: [u64; 8] = [0, 1, 0x7F, 0xFF, 0x7FFF_FFFF, 0xFFFF_FFFF, i64::MAX as u64, u64::MAX];
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let span = (1 + random.below(40)).min(bytes.len() - at);
        match random.below(8) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let word = WORDS[random.below(WORDS.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&word[..width]);
            }
            4 => {
                let copy = bytes[at..at + span].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            5 => drop(bytes.drain(at..at + span)),
            6 => {
                // An ASCII digit for another, so that numbers in headers change.
                if let Some(digit) = bytes[at..].iter_mut().find(|b| b.is_ascii_digit()) {
                    *digit = b'0' + random.below(10) as u8;
                }
            }
            _ => {
                let to = random.below(bytes.len());
                bytes.swap(at, to);
            }
        }
    }
}

fn sample_tree() -> Py {
    let view = |offset, shape: &[i64], strides: &[i64]| View {
        offset,
        shape: shape.to_vec(),
        strides: strides.to_vec(),
        ..View::whole("0", &[64])
    };
    dict(vec![
        ("epoch", Py::Int(3)),
        ("name", text("run")),
        ("args", Py::Object("argparse", "Namespace", pairs(vec![("lr", Py::Float(0.1))]))),
        ("hook", Py::Call("os", "system", vec![text("true")])),
        (
            "state_dict",
            Py::Ordered(pairs(vec![
                ("module.zero_convs.0.0.weight", Py::Parameter(view(0, &[4, 4, 1, 1], &[4, 1, 1, 1]))),
                ("module.zero_convs.0.0.bias", Py::Tensor(view(60, &[4], &[1]))),
                ("input_blocks.0.0.weight", Py::Tensor(view(2, &[3, 5], &[1, 7]))),
                ("body.0.rdb1.conv1.weight", Py::Tensor(view(0, &[2, 2, 3, 3], &[18, 9, 3, 1]))),
                ("half", Py::Tensor(View { class: "HalfStorage", ..View::whole("1", &[8]) })),
                ("list", Py::List(vec![Py::Tensor(View::whole("0", &[2])), Py::None, Py::Int(-70000)])),
            ])),
        ),
        ("optimizer", dict(vec![("state", Py::Tuple(vec![Py::Int(1), Py::Int(2), Py::Int(3), Py::Int(4)]))])),
    ])
}

fn sample_safetensors() -> Vec<u8> {
    let values = f32_bytes(&[0.5; 12]);
    safetensors_bytes(&[
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", "F32", vec![2, 3, 2], values.clone()),
        (
            "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
            "F32",
            vec![6, 2],
            values.clone(),
        ),
        ("first_stage_model.encoder.mid.attn_1.q.weight", "F16", vec![2, 2, 1, 1], vec![0; 8]),
        ("text_model.encoder.layers.0.self_attn.q_proj.bias", "F32", vec![2], f32_bytes(&[1.0, 2.0])),
        ("decoder.up_blocks.3.resnets.0.conv1.weight", "BF16", vec![2], vec![0; 4]),
        ("step", "I64", vec![], vec![1; 8]),
    ])
}

/// Reads everything a user could ask of a file.
fn exercise(path: &Path) -> bool {
    let Ok(file) = Checkpoint::open(path) else { return false };
    let kind = identify::identify(&file);
    assert!(!kind.kind.to_string().is_empty());
    let renamed = [names::sd(file.clone()), names::tasr(file.clone()), names::stage1(file.clone())];
    for named in renamed.iter().flatten().chain([&file]) {
        for (_, entry) in named.iter() {
            let count = entry.count();
            let mut out = vec![0f32; count.min(1000)];
            let first = count - out.len();
            let _ = entry.read_at(first, &mut out);
            let _ = (entry.bytes(), entry.f32s(), entry.f16s(), entry.bf16s());
            entry.release();
        }
        let _ = names::to_diffusers(named);
    }
    true
}

/// Runs mutants of `base`; `pack` makes a file of what was mutated. Returns how many still open.
fn attack(what: &str, base: &[u8], pack: impl Fn(Vec<u8>) -> Vec<u8>, folder: &Path) -> usize {
    let mut opened = 0;
    for seed in 0..ROUNDS {
        let mut bytes = base.to_vec();
        if seed > 0 {
            mutate(&mut bytes, &mut Random(seed.wrapping_mul(0x1234_5677)));
        }
        let path = put(folder, "mutant", &pack(bytes));
        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        match catch_unwind(AssertUnwindSafe(|| exercise(&path))) {
            Ok(read) => opened += usize::from(read),
            Err(_) => panic!("{what}, seed {seed}: reading panicked"),
        }
        let peak = PEAK.load(Relaxed).saturating_sub(before);
        assert!(peak <= MEMORY, "{what}, seed {seed}: {peak} bytes were held");
        if seed == 0 {
            assert_eq!(opened, 1, "{what}: the undamaged file opens");
        }
    }
    opened
}

#[test]
fn no_mutant_panics_or_takes_much_memory() {
    let folder = tempfile::tempdir().expect("folder");
    let storages = [("0", f32_bytes(&[1.5; 64])), ("1", vec![0x3C; 16])];
    let tree = sample_tree();
    let archive = |pickled: Vec<u8>| {
        let entries =
            [("a/data.pkl", &pickled[..]), ("a/data/0", &storages[0].1), ("a/data/1", &storages[1].1)];
        zip(&entries, Zip::Plain)
    };
    let safetensors = sample_safetensors();
    let header_len = u64::from_le_bytes(safetensors[..8].try_into().expect("length")) as usize;
    let data = safetensors[8 + header_len..].to_vec();
    let with_header = |header: Vec<u8>| [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    let shard = safetensors_bytes(&[("w", "F32", vec![1], f32_bytes(&[1.0]))]);
    put(folder.path(), "shard.safetensors", &shard);
    let index = br#"{"metadata": {"total_size": 4}, "weight_map": {"w": "shard.safetensors"}}"#;

    let mut opened = Vec::new();
    for whole in [checkpoint(&tree, &storages), checkpoint_as(&tree, &storages, 4, Zip::Wide)] {
        opened.push(attack("whole archive", &whole, |bytes| bytes, folder.path()));
    }
    for protocol in [2, 4] {
        opened.push(attack("pickle", &pickle(&tree, protocol), archive, folder.path()));
    }
    opened.push(attack("whole safetensors", &safetensors, |bytes| bytes, folder.path()));
    opened.push(attack("safetensors header", &safetensors[8..8 + header_len], with_header, folder.path()));
    opened.push(attack("shard index", index, |bytes| bytes, folder.path()));
    println!("of {ROUNDS} mutants each, these still open: {opened:?}");
    // Damage that is always noticed at once would leave the code behind it untried.
    assert!(opened.iter().all(|n| *n > ROUNDS as usize / 50), "{opened:?}");
}
