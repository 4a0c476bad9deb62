//! `tasr convert`: checkpoints of any naming, container and element type to one safetensors file or a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::interrupt::Interrupt;
use super::progress::{Mode, Reporter};
use super::synth::FloatType;
use crate::error::{Error, Result};
use crate::pipeline::progress::{FileEnd, Progress};
use crate::weights::identify::{Family, identify};
use crate::weights::space::{in_units, require_space};
use crate::weights::write::{TensorSpec, Writer};
use crate::weights::{Checkpoint, Dtype, names};

/// Bytes of one step of the progress bar.
const STEP: u64 = 1_000_000;
/// Names that a message lists; the rest is counted.
const SHOWN: usize = 5;

/// Convert checkpoints to safetensors: PyTorch or diffusers to one file, to another element type, back to diffusers
///
/// Optimizer states, EMA copies and other companions of the weights are left out, which is said.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint files or diffusers folders; several are merged
    #[arg(required = true, value_name = "IN")]
    inputs: Vec<PathBuf>,
    /// File to write, or folder with --layout diffusers
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Element type of the written weights [default: that of each tensor]
    #[arg(long)]
    dtype: Option<FloatType>,
    /// Names and files to write
    #[arg(long, default_value = "ldm")]
    layout: Layout,
    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Layout {
    /// One file with the original names (model.diffusion_model, checkpoint_controlnet, ...)
    Ldm,
    /// A folder with unet/, vae/ and text_encoder/ as diffusers names them; weights only, without config files
    Diffusers,
}

/// Runs the command.
///
/// # Errors
/// Inputs that are no checkpoints or do not belong together, an output that exists or cannot hold the values, no
/// room, an interrupt.
pub fn run(args: Args) -> Result<()> {
    let progress = Reporter::new(Mode::choose(args.quiet, false), Interrupt::install()?);
    let (family, file) = open(&args.inputs)?;
    if family == Family::Other {
        progress.note("none of the networks that have other names elsewhere: the names are kept");
    }
    report_left_out(&file, &progress);
    let parts = match args.layout {
        Layout::Ldm => vec![(checked_file(&args.output)?, file)],
        Layout::Diffusers => {
            let parts = diffusers_files(&args.output, family, &file)?;
            parts.iter().for_each(|(_, part)| report_left_out(part, &progress));
            parts
        }
    };
    if let Some((there, _)) = parts.iter().find(|(path, _)| path.exists() && !args.overwrite) {
        return Err(Error::usage("the file exists already")
            .at(there.display().to_string())
            .fix("give another -o, or --overwrite to replace it"));
    }
    let dtype = args.dtype.map(FloatType::dtype);
    let jobs: Vec<Job> = parts.into_iter().map(|(path, file)| Job { path, file, dtype }).collect();
    for job in &jobs {
        let folder = job.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map_or(Ok(()), |folder| {
            std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, &e))
        })?;
    }
    if let Some(first) = jobs.first() {
        require_space(&first.path, jobs.iter().map(Job::bytes).sum())?;
    }
    progress.begin_run(jobs.len());
    jobs.iter().try_for_each(|job| job.write(&progress))
}

/// The inputs as one set of canonical names.
fn open(inputs: &[PathBuf]) -> Result<(Family, Checkpoint)> {
    let mut parts = Vec::new();
    let mut first: Option<(Family, &Path)> = None;
    for path in inputs {
        let file = if path.is_dir() { Checkpoint::open_sd(path)? } else { Checkpoint::open(path)? };
        let family = identify(&file).kind.family();
        match first {
            Some((other, place)) if other != family => {
                return Err(Error::weights(format!(
                    "this is of {family}, {} of {other}: they cannot share a file",
                    place.display()
                ))
                .at(path.display().to_string())
                .fix("convert each on its own"));
            }
            _ => first = Some((family, path)),
        }
        if file.is_empty() {
            return Err(Error::weights("no tensors are in this file")
                .at(path.display().to_string())
                .fix("check that it is a checkpoint"));
        }
        parts.push(family.canonical(&file)?.unwrap_or(file));
    }
    let family = first.map_or(Family::Other, |(family, _)| family);
    Ok((family, Checkpoint::merge(parts)?))
}

