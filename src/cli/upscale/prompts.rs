//! Prompt lists: JSON with a prompt for each picture, as the published program takes them from a tagger.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

/// A list of so many bytes is no list of prompts.
const MOST_BYTES: u64 = 256 << 20;

/// One entry: the image as the list writes it, its prompt as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    image: PathBuf,
    prompt: String,
}

/// A read list.
#[derive(Debug)]
pub struct PromptList {
    path: PathBuf,
    entries: Vec<Entry>,
    /// By the canonical path of the images that are there.
    by_path: HashMap<PathBuf, usize>,
    /// By file name; `None` where entries of one name disagree.
    by_name: HashMap<OsString, Option<usize>>,
}

impl PromptList {
    /// Reads `[{"lr_image" or "image": PATH, "response" or "prompt": TEXT}, ...]`.
    ///
    /// # Errors
    /// The file cannot be read, is not such JSON (with line and column), an entry lacks a field, or one image has
    /// two different prompts.
    pub fn read(path: &Path) -> Result<PromptList> {
        let place = || path.display().to_string();
        let about = fs::metadata(path).map_err(|e| Error::io("read the prompts", path, &e))?;
        if !about.is_file() || about.len() > MOST_BYTES {
            return Err(Error::input("this is no list of prompts: not a file, or too large").at(place()));
        }
        let bytes = fs::read(path).map_err(|e| Error::io("read the prompts", path, &e))?;
        Self::parse(&bytes, path).map_err(|error| error.at(place()))
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<PromptList> {
        let fix = r#"give [{"image": "a.png", "prompt": "a cat"}, ...]"#;
        // Some editors begin a UTF-8 file with a mark that is no part of the text.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let list: Value = serde_json::from_slice(bytes)
            .map_err(|error| Error::input(format!("this is not JSON: {error}")).fix(fix))?;
        let Value::Array(list) = list else {
            return Err(Error::input("the JSON is not a list").fix(fix));
        };
        let entries = list
            .iter()
            .enumerate()
            .map(|(i, value)| {
                let field = |names: [&str; 2]| {
                    names.iter().find_map(|name| value.get(name)?.as_str()).ok_or_else(|| {
                        Error::input(format!(
                            "entry {} has no text \"{}\" or \"{}\"",
                            i + 1,
                            names[0],
                            names[1]
                        ))
                        .fix(fix)
                    })
                };
                Ok(Entry {
                    image: PathBuf::from(field(["lr_image", "image"])?),
                    prompt: field(["response", "prompt"])?.to_owned(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut list =
            PromptList { path: path.to_owned(), entries, by_path: HashMap::new(), by_name: HashMap::new() };
        list.index()?;
        Ok(list)
    }

    fn index(&mut self) -> Result<()> {
        for (i, entry) in self.entries.iter().enumerate() {
            if let Some(path) = self.locate(entry).and_then(|path| path.canonicalize().ok()) {
                let first = *self.by_path.entry(path).or_insert(i);
                if self.entries[first].prompt != entry.prompt {
                    return Err(Error::input(format!(
                        "entries {} and {} give {} different prompts",
                        first + 1,
                        i + 1,
                        entry.image.display()
                    ))
                    .fix("list each image once"));
                }
            }
            let Some(name) = entry.image.file_name() else { continue };
            let known = self.by_name.entry(name.to_owned()).or_insert(Some(i));
            if known.is_some_and(|first| self.entries[first].prompt != entry.prompt) {
                *known = None;
            }
        }
        Ok(())
    }

    /// Where the image of an entry is: relative to the list, or to the working folder.
    fn locate(&self, entry: &Entry) -> Option<PathBuf> {
        let beside = self.path.parent().unwrap_or(Path::new("")).join(&entry.image);
        [beside, entry.image.clone()].into_iter().find(|path| path.is_file())
    }

    /// The images, in the order of the list.
    ///
    /// # Errors
    /// The list is empty, or an image is not there.
    pub fn images(&self) -> Result<Vec<PathBuf>> {
        if self.entries.is_empty() {
            return Err(Error::input("the list is empty").at(self.path.display().to_string()));
        }
        let image = |(i, entry): (usize, &Entry)| {
            self.locate(entry).ok_or_else(|| {
                Error::input(format!("the image {} of entry {} is not there", entry.image.display(), i + 1))
                    .at(self.path.display().to_string())
                    .fix("write it relative to the list or to the working folder")
            })
        };
        self.entries.iter().enumerate().map(image).collect()
    }

    /// The prompt of a picture: by its path, else by its file name if that is clear.
    pub fn prompt_of(&self, picture: &Path) -> Option<&str> {
        let by_path = picture.canonicalize().ok().and_then(|path| self.by_path.get(&path).copied());
        let by_name = || self.by_name.get(picture.file_name()?).copied().flatten();
        by_path.or_else(by_name).map(|i| self.entries[i].prompt.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> String {
        PromptList::parse(json.as_bytes(), Path::new("list.json")).unwrap_err().to_string()
    }

    #[test]
    fn damage_is_said_with_its_place() {
        let error = message("[\n  {\"image\": \"a.png\",\n  \"prompt\": }]");
        assert!(error.contains("line 3 column 13"), "{error}");
        assert!(message("{}").starts_with("the JSON is not a list"));
        let error = message(r#"[{"image": "a", "prompt": "x"}, {"image": "b"}]"#);
        assert!(error.starts_with("entry 2 has no text \"response\" or \"prompt\""), "{error}");
        assert!(message(r#"["a.png"]"#).starts_with("entry 1 has no text \"lr_image\""));
        assert!(message(r#"[{"image": 4, "prompt": "x"}]"#).starts_with("entry 1"));
        assert!(message(&"[".repeat(100_000)).contains("recursion"));
    }

    #[test]
    fn pictures_find_their_prompts() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        ["a.png", "sub/a.png", "b.png", "new.png"].iter().for_each(|name| fs::write(path(name), "").unwrap());
        let json = r#"[{"lr_image": "a.png", "response": " one "}, {"image": "sub/a.png", "prompt": "two"},
            {"image": "/elsewhere/b.png", "prompt": "three"}, {"image": "sub/../a.png", "prompt": " one "}]"#;
        fs::write(path("list.json"), json).unwrap();
        let list = PromptList::read(&path("list.json")).unwrap();
        assert_eq!(list.prompt_of(&path("a.png")), Some(" one "));
        assert_eq!(list.prompt_of(&path("sub/a.png")), Some("two"));
        assert_eq!(list.prompt_of(&path("b.png")), Some("three"));
        assert_eq!(list.prompt_of(&path("new.png")), None);
        assert_eq!(list.prompt_of(Path::new("/other/a.png")), None, "two images have this name");
        let error = list.images().unwrap_err().to_string();
        assert!(error.contains("the image /elsewhere/b.png of entry 3 is not there"), "{error}");
        let twice = r#"[{"image": "a.png", "prompt": "x"}, {"image": "a.png", "prompt": "y"}]"#;
        fs::write(path("list.json"), twice).unwrap();
        let error = PromptList::read(&path("list.json")).unwrap_err().to_string();
        assert!(error.contains("entries 1 and 2 give a.png different prompts"), "{error}");
    }
}
