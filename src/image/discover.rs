//! Inputs to a list of picture files.

use super::Format;
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A picture file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    /// Its path below the input folder that it was found in; for an input that is a file, its name.
    pub relative: PathBuf,
    /// The user gave this file by name; it was not found in a folder.
    pub named: bool,
}

/// Lists the pictures of `inputs`, in the order of the inputs and sorted by path within a folder.
///
/// A file is taken whatever its extension (its content decides later). A folder gives its files with a picture
/// extension in any letter case, with `recursive` also those of its subfolders; names that begin with a dot are
/// passed over. `output`, when it lies below an input folder, is not searched, so that a second run does not take the
/// results of the first as input. A file met twice is listed once.
///
/// # Errors
/// An input that does not exist or cannot be read, and inputs that hold no picture at all.
pub fn discover(inputs: &[PathBuf], recursive: bool, output: Option<&Path>) -> Result<Vec<Source>> {
    let mut walk = Walk {
        recursive,
        output: output.and_then(|o| o.canonicalize().ok()),
        files: HashSet::new(),
        folders: HashSet::new(),
        sources: Vec::new(),
        passed_folders: false,
    };
    for input in inputs {
        let about = fs::metadata(input).map_err(|e| Error::io("read the input", input, &e))?;
        if about.is_dir() {
            walk.folder(input, Path::new(""), true)?;
        } else {
            let name = input.file_name().map(PathBuf::from).unwrap_or_else(|| input.clone());
            walk.file(input.clone(), name, true)?;
        }
    }
    if walk.sources.is_empty() {
        let names: Vec<String> = inputs.iter().map(|i| i.display().to_string()).collect();
        let fix = match walk.passed_folders {
            true => "add --recursive to search the subfolders",
            false => "give files or folders with .png, .jpg, .jpeg, .webp, .tif, .tiff or .bmp pictures",
        };
        return Err(Error::input("no picture found").at(names.join(", ")).fix(fix));
    }
    Ok(walk.sources)
}

struct Walk {
    recursive: bool,
    output: Option<PathBuf>,
    /// Canonical paths of the files listed.
    files: HashSet<PathBuf>,
    /// Canonical paths of the folders searched, so that a circle of links ends.
    folders: HashSet<PathBuf>,
    sources: Vec<Source>,
    /// A subfolder was not searched for want of `recursive`.
    passed_folders: bool,
}

impl Walk {
    fn folder(&mut self, folder: &Path, relative: &Path, is_input: bool) -> Result<()> {
        let failed = |e: std::io::Error| Error::io("read the folder", folder, &e);
        let canonical = folder.canonicalize().map_err(failed)?;
        let is_output = !is_input && self.output.as_ref() == Some(&canonical);
        if is_output || !self.folders.insert(canonical) {
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort();
        for name in names.iter().filter(|n| !n.as_encoded_bytes().starts_with(b".")) {
            let (path, relative) = (folder.join(name), relative.join(name));
            // A link whose target is gone is no picture; a picture that cannot be read is reported when it is read.
            let Ok(about) = fs::metadata(&path) else { continue };
            if about.is_file() && Format::from_path(&path).is_some() {
                self.file(path, relative, false)?;
            } else if about.is_dir() && self.recursive {
                self.folder(&path, &relative, false)?;
            } else if about.is_dir() {
                self.passed_folders = true;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, relative: PathBuf, named: bool) -> Result<()> {
        let canonical = path.canonicalize().map_err(|e| Error::io("read the input", &path, &e))?;
        if self.files.insert(canonical) {
            self.sources.push(Source { path, relative, named });
        }
        Ok(())
    }
}