/// Says what of the inputs is not written.
fn report_left_out(file: &Checkpoint, progress: &dyn Progress) {
    for skipped in file.skipped() {
        progress.note(&format!("left out {}: {}", skipped.name, skipped.why));
    }
    let (optimizer, others): (Vec<&String>, Vec<&String>) =
        file.extras().iter().partition(|name| name.starts_with("optimizer"));
    let (ema, others): (Vec<&String>, Vec<&String>) =
        others.into_iter().partition(|name| name.starts_with("model_ema."));
    let unknown: Vec<&String> = file.unknown().iter().collect();
    for (list, what) in [
        (optimizer, "optimizer states"),
        (ema, "EMA copies of weights"),
        (others, "companions that no network needs"),
        (unknown, "tensors that belong to no network of this kind"),
    ] {
        if !list.is_empty() {
            progress.note(&format!("left out {} {what}: {}", list.len(), shortened(&list)));
        }
    }
}

fn shortened(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn checked_file(output: &Path) -> Result<PathBuf> {
    let wrong = |what: &str, fix: &str| Err(Error::usage(what).at(output.display().to_string()).fix(fix));
    if output.is_dir() {
        return wrong("this is a folder", "give the file to write with -o");
    }
    if output.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("safetensors")) {
        return wrong(
            "the file will be safetensors",
            "end its name in .safetensors, or give --layout diffusers",
        );
    }
    Ok(output.to_owned())
}

/// The files of a diffusers folder, with their tensors.
fn diffusers_files(output: &Path, family: Family, file: &Checkpoint) -> Result<Vec<(PathBuf, Checkpoint)>> {
    if family != Family::StableDiffusion {
        return Err(Error::usage(format!("diffusers has no layout for {family}"))
            .at("--layout diffusers")
            .fix("leave it out"));
    }
    if file.contains(names::EMPTY) {
        return Err(Error::usage("diffusers has no layout for weights without a text tower")
            .at("--layout diffusers")
            .fix("leave it out"));
    }
    if output.is_file() {
        return Err(Error::usage("this is a file, the diffusers layout is a folder")
            .at(output.display().to_string())
            .fix("give the folder to write into with -o"));
    }
    let parts = names::to_diffusers(file)?;
    Ok(parts
        .into_iter()
        .map(|(part, weights)| {
            let name = if part == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
            (output.join(part).join(format!("{name}.safetensors")), weights)
        })
        .collect())
}

/// One file to write.
struct Job {
    path: PathBuf,
    file: Checkpoint,
    /// of floating-point tensors; each keeps its own when absent
    dtype: Option<Dtype>,
}

impl Job {
    fn specs(&self) -> Vec<TensorSpec> {
        let dtype = |held: Dtype| self.dtype.filter(|_| held.is_float()).unwrap_or(held);
        self.file
            .iter()
            .map(|(name, entry)| TensorSpec::new(name, dtype(entry.dtype()), entry.shape()))
            .collect()
    }

    fn bytes(&self) -> u64 {
        self.specs()
            .iter()
            .map(|spec| spec.shape.iter().product::<usize>() as u64 * spec.dtype.size() as u64)
            .sum()
    }

    fn write(&self, progress: &dyn Progress) -> Result<()> {
        let output = self.path.display().to_string();
        progress.begin_file(&output);
        let mut metadata: BTreeMap<String, String> = self.file.metadata().clone();
        metadata.insert("format".into(), "pt".into());
        let mut writer = Writer::create(&self.path, self.specs(), &metadata)?;
        let total = self.bytes();
        progress.steps("writing, MB", (total / STEP) as usize);
        let mut done = 0u64;
        for (spec, (name, entry)) in self.specs().iter().zip(self.file.iter()) {
            progress.check_interrupt()?;
            writer.write_entry(name, entry)?;
            let more = spec.shape.iter().product::<usize>() as u64 * spec.dtype.size() as u64;
            (done / STEP..(done + more) / STEP).for_each(|_| progress.step());
            done += more;
        }
        if !writer.overflowed().is_empty() {
            return Err(Error::weights(format!(
                "values beyond the largest that {} holds, in {}",
                self.dtype.map_or_else(String::new, |dtype| dtype.to_string()),
                shortened(writer.overflowed())
            ))
            .at(self.file.label().to_owned())
            .fix("use --dtype bf16 or f32"));
        }
        writer.finish()?;
        let output = format!("{output} ({})", in_units(total));
        progress.end_file(self.file.label(), FileEnd::Written { output: &output });
        Ok(())
    }
}
