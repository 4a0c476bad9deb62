//! What each output is called, settled and checked before anything is computed.

use super::{Format, Source};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The `--format` flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FormatChoice {
    /// The format that the output's name says, else that of the input.
    #[default]
    Same,
    /// This format, whatever the input.
    Fixed(Format),
}

/// Where outputs go and how they are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRules {
    /// A file, for one input file; else a folder.
    pub output: PathBuf,
    pub format: FormatChoice,
    /// Put between the name and the extension, in folder outputs.
    pub suffix: String,
    /// Compute outputs anew that are already there.
    pub overwrite: bool,
}

/// One picture to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub input: PathBuf,
    pub output: PathBuf,
    /// The format of the output.
    pub format: Format,
    /// The output is already there, whole (outputs appear by renaming) and not to be overwritten.
    pub finished: bool,
}

impl Job {
    /// Creates the folder of the output.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create_folder(&self) -> Result<()> {
        match self.output.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(folder) => {
                fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, &e))
            }
            None => Ok(()),
        }
    }
}

/// Gives every source its output. Nothing is written.
///
/// `output` is a file when there is one source, given by name, and `output` has a picture extension and is no folder;
/// else it is a folder, in which the paths below the input folders are kept. With a suffix, a source found in a
/// folder that is the output of another source is a result of an earlier run and is dropped.
///
/// # Errors
/// Two sources with one output; an output that is an input; a file given as output for many inputs; an extension that
/// contradicts the format or names none; a suffix that is more than a part of a name.
pub fn plan(sources: &[Source], rules: &OutputRules) -> Result<Vec<Job>> {
    if rules.suffix.contains(['/', '\\', '\0']) {
        let suffix = &rules.suffix;
        return Err(Error::usage(format!("{suffix:?} cannot be part of a file name")).at("--suffix"));
    }
    let jobs = match file_output(sources, rules)? {
        Some(job) => vec![job],
        None => folder_outputs(sources, rules),
    };
    check_distinct(&jobs)?;
    let inputs: HashSet<PathBuf> = jobs.iter().map(|job| identity(&job.input)).collect();
    jobs.into_iter().map(|job| settle(job, &inputs, rules)).collect()
}

/// The job when `output` means a file.
fn file_output(sources: &[Source], rules: &OutputRules) -> Result<Option<Job>> {
    let output = &rules.output;
    let at = |e: Error| e.at(output.display().to_string());
    let ends_open = output.as_os_str().as_encoded_bytes().last().is_some_and(|&b| b == b'/' || b == b'\\');
    if output.is_dir() || ends_open {
        return Ok(None);
    }
    let extension = output.extension().map(|e| e.display().to_string());
    let named = Format::from_path(output);
    match sources {
        [source] if source.named => {
            let format = match (rules.format, named) {
                (FormatChoice::Same, Some(format)) => format,
                (FormatChoice::Fixed(wanted), Some(format)) if wanted == format => format,
                (FormatChoice::Fixed(wanted), Some(_)) => {
                    let (name, wanted) = (extension.unwrap_or_default(), wanted.extension());
                    return Err(at(Error::usage(format!(
                        "the name ends in .{name} but --format is {wanted}"
                    ))
                    .fix("change one of them")));
                }
                (_, None) if extension.is_none() && !output.exists() => return Ok(None),
                (_, None) => {
                    return Err(at(Error::usage("the output names no picture format that can be written")
                        .fix("end it in .png, .jpg, .webp, .tif or .bmp, or in / for a folder")));
                }
            };
            let (input, output) = (source.path.clone(), output.clone());
            Ok(Some(Job { input, output, format, finished: false }))
        }
        _ if named.is_some() || output.exists() => {
            let n = sources.len();
            Err(at(Error::usage(format!("this is one file, but the input is a folder or many files ({n})"))
                .fix("give a folder as the output")))
        }
        _ => Ok(None),
    }
}

/// The jobs when `output` means a folder.
fn folder_outputs(sources: &[Source], rules: &OutputRules) -> Vec<Job> {
    let job = |source: &Source| {
        let format = match rules.format {
            FormatChoice::Fixed(format) => format,
            FormatChoice::Same => Format::from_path(&source.path).unwrap_or(Format::Png),
        };
        let mut name = OsString::from(source.relative.file_stem().unwrap_or_default());
        name.push(&rules.suffix);
        name.push(".");
        name.push(format.extension());
        let output = rules.output.join(source.relative.with_file_name(name));
        Job { input: source.path.clone(), output, format, finished: false }
    };
    let jobs: Vec<Job> = sources.iter().map(job).collect();
    if rules.suffix.is_empty() {
        return jobs;
    }
    // Short names first, for a result's name is longer than its source's: then a result of a result is known as one
    // only when what it was made from is kept.
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|&i| jobs[i].input.as_os_str().len());
    let mut results = HashSet::new();
    let mut kept = vec![false; jobs.len()];
    for i in order {
        kept[i] = sources[i].named || !results.contains(&identity(&jobs[i].input));
        if kept[i] {
            results.insert(identity(&jobs[i].output));
        }
    }
    jobs.into_iter().zip(kept).filter_map(|(job, kept)| kept.then_some(job)).collect()
}

fn check_distinct(jobs: &[Job]) -> Result<()> {
    let mut seen: HashMap<PathBuf, &Job> = HashMap::new();
    for job in jobs {
        if let Some(other) = seen.insert(identity(&job.output), job) {
            let (a, b) = (other.input.display(), job.input.display());
            return Err(Error::usage(format!("{a} and {b} would both be written here"))
                .at(job.output.display().to_string())
                .fix("rename one, use --format same, or run them into separate folders"));
        }
    }
    Ok(())
}

fn settle(mut job: Job, inputs: &HashSet<PathBuf>, rules: &OutputRules) -> Result<Job> {
    let place = || job.output.display().to_string();
    if job.output.is_dir() {
        return Err(Error::usage("a folder is in the way of the output").at(place()));
    }
    if job.output.exists() && inputs.contains(&identity(&job.output)) {
        return Err(Error::usage("the output would overwrite an input")
            .at(place())
            .fix("choose another output folder or add a --suffix"));
    }
    let whole = fs::metadata(&job.output).is_ok_and(|about| about.is_file() && about.len() > 0);
    job.finished = whole && !rules.overwrite;
    Ok(job)
}

/// One path for one file: links resolved as far as the path exists. Where file names are commonly case-insensitive,
/// letter case is folded, so that `A.png` and `a.png` count as one output.
fn identity(path: &Path) -> PathBuf {
    let resolved = path.canonicalize().unwrap_or_else(|_| {
        let existing = path.ancestors().skip(1).find_map(|parent| {
            let parent_or_here = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Some((parent, parent_or_here.canonicalize().ok()?))
        });
        match existing {
            Some((parent, canonical)) => canonical.join(path.strip_prefix(parent).unwrap_or(path)),
            None => path.to_path_buf(),
        }
    });
    if cfg!(any(windows, target_os = "macos")) {
        PathBuf::from(resolved.to_string_lossy().to_lowercase())
    } else {
        resolved
    }
}
