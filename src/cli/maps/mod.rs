//! `tasr maps`: which weight the adapters give the ControlNet as denoising goes on (the article's Figure 7).

mod measure;
mod sheet;

use std::path::{Path, PathBuf};

use clap::Parser;
use measure::{Maps, TRACED};
use serde_json::{Value, json};
use sheet::Sheet;

use super::upscale;
use crate::error::{Error, Result};
use crate::image::{EncodeOptions, Picture, encode, write_whole};

const EXAMPLES: &str = "\
Examples:
  tasr maps photo.png -o maps.png
  tasr maps photo.png -o maps.png --columns 5 --adapters 1,7,13 --figures maps.json -- --steps 50 --models models/

What stands behind -- are options of `tasr upscale`.";

/// Draw the weights that the adapters give the ControlNet, per timestep and pixel
///
/// Upscales a picture, and draws what its adapters thought of it: a row an adapter, a column a step, the noisiest first.
/// Prints how the mean weights change.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Picture to upscale
    input: PathBuf,
    /// Sheet to write, a PNG
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How many steps are drawn, evenly chosen
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    columns: u16,
    /// Which adapters are drawn, from 1 on [default: all]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = upscale::values::count)]
    adapters: Vec<usize>,
    /// Longer side of a map on the sheet
    #[arg(long, value_name = "PIXELS", default_value_t = 96, value_parser = clap::value_parser!(u16).range(16..=1024))]
    side: u16,
    /// Smallest and largest weight that colours tell apart [default: 0 to the largest possible]
    #[arg(long, value_name = "LOW,HIGH", value_parser = range)]
    range: Option<[f32; 2]>,
    /// File for the mean, deviation and ends of every map of every step, as JSON
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,
    /// Options of `tasr upscale`
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

fn range(text: &str) -> std::result::Result<[f32; 2], String> {
    let ends = text
        .split_once(',')
        .and_then(|(low, high)| Some([low.trim().parse().ok()?, high.trim().parse().ok()?]));
    let ends: Option<[f32; 2]> =
        ends.filter(|[low, high]: &[f32; 2]| low.is_finite() && high.is_finite() && low < high);
    ends.ok_or_else(|| "give two numbers, the smaller first: 0.8,1.2".to_owned())
}

/// Parses what goes to `upscale`.
#[derive(Parser)]
#[command(name = "tasr upscale", no_binary_name = true)]
struct Upscale {
    #[command(flatten)]
    args: upscale::Args,
}

/// Runs the command.
///
/// # Errors
/// Those of `upscale`; a system without adapters, an adapter that it does not have, files that exist.
pub fn run(args: Args) -> Result<()> {
    check(&args)?;
    let maps = {
        let scratch = Scratch::beside(&args.output);
        upscale::run(upscale_of(&args, &scratch)?)?;
        Maps::read(&scratch.trace)?
    };
    let all = maps.maps.len();
    let adapters: Vec<usize> = match args.adapters.as_slice() {
        [] => (0..all).collect(),
        some => some.iter().map(|&adapter| place(adapter, all)).collect::<Result<_>>()?,
    };
    let columns = chosen(maps.timesteps.len(), args.columns.into());
    let range = args.range.unwrap_or([0.0, maps.top()]);
    let sheet = Sheet::of(&maps, (&adapters, &columns), args.side.into(), range);
    let picture = Picture::of_colour(sheet.width, sheet.height, sheet.colour);
    encode(&picture, &args.output, &EncodeOptions::default())?;
    if let Some(path) = &args.figures {
        let text =
            serde_json::to_string_pretty(&figures(&maps)).map_err(|e| Error::internal(e.to_string()))?;
        write_whole(path, format!("{text}\n").as_bytes())?;
    }
    print!("{}", summary(&maps));
    Ok(())
}

/// Refuses at once what could not be drawn or written in the end.
fn check(args: &Args) -> Result<()> {
    if args.input.is_dir() {
        let place = args.input.display().to_string();
        return Err(Error::usage("this is a folder").at(place).fix("give one picture"));
    }
    let png = args.output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    let place = args.output.display().to_string();
    if !png {
        return Err(Error::usage("the sheet will be a PNG").at(place).fix("end its name in .png"));
    }
    for path in [Some(&args.output), args.figures.as_ref()].into_iter().flatten() {
        if path.exists() && !args.overwrite {
            return Err(Error::usage("the file exists")
                .at(path.display().to_string())
                .fix("give --overwrite"));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            let place = path.display().to_string();
            return Err(Error::usage("its folder does not exist").at(place).fix("create it first"));
        }
    }
    Ok(())
}

