//! The generation parameters as text: in PNG files, in traces.

use serde_json::{Map, Value, json};

use super::flags::NEGATIVE_PROMPT;
use super::models::Fingerprint;
use super::text::Prompt;
use crate::pipeline::{ColorFix, Options, Tile};

/// What is the same for all pictures of a run.
#[derive(Debug)]
pub struct RunParameters {
    pub seed: u64,
    /// the file that noise is replayed from
    pub noise: Option<String>,
    pub adapter: &'static str,
    pub device: String,
    pub dtype: &'static str,
    /// SD 2.1, TASR, stage 1
    pub models: [Fingerprint; 3],
    pub negative: Prompt,
}

impl RunParameters {
    /// All parameters of one picture.
    pub fn to_json(&self, options: &Options, prompt: Option<&Prompt>) -> Value {
        let [sd, tasr, stage1] = &self.models;
        let (tile, stride) = match options.tile {
            Tile::Off => (0, 0),
            Tile::Pixels(tile) => (tile, options.tile_stride.unwrap_or(tile / 2)),
        };
        let mut all = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "scale": options.scale,
            "steps": options.steps,
            "cfg": options.cfg,
            "negative_prompt": self.negative.text,
            "negative_prompt_truncated": self.negative.tokens.truncated,
            "adapter": self.adapter,
            "control_scale": options.control_scale,
            "control_until": options.control_until,
            "better_start": options.better_start,
            "tile": tile,
            "tile_stride": stride,
            "stage1_tile": options.stage1_tile.unwrap_or(0),
            "color_fix": color_fix(options.color_fix),
            "color_levels": options.color_levels,
            "stage1_only": options.stage1_only,
            "device": self.device,
            "dtype": self.dtype,
            "models": {"sd": sd, "tasr": tasr, "stage1": stage1},
        });
        let mut more = Map::new();
        match &self.noise {
            Some(file) => more.insert("noise".into(), json!(file)),
            None => more.insert("seed".into(), json!(self.seed)),
        };
        if let Some(prompt) = prompt {
            more.insert("prompt".into(), json!(prompt.text));
            more.insert("prompt_truncated".into(), json!(prompt.tokens.truncated));
        }
        if let Some(all) = all.as_object_mut() {
            all.append(&mut more);
        }
        all
    }

    /// The same for reading, in one line; what is usual is left out.
    pub fn to_line(&self, options: &Options, prompt: &Prompt) -> String {
        let mut parts = Vec::new();
        let mut add = |part: String| parts.push(part);
        if !prompt.text.is_empty() {
            add(format!("prompt: {}", one_line(&prompt.text)));
        }
        if self.negative.text != NEGATIVE_PROMPT {
            add(format!("negative prompt: {}", one_line(&self.negative.text)));
        }
        match options.stage1_only {
            true => add(format!("scale {}, stage 1 only", options.scale)),
            false => add(format!("scale {}, steps {}, cfg {}", options.scale, options.steps, options.cfg)),
        }
        match &self.noise {
            Some(file) => add(format!("noise of {file}")),
            None => add(format!("seed {}", self.seed)),
        }
        add(format!("adapter {}", self.adapter));
        if options.control_scale != 1.0 {
            add(format!("control scale {}", options.control_scale));
        }
        if let Some(until) = options.control_until {
            add(format!("control until step {until}"));
        }
        if options.better_start {
            add("better start".into());
        }
        if let Tile::Pixels(tile) = options.tile {
            add(format!("tiles {tile} every {}", options.tile_stride.unwrap_or(tile / 2)));
        }
        if let Some(tile) = options.stage1_tile {
            add(format!("stage-1 tiles {tile}"));
        }
        add(format!("color fix {}", color_fix(options.color_fix)));
        if options.color_levels != Options::default().color_levels {
            add(format!("color levels {}", options.color_levels));
        }
        let names: Vec<&str> = self.models.iter().map(|model| model.file.as_str()).collect();
        add(format!("models {}", names.join(" + ")));
        add(format!("tasr {}", env!("CARGO_PKG_VERSION")));
        parts.join(", ")
    }
}

fn color_fix(fix: ColorFix) -> &'static str {
    match fix {
        ColorFix::Wavelet => "wavelet",
        ColorFix::Adain => "adain",
        ColorFix::None => "none",
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
