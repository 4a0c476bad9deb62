//! Kind `cleaner`: the network that cleans training data.

use tasr::error::{Error, Result};
use tasr::models::{SwinConfig, SwinIr};
use tasr::nn::Scope;
use tasr::weights::SyntheticSource;

use crate::case::{Case, to_nchw};
use crate::compare::{Comparison, TOLERANCE};
use crate::place;

pub fn run(case: &Case) -> Result<Comparison> {
    let cx = &place::context()?;
    let network = case.text("network", "swinir_codeformer");
    if network != "swinir_codeformer" {
        return Err(Error::input(format!("unknown network '{network}'")).at(case.name()));
    }
    let cleaner = SwinIr::load(&Scope::new(cx, &SyntheticSource, ""), &SwinConfig::default())?;
    let clean = cleaner.forward(cx, &case.image(cx, "image")?)?;
    let mut comparison = Comparison::default();
    comparison.check(case, "clean", to_nchw(&clean)?, TOLERANCE)?;
    for name in case.names().filter(|name| *name != "image") {
        if !comparison.has(name) {
            comparison.absent(name);
        }
    }
    Ok(comparison)
}