fn upscale_of(args: &Args, scratch: &Scratch) -> Result<upscale::Args> {
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| {
            Error::usage("its name is no Unicode").at(path.display().to_string()).fix("rename it")
        })
    };
    let own = [text(&args.input)?, "-o".into(), text(&scratch.picture)?, "--overwrite".into()];
    let trace =
        ["--trace".into(), text(&scratch.trace)?, "--trace-keep".into(), format!("{TRACED},step*.eps")];
    let words = own.into_iter().chain(trace).chain(args.options.iter().cloned());
    match Upscale::try_parse_from(words) {
        Ok(parsed) => Ok(parsed.args),
        Err(wrong) => Err(Error::usage(super::sentence(&wrong)).at("behind --")),
    }
}

/// Files of the run that nobody asked for, hidden beside the sheet; they go when it is drawn.
struct Scratch {
    picture: PathBuf,
    trace: PathBuf,
}

impl Scratch {
    fn beside(sheet: &Path) -> Self {
        let name = sheet.file_name().unwrap_or_default().to_string_lossy();
        let file = |ending: &str| sheet.with_file_name(format!(".{name}.{}.{ending}", std::process::id()));
        Scratch { picture: file("png"), trace: file("safetensors") }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in [&self.picture, &self.trace] {
            let _ = std::fs::remove_file(path); // a run that failed has left none
        }
    }
}

/// The place of adapter `number`, which counts from 1.
fn place(number: usize, all: usize) -> Result<usize> {
    match number {
        1.. if number <= all => Ok(number - 1),
        _ => Err(Error::usage(format!("there is no adapter {number}"))
            .at("--adapters")
            .fix(format!("give numbers from 1 to {all}"))),
    }
}

/// `count` of `steps` steps, evenly spread, with both ends.
fn chosen(steps: usize, count: usize) -> Vec<usize> {
    match count.min(steps) {
        0 | 1 => vec![0],
        count => (0..count).map(|i| (i * (steps - 1) + (count - 1) / 2) / (count - 1)).collect(),
    }
}

/// All figures, as JSON.
fn figures(maps: &Maps) -> Value {
    let round = |value: f64| (value * 1e5).round() / 1e5;
    let adapters = maps.maps.iter().enumerate().map(|(adapter, own)| {
        let steps = own.iter().zip(&maps.timesteps).map(|(map, timestep)| {
            let [low, high] = map.ends().map(f64::from);
            json!({"timestep": timestep, "mean": round(map.mean()), "deviation": round(map.deviation()),
                   "smallest": round(low), "largest": round(high)})
        });
        let size = own.first().map_or([0, 0], |map| [map.height, map.width]);
        json!({"adapter": adapter + 1, "size": size, "change": round(maps.change(adapter)),
               "steps": steps.collect::<Vec<_>>()})
    });
    let means: Vec<f64> = maps.means().into_iter().map(round).collect();
    json!({"timesteps": maps.timesteps, "means": means, "adapters": adapters.collect::<Vec<_>>()})
}

/// The change of each adapter, and of all together.
fn summary(maps: &Maps) -> String {
    let mut text = String::from("adapter   first    last  change along the line that fits best\n");
    for (adapter, own) in maps.maps.iter().enumerate() {
        let [first, last] = [own.first(), own.last()].map(|map| map.map_or(0.0, measure::Map::mean));
        text += &format!("{:7}  {first:6.3}  {last:6.3}  {:+.3}\n", adapter + 1, maps.change(adapter));
    }
    let falling = (0..maps.maps.len()).filter(|&adapter| maps.change(adapter) < 0.0).count();
    let means = maps.means();
    let [first, middle, last] =
        [0, means.len() / 2, means.len().saturating_sub(1)].map(|i| means.get(i).copied().unwrap_or(0.0));
    text += &format!(
        "all      {first:6.3}  {last:6.3}  {middle:.3} half-way; the weights of {falling} of {} adapters fall\n",
        maps.maps.len()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_both_ends_and_are_distinct() {
        assert_eq!(chosen(20, 5), [0, 5, 10, 14, 19]);
        assert_eq!(chosen(3, 8), [0, 1, 2]);
        assert_eq!((chosen(20, 1), chosen(1, 8)), (vec![0], vec![0]));
        assert!(
            place(0, 13).is_err() && place(14, 13).is_err() && place(13, 13).is_ok_and(|place| place == 12)
        );
    }
}
