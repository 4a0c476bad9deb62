//! The configuration of a run: a TOML file, or the published YAML, over the values of a recipe.

mod published;
mod resolve;
mod settings;
mod stage;

use std::path::Path;

pub use resolve::{Config, Losses, Reconstruction, Validation};
pub use settings::{AdapterKind, Cleaner, ModelSettings, Recipe, RewardKind, Schedule, Settings, Target};
pub use stage::Stage;

use crate::error::{Error, Result};

/// The settings of `path` with `changes` (`section.key=value`, values as in TOML) laid over them, and whether the file
/// asks to resume.
///
/// # Errors
/// The file cannot be read or holds what is not known, or a change has no such key.
pub fn read(path: &Path, changes: &[String]) -> Result<(Settings, bool)> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read the configuration", path, &e))?;
    let at = |e: Error| e.at(path.display().to_string());
    let yaml =
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
    if yaml {
        let (settings, resume) = published::read(&text).map_err(at)?;
        return Ok((overlaid(settings, changes)?, resume));
    }
    let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| at(unreadable(&e)))?;
    // Paths of the file are relative to the folder that the program runs in, as those of the command line are.
    for change in changes {
        set(&mut table, change)?;
    }
    let settings = Settings::deserialize_table(table).map_err(|e| at(unreadable(&e)))?;
    Ok((settings, false))
}

fn unreadable(error: &toml::de::Error) -> Error {
    let message = error.message().replace('\n', " ");
    Error::input(message).fix("`tasr train --help` lists the keys")
}

/// `section.key=value`
fn set(table: &mut toml::Table, change: &str) -> Result<()> {
    let wrong = |what: &str| {
        Error::usage(format!("'{change}' {what}"))
            .at("--set")
            .fix("give it as train.steps=1000 or data.crop=\"centre\"")
    };
    let (key, value) = change.split_once('=').ok_or_else(|| wrong("has no ="))?;
    let (section, key) = key.trim().split_once('.').ok_or_else(|| wrong("names no section"))?;
    // A bare word is a text.
    let line = format!("value = {}", value.trim());
    let quoted = format!("value = {:?}", value.trim());
    let mut parsed: toml::Table =
        line.parse().or_else(|_| quoted.parse()).map_err(|_: toml::de::Error| wrong("has no value"))?;
    let value = parsed.remove("value").ok_or_else(|| wrong("has no value"))?;
    let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
    let section = section.as_table_mut().ok_or_else(|| wrong("names no section"))?;
    section.insert(key.to_owned(), value);
    Ok(())
}

/// Changes laid over settings that came from no TOML.
fn overlaid(settings: Settings, changes: &[String]) -> Result<Settings> {
    let mut table = toml::Table::new();
    for change in changes {
        set(&mut table, change)?;
    }
    let over = Settings::deserialize_table(table).map_err(|e| unreadable(&e).at("--set"))?;
    Ok(settings.overlaid(over))
}

#[cfg(test)]
mod tests;
