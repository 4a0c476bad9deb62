//! `tasr info`: what files are, what they lack, and the devices.

use serde_json::Value;

use crate::program::{Folder, tasr, tasr_ok};

fn json(args: &[&str]) -> Value {
    let run = tasr_ok(&[&["info", "--json"], args].concat());
    serde_json::from_str(&run.stdout).expect("one JSON object")
}

#[test]
fn whole_files_are_named_and_counted() {
    let folder = Folder::tiny("f16");
    let names = ["sd.safetensors", "tasr.safetensors", "stage1.safetensors"].map(|name| folder.text(name));
    let told = json(&names.each_ref().map(String::as_str));
    let [sd, tasr, stage1] = [0, 1, 2].map(|i| &told["files"][i]);
    for (file, tensors) in [(sd, 976), (tasr, 480), (stage1, 72)] {
        assert_eq!((&file["complete"], &file["tensors"]), (&true.into(), &tensors.into()), "{file}");
        assert_eq!(file["bytes"].as_u64(), file["parameters"].as_u64().map(|n| 2 * n));
        assert_eq!(file["missing"], serde_json::json!([]));
    }
    assert_eq!(tasr["adapter"], "official");
    assert_eq!(stage1["adapter"], Value::Null);
    let parts: Vec<&str> =
        sd["parts"].as_array().expect("list").iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(parts, ["UNet", "autoencoder", "text tower"]);
    assert_eq!(sd["parts"][0]["dtypes"], serde_json::json!({"float16": 686}));
    let text = tasr_ok(&["info", &names[1]]).stdout;
    assert!(
        text.contains("TASR, ControlNet and official adapters") && text.contains("ControlNet       324"),
        "{text}"
    );
}

#[test]
fn what_is_missing_is_listed() {
    let folder = Folder::new();
    tasr_ok(&["synth", "--preset", "tiny", "--adapter", "none", "-q", "-o", &folder.text("")]);
    let control = folder.text("tasr.safetensors");
    let told = json(&[&control]);
    let file = &told["files"][0];
    assert_eq!((&file["complete"], &file["kind"]), (&false.into(), &"a ControlNet without adapters".into()));
    assert_eq!(file["missing"], serde_json::json!(["checkpoint_adapter.*"]));
    // A file with one tensor taken out.
    let bytes = std::fs::read(folder.path("stage1.safetensors")).expect("reads");
    let whole = safetensors::SafeTensors::deserialize(&bytes).expect("parses");
    let kept = whole.iter().filter(|(name, _)| *name != "RRDB_trunk.1.RDB2.conv4.bias");
    let holed = safetensors::serialize(kept.collect::<Vec<_>>(), None).expect("serializes");
    std::fs::write(folder.path("holed.safetensors"), holed).expect("writes");
    let text = tasr_ok(&["info", &folder.text("holed.safetensors")]).stdout;
    assert!(text.contains("missing: 1\n    RRDB_trunk.1.RDB2.conv4.bias"), "{text}");
}

#[test]
fn one_broken_file_does_not_hide_the_others() {
    let folder = Folder::tiny("f16");
    std::fs::write(folder.path("broken.pth"), "GGUF....").expect("writes");
    let (broken, good) = (folder.text("broken.pth"), folder.text("stage1.safetensors"));
    let run = tasr(&["info", &broken, &folder.text("absent"), &good]);
    assert_eq!(run.code, 4, "the first error counts: {run}");
    assert!(run.stdout.contains("RRDBNet, 2 blocks of 16 features"), "{run}");
    assert!(
        run.stderr.contains("broken.pth: this is a GGUF file") && run.stderr.contains("absent: cannot open"),
        "{run}"
    );
    let run = tasr(&["info"]);
    assert_eq!(run.code, 2, "{run}");
}

#[test]
fn devices_are_listed_without_any_gpu() {
    let told = json(&["--device"]);
    let cpu = &told["devices"]["cpu"];
    assert_eq!(cpu["architecture"], std::env::consts::ARCH);
    assert!(cpu["threads"].as_u64() >= Some(1) && cpu["memory"].as_u64() > Some(1 << 24), "{cpu}");
    let (gpus, why) = (told["devices"]["cuda"].as_array().expect("list"), &told["devices"]["no_cuda"]);
    assert_eq!(gpus.is_empty(), why.as_str().is_some_and(|why| why.contains("no CUDA device")), "{told}");
}
