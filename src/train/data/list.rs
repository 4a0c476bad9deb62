//! Which pictures a run trains on, and their prompts.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::image::discover;

/// A picture and, where a list gave one, its prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: PathBuf,
    pub prompt: Option<String>,
}

/// Where prompts come from when no list gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptSource {
    /// Nowhere: every prompt is empty.
    #[default]
    None,
    /// `NAME.txt` beside `NAME.png`.
    Beside,
    /// The published layout: every "gt" of the path replaced by "tag", and the extension by .txt.
    Tags,
}

impl PromptSource {
    /// # Errors
    /// The file is missing or cannot be read.
    fn prompt(self, path: &Path) -> Result<String> {
        let text = match self {
            PromptSource::None => return Ok(String::new()),
            PromptSource::Beside => path.with_extension("txt"),
            PromptSource::Tags => {
                PathBuf::from(path.to_string_lossy().replace("gt", "tag")).with_extension("txt")
            }
        };
        let read = std::fs::read_to_string(&text).map_err(|e| {
            Error::io("read the prompt", &text, &e).fix("write it, or set data.prompts to \"none\"")
        })?;
        Ok(read.trim().to_owned())
    }
}

impl Entry {
    /// The prompt of the list, else what `source` says.
    ///
    /// # Errors
    /// The prompt's file cannot be read.
    pub fn prompt(&self, source: PromptSource) -> Result<String> {
        self.prompt.clone().map_or_else(|| source.prompt(&self.path), Ok)
    }
}

/// The entries of folders (searched with their subfolders), pictures, and lists: `.txt` with a path a line, behind a tab
/// its prompt, or `.json` with objects of `image` and `prompt` (or `lr_image` and `response`, as tags are published).
/// Paths of a list are relative to it.
///
/// # Errors
/// An input that does not exist or holds no picture, a list that cannot be used.
pub fn entries(inputs: &[PathBuf]) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for input in inputs {
        let extension = input.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            _ if input.is_dir() => found.extend(pictures(input)?),
            Some("json") => found.extend(json_list(input)?),
            Some("txt") | None => found.extend(text_list(input)?),
            _ => found.extend(pictures(input)?),
        }
    }
    if found.is_empty() {
        return Err(Error::input("there are no pictures to train on")
            .at("data.pictures")
            .fix("name folders, pictures or lists"));
    }
    Ok(found)
}

fn pictures(input: &Path) -> Result<Vec<Entry>> {
    let sources = discover(&[input.to_owned()], true, None)?;
    Ok(sources.into_iter().map(|source| Entry { path: source.path, prompt: None }).collect())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io("read the list", path, &e))
}

fn beside(list: &Path, path: &str) -> PathBuf {
    list.parent().unwrap_or(Path::new("")).join(path)
}

fn text_list(list: &Path) -> Result<Vec<Entry>> {
    let entry = |line: &str| {
        let (path, prompt) = match line.split_once('\t') {
            Some((path, prompt)) => (path, Some(prompt.trim().to_owned())),
            None => (line, None),
        };
        Entry { path: beside(list, path.trim()), prompt }
    };
    Ok(read(list)?.lines().filter(|line| !line.trim().is_empty()).map(entry).collect())
}

fn json_list(list: &Path) -> Result<Vec<Entry>> {
    let wrong = |what: String| {
        Error::input(what)
            .at(list.display().to_string())
            .fix("give a list of objects with image and, if there is one, prompt")
    };
    let value: Value = serde_json::from_str(&read(list)?).map_err(|e| wrong(format!("not JSON: {e}")))?;
    let rows = value.as_array().ok_or_else(|| wrong("this is no list".into()))?;
    let text =
        |row: &Value, keys: [&str; 2]| keys.iter().find_map(|key| row.get(key)?.as_str().map(str::to_owned));
    rows.iter()
        .enumerate()
        .map(|(i, row)| {
            let path =
                text(row, ["image", "lr_image"]).ok_or_else(|| wrong(format!("entry {i} names no image")))?;
            Ok(Entry { path: beside(list, &path), prompt: text(row, ["prompt", "response"]) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_pictures_and_prompts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let text = write("a.txt", "x.png\n\n sub/y.png\ta cat \n");
        let json = write("b.json", r#"[{"lr_image": "/z.png", "response": "dog"}, {"image": "w.png"}]"#);
        let entry = |path: PathBuf, prompt: Option<&str>| Entry { path, prompt: prompt.map(str::to_owned) };
        let expected = [
            entry(folder.path().join("x.png"), None),
            entry(folder.path().join("sub/y.png"), Some("a cat")),
            entry("/z.png".into(), Some("dog")),
            entry(folder.path().join("w.png"), None),
        ];
        assert_eq!(entries(&[text, json]).unwrap(), expected);
        assert!(entries(&[write("c.json", "{}")]).is_err());
        assert!(entries(&[write("d.txt", "\n")]).is_err());
        assert!(entries(&[folder.path().join("gone")]).is_err());
    }

    #[test]
    fn prompts_lie_beside_pictures_or_among_the_tags() {
        // A scratch folder whose random name does not hold what is replaced.
        let folder = std::iter::repeat_with(|| tempfile::tempdir().unwrap())
            .find(|folder| !folder.path().to_string_lossy().contains("gt"))
            .unwrap();
        let root = folder.path().join("data");
        for (name, text) in [("gt/a.txt", " beside\n"), ("tag/a.txt", "among, the tags\n")] {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), text).unwrap();
        }
        let entry = Entry { path: root.join("gt/a.png"), prompt: None };
        assert_eq!(entry.prompt(PromptSource::None).unwrap(), "");
        assert_eq!(entry.prompt(PromptSource::Beside).unwrap(), "beside");
        assert_eq!(entry.prompt(PromptSource::Tags).unwrap(), "among, the tags");
        let listed = Entry { prompt: Some("listed".into()), ..entry.clone() };
        assert_eq!(listed.prompt(PromptSource::Tags).unwrap(), "listed");
        let lost = Entry { path: root.join("gt/b.png"), prompt: None };
        assert!(lost.prompt(PromptSource::Beside).unwrap_err().to_string().contains("b.txt"));
    }
}
