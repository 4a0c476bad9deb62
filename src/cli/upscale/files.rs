//! From the flags to the list of pictures to make.

use std::path::{Path, PathBuf};

use super::flags::{Files, Sampling};
use super::prompts::PromptList;
use crate::error::{Error, Result};
use crate::image::{Job, OutputRules, discover, plan};

fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) && !path.is_dir()
}

/// The list of prompts that `--prompts`, or an input that ends in .json, names.
///
/// # Errors
/// Two lists, or one that cannot be used.
pub fn prompt_list(files: &Files, sampling: &Sampling) -> Result<Option<PromptList>> {
    let inputs = files.inputs.iter().chain(&files.more_inputs).filter(|path| is_list(path));
    let lists: Vec<&PathBuf> = inputs.chain(&sampling.prompts).collect();
    match lists.as_slice() {
        [] => Ok(None),
        [path] => PromptList::read(path).map(Some),
        [_, second, ..] => Err(Error::usage("this is a second list of prompts")
            .at(second.display().to_string())
            .fix("give one list")),
    }
}

/// The pictures to make, in the order of the run.
///
/// # Errors
/// No input, inputs that do not exist, outputs that collide.
pub fn jobs(files: &Files, list: Option<&PromptList>) -> Result<Vec<Job>> {
    let given = files.inputs.iter().chain(&files.more_inputs).filter(|path| !is_list(path));
    let mut inputs: Vec<PathBuf> = given.cloned().collect();
    if inputs.is_empty() {
        inputs = match list {
            Some(list) => list.images()?,
            None => {
                return Err(
                    Error::usage("no input is given").fix("name pictures or folders, or --prompts FILE.json")
                );
            }
        };
    }
    let sources = discover(&inputs, files.recursive, Some(&files.output))?;
    let rules = OutputRules {
        output: files.output.clone(),
        format: files.format.choice(),
        suffix: files.suffix.clone(),
        overwrite: files.overwrite,
    };
    plan(&sources, &rules)
}

/// Refuses a trace that could not be written in the end.
///
/// # Errors
/// Its folder does not exist, or its name is a folder's or a picture's.
pub fn check_trace(trace: &Path, jobs: &[Job]) -> Result<()> {
    let refuse =
        |what: &str, fix: &str| Err(Error::usage(what).at(format!("--trace {}", trace.display())).fix(fix));
    let folder = trace.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return refuse("its folder does not exist", "create it first");
    }
    if trace.is_dir() || trace.file_name().is_none() {
        return refuse("this is a folder", "give the file to write");
    }
    if jobs.iter().any(|job| job.output == trace || job.input == trace) {
        return refuse("this is also an input or an output", "give another file");
    }
    Ok(())
}

/// The name of a file without its folder.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
