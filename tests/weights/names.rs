//! The manifests of the published files: names, shapes, identities.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tasr::error::Kind as ErrorKind;
use tasr::weights::identify::{AdapterVariant, Kind, Naming, identify};
use tasr::weights::{Checkpoint, names};

use crate::support::torch_file::{Py, View, checkpoint, pairs};
use crate::support::{Spec, f32_bytes, manifest, prefixed, put, safetensors_bytes, sparse_safetensors};

fn sparse(folder: &Path, name: &str, specs: &[Spec]) -> PathBuf {
    let path = folder.join(name);
    sparse_safetensors(&path, specs);
    path
}

/// (name, shape) of all tensors.
fn shapes<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize])>) -> BTreeSet<(String, Vec<usize>)> {
    tensors.map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect()
}

fn shapes_of(file: &Checkpoint) -> BTreeSet<(String, Vec<usize>)> {
    shapes(file.iter().map(|(name, entry)| (name, entry.shape())))
}

fn shapes_in(specs: &[Spec], wanted: impl Fn(&str) -> bool) -> BTreeSet<(String, Vec<usize>)> {
    shapes(
        specs.iter().filter(|spec| wanted(&spec.0)).map(|(name, _, shape)| (name.as_str(), shape.as_slice())),
    )
}

/// The published LDM file, with the file it lies in.
fn ldm(folder: &Path) -> (Vec<Spec>, Checkpoint) {
    let specs = manifest("sd21_ldm");
    let file = Checkpoint::open_sd(&sparse(folder, "sd.safetensors", &specs)).expect("opens");
    (specs, file)
}

/// The published diffusers folder.
fn diffusers(folder: &Path) -> PathBuf {
    let root = folder.join("sd21");
    sparse(&root, "unet/diffusion_pytorch_model.safetensors", &manifest("sd21_diffusers_unet"));
    sparse(&root, "vae/diffusion_pytorch_model.safetensors", &manifest("sd21_diffusers_vae"));
    sparse(&root, "text_encoder/model.safetensors", &manifest("sd21_diffusers_text_encoder"));
    root
}

/// What a diffusers folder does not carry: the text tower's last block and projection.
fn in_diffusers(name: &str) -> bool {
    let canonical = [names::UNET, names::VAE, names::TEXT].iter().any(|prefix| name.starts_with(prefix));
    let unused = ["transformer.resblocks.23.", "text_projection", "logit_scale"];
    let unused =
        unused.iter().any(|part| name.strip_prefix(names::TEXT).is_some_and(|n| n.starts_with(part)));
    canonical && !unused
}

#[test]
fn the_single_file_is_canonical() {
    let folder = tempfile::tempdir().expect("folder");
    let (specs, file) = ldm(folder.path());
    let extras: Vec<_> = specs
        .iter()
        .filter(|(name, ..)| !name.contains("_model.") || name.starts_with("model_ema"))
        .collect();
    assert_eq!(file.extras().len(), 14);
    assert_eq!(extras.len(), 14);
    assert!(file.unknown().is_empty());
    assert_eq!(file.len(), specs.len() - 14);
    let found = identify(&file);
    assert_eq!(found.kind, Kind::StableDiffusion { unet: true, vae: true, text: true, empty: false });
    assert!(found.missing.is_empty() && found.unknown.is_empty(), "{:?} {:?}", found.missing, found.unknown);
    assert_eq!(found.parameters, 865_910_724 + 83_653_863 + 354_032_641);
    assert_eq!(names::text_blocks_run(&file.under(names::TEXT)), 23);
}

#[test]
fn a_diffusers_folder_gives_the_same_names_and_shapes() {
    let folder = tempfile::tempdir().expect("folder");
    let (specs, _) = ldm(folder.path());
    let file = Checkpoint::open_sd(&diffusers(folder.path())).expect("opens");
    assert_eq!(shapes_of(&file), shapes_in(&specs, in_diffusers));
    assert!(file.unknown().is_empty(), "{:?}", file.unknown());
    assert_eq!(file.extras(), ["text_model.embeddings.position_ids"]);
    assert_eq!(names::text_blocks_run(&file.under(names::TEXT)), 23);
    let found = identify(&file);
    assert!(found.missing.is_empty() && found.unknown.is_empty(), "{:?} {:?}", found.missing, found.unknown);
}

