//! Compiles the kernels for the host processor, twice: fast, and with a check before every access.

use crate::Places;
use crate::scan::Unit;

#[cfg(not(feature = "emulator"))]
pub fn compile(_: &Places, _: &[Unit], _: &[Unit]) -> Result<(), String> {
    Ok(())
}

#[cfg(feature = "emulator")]
pub use with_compiler::compile;

#[cfg(feature = "emulator")]
mod with_compiler {
    use std::fmt::Write;
    use std::path::{Path, PathBuf};

    use super::{Places, Unit};
    use crate::jobs::{self, Job};
    use crate::scan::read;

    const RUNTIME: [&str; 5] = ["fibers", "shadow", "arithmetic", "async", "wgmma"];
    const HEADERS: [&str; 5] = ["runtime.h", "context.h", "cuda.h", "arithmetic.h", "async.h"];
    /// Constant folding that reads ahead of a condition, or joins stores, would confuse the checks.
    const CHECKED: [&str; 4] = ["-fsanitize=thread", "-fno-tree-vectorize", "-fno-tree-slp-vectorize", "-O2"];

    /// Compiles everything into one archive and lists the entries in `emulated.rs`.
    pub fn compile(places: &Places, product: &[Unit], planted: &[Unit]) -> Result<(), String> {
        let kernels = places.root.join("kernels");
        let mut headers = String::new();
        for name in HEADERS {
            headers.push_str(&read(&kernels.join("emulator").join(name))?);
        }
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").pic(true).include(&kernels).include(&places.root).warnings(false);
        build.flag("-fno-exceptions").flag("-fno-rtti").flag("-fno-strict-aliasing").flag("-g1");
        build
            .define("TASR_EMULATOR", None)
            .flag("-Wno-unknown-pragmas")
            .flag("-ffp-contract=off")
            .flag("-fno-math-errno")
            .opt_level(2);
        let compiler = build.try_get_compiler().map_err(|e| e.to_string())?;
        // Without the place of the checkout, as everything that the hashes are made of.
        let version = format!("{compiler:?}").replace(&*places.root.to_string_lossy(), "");
        let (mut jobs, mut objects) = (Vec::new(), Vec::new());
        let mut add = |name: &str, source: &Path, content: &str, flags: &[&str]| {
            let hash = jobs::hash(&[&version, &headers, content, &flags.join(" ")]);
            let output = places.cache.join(format!("{name}.{hash}.o"));
            let mut command = compiler.to_command();
            command.args(flags).arg("-c").arg(source).arg("-o").arg(Job::part(&output));
            jobs.push(Job { output: output.clone(), command, check: Box::new(|_| Ok(())) });
            objects.push(output);
        };
        for name in RUNTIME {
            let source = kernels.join("emulator").join(format!("{name}.cpp"));
            let content = read(&source)?;
            add(name, &source, &content, &["-O3", "-fno-exceptions"]);
        }
        let mut list = String::from("unsafe extern \"C\" {\n");
        let all: Vec<&Unit> = product.iter().chain(planted).collect();
        for (variant, flags) in [("fast", &["-O2"][..]), ("checked", &CHECKED[..])] {
            for unit in &all {
                let (table, wrapper) = wrap(places, unit, variant);
                let source = places.out.join(format!("{table}.cpp"));
                write_if_new(&source, &wrapper)?;
                add(&table, &source, &format!("{wrapper}{}", unit.source), flags);
                let _ = writeln!(list, "static {table}: [Entry; {}];", unit.kernels.len());
            }
        }
        list.push_str("}\n");
        for variant in ["fast", "checked"] {
            // SAFETY of the generated reads: the tables are constants of the program.
            let _ = writeln!(list, "fn {variant}() -> Vec<&'static [Entry]> {{");
            let _ = writeln!(
                list,
                "// SAFETY: the tables are constants of the program, defined with these lengths."
            );
            let tables: Vec<_> =
                all.iter().map(|unit| format!("&{}[..]", wrap(places, unit, variant).0)).collect();
            let _ = writeln!(list, "unsafe {{ vec![{}] }}\n}}", tables.join(", "));
        }
        write_if_new(&places.out.join("emulated.rs"), &list)?;
        jobs::run(jobs)?;
        archive(&mut build, &objects)
    }

    /// The table of a unit's entries and the file that defines it. The namespace keeps what the two variants
    /// instantiate apart.
    fn wrap(places: &Places, unit: &Unit, variant: &str) -> (String, String) {
        let table = format!("tasr_{variant}_{}", unit.identifier());
        let entries: Vec<_> = unit.kernels.iter().map(|name| format!("&{variant}::entry_{name}")).collect();
        // From the root, so that checkouts elsewhere share what is compiled.
        let path = unit.path.strip_prefix(&places.root).unwrap_or(&unit.path);
        let text = format!(
            "#include \"emulator/arithmetic.h\"\nnamespace {variant} {{\n#include {:?}\n}}\n\
             extern \"C\" const emulator::Kernel* const {table}[] = {{{}}};\n",
            path,
            entries.join(", ")
        );
        (table, text)
    }

    fn write_if_new(path: &Path, text: &str) -> Result<(), String> {
        if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn archive(build: &mut cc::Build, objects: &[PathBuf]) -> Result<(), String> {
        objects.iter().for_each(|object| {
            build.object(object);
        });
        build.try_compile("tasr_emulator").map_err(|e| e.to_string())
    }
}
