//! `tasr pull`: fetches the published weights.

mod catalogue;
mod pace;
mod partial;
mod request;
mod transfer;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use catalogue::{ENTRIES, Entry};
use pace::Least;
use transfer::Manner;

use super::interrupt::Interrupt;
use super::progress::{Mode, Reporter};
use super::upscale::models_folder;
use crate::error::{Error, Kind, Result};
use crate::pipeline::progress::{FileEnd, Progress};
use crate::weights::space::{free_space, in_units};

const EXAMPLES: &str = "\
Examples:
  tasr pull --dry-run
  tasr pull
  tasr pull stage1 -o models --mirror https://mirror.example/tasr

A transfer that breaks goes on where it stopped, also in a later run. A file gets its name when it is complete and its
SHA-256 is the published one. A mirror has the files under their names, and may have SHA256SUMS beside them.";

/// Fetch the published weights into the folder where `tasr upscale` finds them
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which files [default: all]
    #[arg(value_name = "NAME", value_parser = ENTRIES.each_ref().map(|entry| entry.name))]
    names: Vec<String>,
    /// Folder for them, made if need be [default: $TASR_MODELS, or tasr/models in the user's data folder]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Address that has the files under their names; tried before the published ones. May be given several times
    #[arg(long = "mirror", value_name = "URL")]
    mirrors: Vec<String>,
    /// Try no other address than the mirrors
    #[arg(long, requires = "mirrors")]
    mirror_only: bool,
    /// Say what would be fetched and from where, and how much there is room for; write nothing
    #[arg(long)]
    dry_run: bool,
    /// How often a transfer that brings nothing more, or too little, is tried again before the next address is
    #[arg(long, value_name = "N", default_value_t = 4)]
    retries: u32,
    /// The longest silence of a server
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    timeout: f32,
    /// The least that a transfer brings, on average over the time of --timeout, before it counts as broken
    #[arg(long, value_name = "KB/S", default_value_t = 1.0, value_parser = rate)]
    slowest: f32,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

fn seconds(text: &str) -> std::result::Result<f32, String> {
    text.parse().ok().filter(|seconds| (0.01..1e6).contains(seconds)).ok_or("give a time in seconds".into())
}

fn rate(text: &str) -> std::result::Result<f32, String> {
    text.parse().ok().filter(|rate| (0.0..1e9).contains(rate)).ok_or("give a rate in KB a second".into())
}

/// Runs the command.
///
/// # Errors
/// A file that no source gives, bytes that are not the published ones, no room: of several files at the end, when the
/// others are there; an interrupt.
pub fn run(args: Args) -> Result<()> {
    let folder = args.output.or_else(models_folder).ok_or_else(|| {
        Error::usage("no folder for models is known on this system").at("--output").fix("give -o DIR")
    })?;
    let reporter = Reporter::new(Mode::choose(args.quiet, false), Interrupt::install()?);
    let mirrors: Vec<&str> = args.mirrors.iter().map(|url| url.trim_end_matches('/')).collect();
    let is_address = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    if let Some(url) = mirrors.iter().find(|url| !is_address(url)) {
        let fix = "give an address that begins with https:// or http://";
        return Err(Error::usage(format!("{url} is no address of files")).at("--mirror").fix(fix));
    }
    let manner = Manner {
        retries: args.retries,
        least: Least {
            bytes_per_second: f64::from(args.slowest) * 1000.0,
            span: Duration::from_secs_f32(args.timeout),
        },
        progress: &reporter,
    };
    let wanted: Vec<&Entry> = ENTRIES
        .iter()
        .filter(|entry| args.names.is_empty() || args.names.iter().any(|name| name == entry.name))
        .collect();
    let mut sums = HashMap::new();
    for mirror in mirrors.iter().rev() {
        sums.extend(sums_of(mirror, &manner)?); // of two that tell one, the first is believed
    }
    let mut pulls: Vec<Pull> =
        wanted.into_iter().map(|entry| Pull::new(entry, &folder, &mirrors, &sums)).collect();
    if args.mirror_only {
        pulls.iter_mut().for_each(|pull| pull.sources.truncate(mirrors.len()));
    }
    if args.dry_run {
        return tell(&pulls, &folder, &manner);
    }
    fs::create_dir_all(&folder).map_err(|e| Error::io("make the folder", &folder, &e))?;
    reporter.begin_run(pulls.len());
    let mut failures = Vec::new();
    for pull in &pulls {
        let name = pull.entry.file;
        reporter.begin_file(name);
        let output = pull.target.display().to_string();
        match pull.run(&manner) {
            Ok(true) => reporter.end_file(name, FileEnd::Written { output: &output }),
            Ok(false) => reporter.end_file(name, FileEnd::Skipped { why: "already there" }),
            // The error of the only file is that of the run.
            Err(error) if pulls.len() == 1 || error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => {
                reporter.end_file(name, FileEnd::Failed { error: &error });
                failures.push(error);
            }
        }
    }
    match failures.first() {
        None => Ok(()),
        Some(first) => {
            let (failed, all) = (failures.len(), pulls.len());
            Err(Error::new(first.kind(), format!("{failed} of {all} files could not be had"))
                .at(folder.display().to_string())
                .fix("run the command again: what came is kept"))
        }
    }
}