#[test]
fn the_single_file_goes_to_diffusers_names() {
    let folder = tempfile::tempdir().expect("folder");
    let (_, file) = ldm(folder.path());
    let parts = names::to_diffusers(&file).expect("maps");
    let expected = ["sd21_diffusers_unet", "sd21_diffusers_vae", "sd21_diffusers_text_encoder"];
    assert_eq!(parts.iter().map(|(part, _)| *part).collect::<Vec<_>>(), ["unet", "vae", "text_encoder"]);
    for ((part, made), expected) in parts.iter().zip(expected) {
        let wanted = shapes_in(&manifest(expected), |name| !name.ends_with("position_ids"));
        assert_eq!(shapes_of(made), wanted, "{part}");
        assert!(made.unknown().is_empty(), "{part}: {:?}", made.unknown());
    }
}

#[test]
fn single_parts_old_vae_names_and_no_text_prefix() {
    let folder = tempfile::tempdir().expect("folder");
    let (specs, _) = ldm(folder.path());
    let mut vae = manifest("sd21_diffusers_vae");
    for (name, _, _) in &mut vae {
        for (new, old) in [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")] {
            *name = name.replace(&format!("attentions.0.{new}."), &format!("attentions.0.{old}."));
        }
    }
    let file = Checkpoint::open_sd(&sparse(folder.path(), "vae", &vae)).expect("opens");
    assert_eq!(shapes_of(&file), shapes_in(&specs, |name| name.starts_with(names::VAE)));
    let mut text = manifest("sd21_diffusers_text_encoder");
    text.retain(|(name, ..)| !name.ends_with("position_ids"));
    text.iter_mut().for_each(|(name, ..)| *name = name.replace("text_model.", ""));
    let file = Checkpoint::open_sd(&sparse(folder.path(), "text", &text)).expect("opens");
    assert_eq!(
        shapes_of(&file),
        shapes_in(&specs, |name| name.starts_with(names::TEXT) && in_diffusers(name))
    );
    assert_eq!(identify(&file).missing, ["model.diffusion_model.*", "first_stage_model.*"]);
}

#[test]
fn query_key_and_value_join_and_split() {
    let folder = tempfile::tempdir().expect("folder");
    let matrix = |base: f32| f32_bytes(&(0..4).map(|i| base + i as f32).collect::<Vec<_>>());
    let layer = "encoder.layers.0.self_attn";
    let names_of = |part: &str| (format!("{layer}.{part}_proj.weight"), format!("{layer}.{part}_proj.bias"));
    let all: Vec<_> = ["k", "v", "q"].iter().map(|part| names_of(part)).collect();
    let mut tensors = Vec::new();
    for ((weight, bias), base) in all.iter().zip([10.0, 20.0, 0.0]) {
        tensors.push((weight.as_str(), "F32", vec![2, 2], matrix(base)));
        tensors.push((bias.as_str(), "F32", vec![2], f32_bytes(&[base, -base])));
    }
    let file = Checkpoint::open_sd(&put(folder.path(), "text", &safetensors_bytes(&tensors))).expect("opens");
    let name = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight";
    let joined = file.get(name).expect("joined");
    assert_eq!(joined.shape(), [6, 2]);
    assert!(joined.bytes().is_none());
    let mut values = [0f32; 12];
    file.read_f32(name, &mut values).expect("read");
    assert_eq!(values, [0., 1., 2., 3., 10., 11., 12., 13., 20., 21., 22., 23.]);
    let mut piece = [0f32; 6];
    joined.read_at(3, &mut piece).expect("across parts");
    assert_eq!(piece, values[3..9]);
    let back = names::to_diffusers(&file).expect("maps");
    for ((weight, bias), base) in all.iter().zip([10.0f32, 20.0, 0.0]) {
        let mut out = [0f32; 4];
        back[0].1.read_f32(&format!("text_model.{weight}"), &mut out).expect("read");
        assert_eq!(out, [base, base + 1.0, base + 2.0, base + 3.0]);
        assert_eq!(back[0].1.bytes_f32_le(&format!("text_model.{bias}")), Some(&[base, -base][..]));
    }
    tensors.remove(0);
    let error = Checkpoint::open_sd(&put(folder.path(), "text", &safetensors_bytes(&tensors)));
    let error = error.err().expect("a key matrix is missing").to_string();
    assert!(error.contains("self_attn.k_proj.weight"), "{error}");
}

