//! The prompt of each picture: one for all, or a JSON list.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// One entry of the list; the first names are the official ones.
#[derive(Deserialize)]
struct Entry {
    #[serde(alias = "image")]
    lr_image: PathBuf,
    #[serde(alias = "prompt")]
    response: String,
}

/// Prompts by picture.
#[derive(Debug, Default)]
pub struct Prompts {
    general: String,
    by_path: HashMap<PathBuf, String>,
    by_name: HashMap<PathBuf, Option<String>>,
    images: Vec<PathBuf>,
}

impl Prompts {
    /// `general` for every picture that `list` does not mention.
    ///
    /// # Errors
    /// The list cannot be read or is not a JSON list of pictures with prompts.
    pub fn read(general: &str, list: Option<&Path>) -> Result<Self> {
        let mut prompts = Prompts { general: general.to_owned(), ..Prompts::default() };
        let Some(list) = list else { return Ok(prompts) };
        let text = fs::read_to_string(list).map_err(|error| Error::io("read the prompts", list, &error))?;
        let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|error| {
            Error::input(format!("not a list of prompts: {error}"))
                .at(format!("--prompts {}", list.display()))
                .fix("give a JSON list of {\"image\": \"a.png\", \"prompt\": \"...\"}")
        })?;
        let folder = list.parent().unwrap_or(Path::new(""));
        for entry in entries {
            let beside = folder.join(&entry.lr_image);
            let path = if entry.lr_image.exists() { entry.lr_image.clone() } else { beside };
            if let Some(name) = entry.lr_image.file_name() {
                // A name that two folders share says nothing.
                let place = prompts.by_name.entry(name.into());
                place.and_modify(|known| *known = None).or_insert(Some(entry.response.clone()));
            }
            prompts.by_path.insert(identity(&path), entry.response);
            prompts.images.push(path);
        }
        Ok(prompts)
    }

    /// The pictures of the list, in its order.
    pub fn images(&self) -> &[PathBuf] {
        &self.images
    }

    /// The prompt of `picture`: by path, else by name, else the general one.
    pub fn of(&self, picture: &Path) -> &str {
        let by_name = || self.by_name.get(Path::new(picture.file_name()?))?.as_ref();
        self.by_path.get(&identity(picture)).or_else(by_name).unwrap_or(&self.general)
    }
}

fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_found_by_path_and_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("x")).unwrap();
        fs::write(at("x/a.png"), "").unwrap();
        fs::write(
            at("list.json"),
            r#"[{"lr_image": "x/a.png", "response": "one"}, {"image": "gone/b.png", "prompt": "two"}]"#,
        )
        .unwrap();
        let prompts = Prompts::read("all", Some(&at("list.json"))).unwrap();
        assert_eq!(prompts.of(&at("x/a.png")), "one");
        assert_eq!(prompts.of(Path::new("elsewhere/b.png")), "two");
        assert_eq!(prompts.of(Path::new("c.png")), "all");
        assert_eq!(prompts.images().len(), 2);
    }

    #[test]
    fn a_bad_list_names_the_file_and_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list.json");
        for text in ["{}", "[{\"image\": 3}]", "[\n{\"image\": \"a.png\"}]", "\u{feff}nonsense"] {
            fs::write(&list, text).unwrap();
            let error = Prompts::read("", Some(&list)).unwrap_err().to_string();
            assert!(error.contains("list.json") && error.contains("line"), "{error}");
        }
    }
}
