//! The generation parameters: text in the PNG, metadata of a trace, the JSON report.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::Args;
use super::models::Models;
use crate::pipeline::{Options, Tile};

/// What made a picture.
#[derive(Clone, Debug)]
pub struct Parameters {
    options: Value,
}

impl Parameters {
    /// `options` are those really used, tiles settled.
    pub fn new(args: &Args, models: &Models, options: &Options) -> Self {
        let name = |path: &std::path::Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
        Parameters {
            options: json!({
                "version": env!("CARGO_PKG_VERSION"),
                "scale": options.scale,
                "steps": options.steps,
                "cfg": options.cfg,
                "seed": if args.noise.is_some() { Value::Null } else { json!(args.seed) },
                "noise": args.noise.as_deref().and_then(name),
                "control_scale": options.control_scale,
                "control_until": options.control_until,
                "better_start": options.better_start,
                "tile": match options.tile { Tile::Off => 0, Tile::Pixels(pixels) => pixels },
                "tile_stride": options.tile_stride,
                "stage1_tile": options.stage1_tile,
                "color_fix": format!("{:?}", options.color_fix).to_lowercase(),
                "negative_prompt": args.negative_prompt,
                "device": args.device,
                "dtype": args.element_type().name(),
                "sd": name(&models.sd),
                "tasr": name(&models.tasr),
                "stage1": name(&models.stage1),
            }),
        }
    }

    /// With the picture's own prompt.
    pub fn with_prompt(&self, prompt: &str) -> Value {
        let mut all = self.options.clone();
        all["prompt"] = json!(prompt);
        all
    }

    /// Key and text pairs of a PNG: one line to read, and everything as JSON.
    pub fn text(&self, prompt: &str) -> Vec<(String, String)> {
        let o = &self.options;
        let line = format!(
            "{prompt}\nNegative prompt: {}\nSteps: {}, Sampler: spaced DDPM, CFG scale: {}, Seed: {}, Scale: {}, Model: {}, {}, {}, Version: tasr {}",
            o["negative_prompt"].as_str().unwrap_or_default(),
            o["steps"],
            o["cfg"],
            o["seed"],
            o["scale"],
            o["sd"].as_str().unwrap_or_default(),
            o["tasr"].as_str().unwrap_or_default(),
            o["stage1"].as_str().unwrap_or_default(),
            o["version"].as_str().unwrap_or_default(),
        );
        vec![("parameters".into(), line), ("tasr".into(), self.with_prompt(prompt).to_string())]
    }

    /// The header of a trace.
    pub fn metadata(&self, prompt: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("tasr".to_owned(), self.with_prompt(prompt).to_string())])
    }
}
