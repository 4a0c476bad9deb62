//! Writes the kernel list that the crate includes: one constant a kernel, so that no name is looked up at run
//! time, and the code of every unit.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use crate::Places;
use crate::nvcc::Compiled;
use crate::scan::Unit;

const SUFFIXES: [&str; 3] = ["_f32", "_f16", "_bf16"];

/// Writes `kernels.rs`. Kernels of `planted`, which only the emulator has, are numbered last.
pub fn write(
    places: &Places,
    product: &[Unit],
    planted: &[Unit],
    compiled: &HashMap<String, Compiled>,
) -> Result<(), String> {
    let mut text = String::new();
    constants(&mut text, product, 0);
    let count = product.iter().map(|unit| unit.kernels.len()).sum();
    text.push_str("/// Kernels with a bug each, for the tests of the emulator's detectors.\n");
    text.push_str("#[cfg(feature = \"emulator\")]\npub mod planted {\nuse super::*;\n");
    constants(&mut text, planted, count);
    text.push_str("}\n");
    text.push_str("pub(super) static MODULES: &[Module] = &[\n");
    for unit in product {
        module(&mut text, places, unit, compiled.get(&unit.name))?;
    }
    text.push_str("];\npub(super) static NAMES: &[&str] = &[\n");
    for name in product.iter().chain(planted).flat_map(|unit| &unit.kernels) {
        let _ = writeln!(text, "{name:?},");
    }
    text.push_str("];\n");
    let path = places.out.join("kernels.rs");
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// A `Family` for kernels that differ in the element type only, a `Kernel` for the others.
fn constants(text: &mut String, units: &[Unit], first: usize) {
    let mut families: BTreeMap<&str, [Option<usize>; 3]> = BTreeMap::new();
    for (number, name) in units.iter().flat_map(|unit| &unit.kernels).enumerate() {
        let dtype = (0..3).find_map(|i| Some((i, name.strip_suffix(SUFFIXES[i])?)));
        match dtype {
            Some((i, stem)) => families.entry(stem).or_default()[i] = Some(first + number),
            None => {
                let constant = name.to_uppercase();
                let _ = writeln!(text, "pub const {constant}: Kernel = Kernel({});", first + number);
            }
        }
    }
    for (stem, members) in families {
        let members =
            members.map(|m| m.map_or("None".to_string(), |number| format!("Some(Kernel({number}))")));
        let _ = writeln!(
            text,
            "pub const {}: Family = Family({stem:?}, [{}]);",
            stem.to_uppercase(),
            members.join(", ")
        );
    }
}

fn module(text: &mut String, places: &Places, unit: &Unit, code: Option<&Compiled>) -> Result<(), String> {
    let source = places.out.join(format!("{}.flat.cu", unit.identifier()));
    std::fs::write(&source, &unit.source).map_err(|e| format!("{}: {e}", source.display()))?;
    let _ = writeln!(text, "Module {{ name: {:?}, source: include_str!({source:?}),", unit.name);
    let _ = writeln!(
        text,
        "architectures: &{:?}, kernels: {}, cubins: &[",
        unit.architectures,
        unit.kernels.len()
    );
    for (architecture, path) in code.map_or(&[][..], |code| &code.cubins) {
        let _ = writeln!(text, "({architecture:?}, include_bytes!({path:?})),");
    }
    match code.and_then(|code| code.ptx.as_ref()) {
        Some(path) => {
            let _ = writeln!(text, "], ptx: Some(include_bytes!({path:?})) }},");
        }
        None => text.push_str("], ptx: None },\n"),
    }
    Ok(())
}
