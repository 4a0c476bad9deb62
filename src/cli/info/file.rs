//! What one checkpoint is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::weights::identify::{Identity, Kind, identify};
use crate::weights::space::in_units;
use crate::weights::{Checkpoint, TensorEntry, names};

/// Names that a list shows; the rest is counted.
const SHOWN: usize = 8;

/// The networks that a file may hold, by the prefix of their canonical names.
const PARTS: [(&str, &str); 6] = [
    (names::UNET, "UNet"),
    (names::VAE, "autoencoder"),
    (names::TEXT, "text tower"),
    (names::EMPTY, "no text"),
    (names::CONTROLNET, "ControlNet"),
    (names::ADAPTER, "adapters"),
];

/// Everything that `info` tells of a file.
#[derive(Serialize)]
pub struct FileReport {
    file: String,
    kind: String,
    /// "official" or "paper", where there are adapters
    adapter: Option<String>,
    complete: bool,
    tensors: usize,
    parameters: u64,
    /// of the weights as they are stored
    bytes: u64,
    parts: Vec<Part>,
    /// of this kind's networks, by canonical name; `prefix*` for a whole network
    missing: Vec<String>,
    /// names that do not belong to this kind
    unknown: Vec<String>,
    /// companions of the weights that are not used: schedules, EMA copies, optimizer states
    unused: Vec<String>,
    metadata: BTreeMap<String, String>,
}

/// One network of a file.
#[derive(Serialize)]
struct Part {
    name: &'static str,
    tensors: usize,
    parameters: u64,
    bytes: u64,
    /// tensors by element type
    dtypes: BTreeMap<String, usize>,
    missing: usize,
}

impl Part {
    fn of<'a>(
        name: &'static str,
        entries: impl Iterator<Item = &'a TensorEntry>,
        missing: usize,
    ) -> Option<Part> {
        let mut part = Part { name, tensors: 0, parameters: 0, bytes: 0, dtypes: BTreeMap::new(), missing };
        for entry in entries {
            part.tensors += 1;
            part.parameters = part.parameters.saturating_add(entry.count() as u64);
            part.bytes = part.bytes.saturating_add(entry.byte_len() as u64);
            *part.dtypes.entry(entry.dtype().to_string()).or_default() += 1;
        }
        (part.tensors > 0).then_some(part)
    }
}

impl FileReport {
    /// # Errors
    /// The file cannot be read or is no checkpoint.
    pub fn open(path: &Path) -> Result<FileReport> {
        let folder = path.is_dir();
        let file = if folder { Checkpoint::open_sd(path)? } else { Checkpoint::open(path)? };
        let found = identify(&file);
        let named = found.kind.family().canonical(&file).ok().flatten().unwrap_or_else(|| file.clone());
        let Identity { missing, unknown, extras, .. } = found;
        let skipped = named.skipped().iter().map(|s| format!("{} ({})", s.name, s.why));
        Ok(FileReport {
            file: path.display().to_string(),
            kind: if folder {
                "Stable Diffusion, diffusers folder (UNet, autoencoder, text tower)".to_owned()
            } else {
                found.kind.to_string()
            },
            adapter: match &found.kind {
                Kind::Tasr(variant) | Kind::Adapter(variant) => Some(variant.to_string()),
                _ => None,
            },
            complete: missing.is_empty() && found.kind != Kind::Unknown,
            tensors: found.tensors,
            parameters: found.parameters,
            bytes: named.iter().map(|(_, entry)| entry.byte_len() as u64).fold(0, u64::saturating_add),
            parts: parts(&named, &missing),
            unused: extras.into_iter().chain(skipped).collect(),
            missing,
            unknown,
            metadata: file.metadata().clone(),
        })
    }
}

/// The tensors whose names start with `prefix`.
fn under<'a>(named: &'a Checkpoint, prefix: &str) -> impl Iterator<Item = &'a TensorEntry> {
    named.iter().filter(move |(name, _)| name.starts_with(prefix)).map(|(_, entry)| entry)
}

fn parts(named: &Checkpoint, missing: &[String]) -> Vec<Part> {
    let lacking = |prefix: &str| missing.iter().filter(|name| name.starts_with(prefix)).count();
    let found: Vec<Part> = PARTS
        .iter()
        .filter_map(|(prefix, name)| Part::of(name, under(named, prefix), lacking(prefix)))
        .collect();
    if found.is_empty() {
        Part::of("network", under(named, ""), missing.len()).into_iter().collect()
    } else {
        found
    }
}

/// 865.9 M
fn millions(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        _ => format!("{:.1} M", count as f64 / 1e6),
    }
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.file)?;
        writeln!(f, "  {}", self.kind)?;
        writeln!(
            f,
            "  {} parameters in {} tensors, {}",
            millions(self.parameters),
            self.tensors,
            in_units(self.bytes)
        )?;
        writeln!(
            f,
            "  {:<12} {:>7} {:>11} {:>8}  {:<22} missing",
            "part", "tensors", "parameters", "size", "type"
        )?;
        for part in &self.parts {
            let dtypes: Vec<String> = match part.dtypes.len() {
                1 => part.dtypes.keys().cloned().collect(),
                _ => part.dtypes.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect(),
            };
            writeln!(
                f,
                "  {:<12} {:>7} {:>11} {:>8}  {:<22} {}",
                part.name,
                part.tensors,
                millions(part.parameters),
                in_units(part.bytes),
                dtypes.join(", "),
                if part.missing == 0 { "-".to_owned() } else { part.missing.to_string() }
            )?;
        }
        for (title, names) in [
            ("missing", &self.missing),
            ("not of this kind", &self.unknown),
            ("companions, not used", &self.unused),
        ] {
            if !names.is_empty() {
                writeln!(f, "  {title}: {}", names.len())?;
                names.iter().take(SHOWN).try_for_each(|name| writeln!(f, "    {}", printable(name)))?;
                if names.len() > SHOWN {
                    writeln!(f, "    and {} more", names.len() - SHOWN)?;
                }
            }
        }
        self.metadata.iter().take(SHOWN).try_for_each(|(key, value)| {
            let value: String = value.chars().take(100).collect();
            writeln!(f, "  {}: {}", printable(key), printable(&value))
        })
    }
}

/// Names come from strangers' files: none may move the cursor.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