/// A file to be fetched.
struct Pull<'a> {
    entry: &'a Entry,
    target: PathBuf,
    sources: Vec<String>,
    /// SHA-256, the published one or else the mirror's
    sum: Option<String>,
}

impl<'a> Pull<'a> {
    fn new(entry: &'a Entry, folder: &Path, mirrors: &[&str], sums: &HashMap<String, String>) -> Self {
        let mirrored = mirrors.iter().map(|url| format!("{url}/{}", entry.file));
        let published = entry.sources.iter().map(|&url| url.to_owned());
        Pull {
            entry,
            target: folder.join(entry.file),
            sources: mirrored.chain(published).collect(),
            sum: entry.sha256.map(str::to_owned).or_else(|| sums.get(entry.file).cloned()),
        }
    }

    /// -> whether it had to be fetched
    fn run(&self, manner: &Manner) -> Result<bool> {
        let progress = manner.progress;
        if self.target.exists() {
            let Some(sum) = &self.sum else {
                progress.note(&format!(
                    "{}: no SHA-256 is published for it, so it was not checked",
                    self.entry.file
                ));
                return Ok(false);
            };
            let found = partial::sum_of(&self.target, || progress.check_interrupt())?;
            if found.eq_ignore_ascii_case(sum) {
                return Ok(false);
            }
            return Err(Error::new(Kind::Weights, format!("its SHA-256 is {found}, expected {sum}"))
                .at(self.target.display().to_string())
                .fix("remove it and run the command again"));
        }
        let found = manner.fetch(&self.sources, &self.target, self.sum.as_deref())?;
        if self.sum.is_none() {
            progress.note(&format!(
                "{}: no SHA-256 is published for it, so it was not checked; what came has {found}",
                self.entry.file
            ));
        }
        Ok(true)
    }
}

/// Prints what would be done.
fn tell(pulls: &[Pull], folder: &Path, manner: &Manner) -> Result<()> {
    for pull in pulls {
        let Entry { what, file, licence, .. } = pull.entry;
        println!("{file}: {what}, licence: {licence}");
        if pull.target.exists() {
            println!("  already in {}", folder.display());
            continue;
        }
        for url in &pull.sources {
            let says = match manner.ask(url)? {
                Ok(Some(bytes)) => in_units(bytes),
                Ok(None) => "of unknown size".to_owned(),
                Err(why) => format!("not reached: {why}"),
            };
            println!("  {url} ({says})");
        }
        println!("  SHA-256: {}", pull.sum.as_deref().unwrap_or("none is published"));
    }
    let free =
        free_space(&folder.join(".")).map_or_else(String::new, |free| format!(", {} free", in_units(free)));
    println!("into {}{free}", folder.display());
    Ok(())
}

/// The sums that a mirror tells. One that cannot be asked is used all the same, and it is said that it told none.
fn sums_of(mirror: &str, manner: &Manner) -> Result<HashMap<String, String>> {
    let url = format!("{mirror}/SHA256SUMS");
    let text = manner.text(&url)?.unwrap_or_else(|why| {
        manner.progress.note(&format!("{url}: {why}; the mirror's own sums are not known"));
        String::new()
    });
    Ok(sums_in(&text))
}

/// File names and sums of the lines `SUM  NAME` or `SUM *NAME`.
fn sums_in(text: &str) -> HashMap<String, String> {
    let line = |line: &str| {
        let (sum, name) = line.split_once(char::is_whitespace)?;
        let is_sum = sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_sum.then(|| {
            (name.trim_start().trim_start_matches('*').trim_end().to_owned(), sum.to_ascii_lowercase())
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_in_both_forms() {
        let (one, other) = ("ab".repeat(32), "CD".repeat(32));
        let sums = sums_in(&format!("{one}  a.pth\n{other} *b c.pth\nshort  d.pth\n# a comment\n"));
        assert_eq!(sums.len(), 2);
        assert_eq!(sums["a.pth"], one);
        assert_eq!(sums["b c.pth"], other.to_lowercase());
    }
}