#[test]
fn tasr_files_in_every_form() {
    let folder = tempfile::tempdir().expect("folder");
    let controlnet = prefixed(names::CONTROLNET, manifest("tasr_controlnet"));
    let adapter = prefixed(names::ADAPTER, manifest("tasr_adapter"));
    let both = [controlnet.clone(), adapter.clone()].concat();
    let file = Checkpoint::open_tasr(&sparse(folder.path(), "tasr", &both)).expect("opens");
    assert_eq!(shapes_of(&file), shapes_in(&both, |_| true));
    let found = identify(&file);
    assert_eq!(found.kind, Kind::Tasr(AdapterVariant::Official));
    assert!(found.missing.is_empty() && found.unknown.is_empty(), "{:?} {:?}", found.missing, found.unknown);
    assert_eq!(found.parameters, 363_153_280 + 757_498_573);

    for prefix in ["", "control_model.", "module."] {
        let bare = prefixed(prefix, manifest("tasr_controlnet"));
        let file = Checkpoint::open_tasr(&sparse(folder.path(), "bare", &bare)).expect(prefix);
        assert_eq!(shapes_of(&file), shapes_in(&controlnet, |_| true), "{prefix}");
        let found = identify(&file);
        assert_eq!(found.kind, Kind::ControlNet);
        assert_eq!(found.missing, ["checkpoint_adapter.*"]);
    }
    let file =
        Checkpoint::open_tasr(&sparse(folder.path(), "bare", &manifest("tasr_adapter"))).expect("adapters");
    assert_eq!(shapes_of(&file), shapes_in(&adapter, |_| true));
    let mut cut = both.clone();
    cut.retain(|(name, ..)| {
        !name.starts_with("checkpoint_adapter.12.") && !name.contains("zero_convs.3.0.bias")
    });
    let found = identify(&Checkpoint::open(&sparse(folder.path(), "cut", &cut)).expect("opens"));
    assert_eq!(found.missing.len(), 13);
    assert!(found.missing.contains(&"checkpoint_controlnet.zero_convs.3.0.bias".to_owned()));
    assert!(found.missing.contains(&"checkpoint_adapter.12.0.emb_layers.1.weight".to_owned()));
}

#[test]
fn the_training_checkpoint_of_tasr_loses_its_optimizer() {
    let folder = tempfile::tempdir().expect("folder");
    let tensor = |shape: &[i64]| Py::Tensor(View::whole("0", shape));
    let state =
        Py::Dict(vec![(Py::Int(0), crate::support::torch_file::dict(vec![("exp_avg", tensor(&[2]))]))]);
    let root = crate::support::torch_file::dict(vec![
        ("checkpoint_controlnet", Py::Ordered(pairs(vec![("module.zero_convs.0.0.bias", tensor(&[2]))]))),
        ("checkpoint_adapter", Py::Ordered(pairs(vec![("0.0.stages.0.norm.weight", tensor(&[2]))]))),
        ("epoch", Py::Int(3)),
        ("optimizer_state_dict_controlnet", crate::support::torch_file::dict(vec![("state", state)])),
    ]);
    let bytes = checkpoint(&root, &[("0", f32_bytes(&[1.0, 2.0]))]);
    let file = Checkpoint::open_tasr(&put(folder.path(), "tasr.pt", &bytes)).expect("opens");
    let expected =
        ["checkpoint_controlnet.zero_convs.0.0.bias", "checkpoint_adapter.0.0.stages.0.norm.weight"];
    assert_eq!(file.names().collect::<Vec<_>>(), expected);
    assert_eq!(identify(&file).kind, Kind::Tasr(AdapterVariant::Paper));
    assert_eq!(file.metadata()["epoch"], "3");
    assert_eq!(file.skipped()[0].name, "optimizer_state_dict_controlnet");
}

#[test]
fn stage_1_in_three_namings() {
    let folder = tempfile::tempdir().expect("folder");
    let old = manifest("bsrnet");
    let new = manifest("realesrgan_x4plus");
    let first: Vec<Spec> = old
        .iter()
        .map(|(name, dtype, shape)| {
            let mut name =
                name.replace("RRDB_trunk.", "model.1.sub.").replace("trunk_conv", "model.1.sub.23");
            for (old, first) in [
                ("conv_first", "0"),
                ("upconv1", "3"),
                ("upconv2", "6"),
                ("HRconv", "8"),
                ("conv_last", "10"),
            ] {
                name = name.replace(old, &format!("model.{first}"));
            }
            if name.contains("RDB") {
                name = name.replace(".weight", ".0.weight").replace(".bias", ".0.bias");
            }
            (name, dtype.clone(), shape.clone())
        })
        .collect();
    for (specs, naming) in [(old.clone(), Naming::Old), (new, Naming::New), (first, Naming::First)] {
        let path = sparse(folder.path(), "stage1", &specs);
        let found = identify(&Checkpoint::open(&path).expect("opens"));
        assert_eq!(found.kind, Kind::RrdbNet { naming, features: 64, blocks: 23, growth: 32 });
        assert!(found.missing.is_empty() && found.unknown.is_empty());
        assert_eq!(found.parameters, 16_697_987);
        let file = Checkpoint::open_stage1(&path).expect("opens");
        assert_eq!(shapes_of(&file), shapes_in(&old, |_| true), "{naming:?}");
    }
    let mut odd = old;
    odd.retain(|(name, ..)| name != "HRconv.bias");
    odd.push(("RRDB_trunk.0.RDB4.conv1.weight".into(), "float32".into(), vec![1]));
    let file = Checkpoint::open_stage1(&sparse(folder.path(), "odd", &odd)).expect("opens");
    assert_eq!(file.unknown(), ["RRDB_trunk.0.RDB4.conv1.weight"]);
    assert_eq!(identify(&file).missing, ["HRconv.bias"]);
}

#[test]
fn a_file_in_the_wrong_place_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let sd = sparse(folder.path(), "sd", &manifest("sd21_ldm"));
    let bsrnet = sparse(folder.path(), "bsrnet", &manifest("bsrnet"));
    let swinir = sparse(folder.path(), "swinir", &manifest("swinir_codeformer"));
    let clip = sparse(folder.path(), "clip", &manifest("clip_rn50"));
    let say = |result: tasr::error::Result<Checkpoint>| {
        let error = result.err().expect("must be refused");
        assert_eq!(error.kind(), ErrorKind::Weights);
        error.to_string()
    };
    assert!(
        say(Checkpoint::open_tasr(&sd))
            .contains("this is Stable Diffusion, single file (UNet, autoencoder, text tower)")
    );
    assert!(
        say(Checkpoint::open_sd(&bsrnet)).contains("this is RRDBNet, 23 blocks of 64 features, growth 32")
    );
    assert!(say(Checkpoint::open_stage1(&swinir)).contains("this is SwinIR"));
    assert!(say(Checkpoint::open_sd(&clip)).contains("this is CLIP with a ResNet-50"));
    // The name begins like one of an RRDBNet and is none.
    let nearly = ("body.0.rdb1.conf1.weight".into(), "float32".into(), vec![2, 2, 3, 3]);
    assert!(
        say(Checkpoint::open_stage1(&sparse(folder.path(), "nearly", &[nearly])))
            .contains("this is of an unknown kind")
    );
    let one = prefixed("cond_stage_model.transformer.", manifest("sd21_diffusers_text_encoder"));
    let unet = prefixed(names::UNET, vec![("out.0.bias".into(), "float32".into(), vec![320])]);
    assert!(
        say(Checkpoint::open_sd(&sparse(folder.path(), "one", &[one, unet].concat())))
            .contains("Diffusion 1.x")
    );
    assert!(say(Checkpoint::open_sd(folder.path())).contains("no unet/"));
}

#[test]
fn what_a_single_file_lacks() {
    let folder = tempfile::tempdir().expect("folder");
    let mut specs = manifest("sd21_ldm");
    specs.retain(|(name, ..)| {
        !name.starts_with(names::VAE)
            && !name.ends_with("output_blocks.8.2.conv.weight")
            && !name.contains("middle_block.1.norm")
    });
    specs.push(("strange.weight".into(), "float32".into(), vec![1]));
    let found = identify(&Checkpoint::open(&sparse(folder.path(), "cut", &specs)).expect("opens"));
    assert_eq!(
        found.missing,
        [
            "model.diffusion_model.middle_block.1.norm.weight",
            "model.diffusion_model.middle_block.1.norm.bias",
            "model.diffusion_model.output_blocks.8.2.conv.weight",
            "first_stage_model.*"
        ]
    );
    assert_eq!(found.unknown, ["strange.weight"]);
}
