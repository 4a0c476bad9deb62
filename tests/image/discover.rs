//! Inputs to jobs.

use std::fs;
use std::path::{Path, PathBuf};
use tasr::error::Kind;
use tasr::image::{Format, FormatChoice, Job, OutputRules, discover, plan};

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(names: &[&str]) -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for name in names {
            let path = folder.at(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        folder
    }
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn found(&self, inputs: &[&str], recursive: bool) -> Vec<String> {
        let inputs: Vec<PathBuf> = inputs.iter().map(|n| self.at(n)).collect();
        let found = discover(&inputs, recursive, None).unwrap();
        found.iter().map(|s| s.relative.display().to_string()).collect()
    }
    fn plan(&self, inputs: &[&str], rules: OutputRules) -> tasr::error::Result<Vec<Job>> {
        let inputs: Vec<PathBuf> = inputs.iter().map(|n| self.at(n)).collect();
        plan(&discover(&inputs, true, Some(&rules.output))?, &rules)
    }
    fn rules(&self, output: &str) -> OutputRules {
        let (format, suffix, overwrite) = (FormatChoice::Same, String::new(), false);
        OutputRules { output: self.at(output), format, suffix, overwrite }
    }
    fn outputs(&self, jobs: &[Job]) -> Vec<String> {
        let below = |p: &Path| p.strip_prefix(self.0.path()).unwrap().display().to_string();
        jobs.iter().map(|j| below(&j.output)).collect()
    }
}

#[test]
fn folders_are_listed_sorted_in_any_letter_case() {
    let f = Folder::with(&[
        "d/b.PNG",
        "d/a.jpeg",
        "d/c.WebP",
        "d/e.TIF",
        "d/f.tiff",
        "d/g.Bmp",
        "d/notes.txt",
        "d/.hidden.png",
        "d/sub/z.jpg",
        "d/none",
    ]);
    assert_eq!(f.found(&["d"], false), ["a.jpeg", "b.PNG", "c.WebP", "e.TIF", "f.tiff", "g.Bmp"]);
    assert_eq!(f.found(&["d"], true).last().unwrap(), "sub/z.jpg");
    // A file counts whatever it is called, and once.
    assert_eq!(f.found(&["d/none", "d/b.PNG", "d/none", "d"], false).len(), 7);
}

#[test]
fn what_is_missing_is_named() {
    let f = Folder::with(&["d/notes.txt", "deep/sub/a.png"]);
    let e = discover(&[f.at("gone.png")], false, None).unwrap_err();
    assert!(e.kind() == Kind::Io && e.to_string().contains("gone.png"), "{e}");
    let e = discover(&[f.at("d")], false, None).unwrap_err();
    assert!(e.kind() == Kind::Input && e.to_string().contains("no picture found"), "{e}");
    let e = discover(&[f.at("deep")], false, None).unwrap_err();
    assert!(e.to_string().contains("--recursive"), "{e}");
}

#[cfg(unix)]
#[test]
fn a_circle_of_links_ends() {
    let f = Folder::with(&["d/a.png", "d/sub/b.png"]);
    std::os::unix::fs::symlink(f.at("d"), f.at("d/sub/up")).unwrap();
    std::os::unix::fs::symlink(f.at("nowhere"), f.at("d/dead.png")).unwrap();
    assert_eq!(f.found(&["d"], true), ["a.png", "sub/b.png"]);
}

#[test]
fn one_file_may_be_given_its_output_file() {
    let f = Folder::with(&["a.jpg", "d/b.png", "there/x"]);
    let job = |output: &str| f.plan(&["a.jpg"], f.rules(output)).map(|j| j[0].clone());
    assert_eq!(job("out.webp").unwrap().format, Format::WebP);
    assert_eq!(job("out.webp").unwrap().output, f.at("out.webp"));
    assert_eq!(job("results").unwrap().output, f.at("results/a.jpg"));
    assert_eq!(job("there").unwrap().output, f.at("there/a.jpg"));
    assert_eq!(job("v1.0/").unwrap().output, f.at("v1.0/a.jpg"));
    assert_eq!(job("out.gif").unwrap_err().kind(), Kind::Usage);
    let rules = OutputRules { format: FormatChoice::Fixed(Format::Png), ..f.rules("out.webp") };
    assert!(f.plan(&["a.jpg"], rules).unwrap_err().to_string().contains("--format"));
    let e = f.plan(&["a.jpg", "d"], f.rules("out.png")).unwrap_err();
    assert!(e.to_string().contains("one file"), "{e}");
    assert!(f.plan(&["d"], f.rules("out.png")).is_err());
}

#[test]
fn folders_keep_their_shape() {
    let f = Folder::with(&["d/a.JPG", "d/s/b.tiff", "c.bin"]);
    let jobs = f.plan(&["d", "c.bin"], f.rules("out")).unwrap();
    assert_eq!(f.outputs(&jobs), ["out/a.jpg", "out/s/b.tif", "out/c.png"]);
    let rules =
        OutputRules { format: FormatChoice::Fixed(Format::WebP), suffix: "_x4".into(), ..f.rules("out") };
    let jobs = f.plan(&["d"], rules).unwrap();
    assert_eq!(f.outputs(&jobs), ["out/a_x4.webp", "out/s/b_x4.webp"]);
    jobs[1].create_folder().unwrap();
    assert!(f.at("out/s").is_dir());
    let bad = OutputRules { suffix: "/../x".into(), ..f.rules("out") };
    assert_eq!(f.plan(&["d"], bad).unwrap_err().kind(), Kind::Usage);
}

#[test]
fn two_sources_never_share_an_output() {
    let f = Folder::with(&["d/a.png", "d/a.jpg", "e/a.png"]);
    let png = |output| OutputRules { format: FormatChoice::Fixed(Format::Png), ..f.rules(output) };
    let e = f.plan(&["d"], png("out")).unwrap_err().to_string();
    assert!(e.contains("a.png") && e.contains("a.jpg"), "{e}");
    assert!(f.plan(&["d"], f.rules("out")).is_ok());
    assert!(f.plan(&["d/a.png", "e/a.png"], f.rules("out")).is_err());
}

#[test]
fn an_input_is_never_overwritten() {
    let f = Folder::with(&["d/a.png", "d/b.jpg"]);
    for overwrite in [false, true] {
        let rules = OutputRules { overwrite, ..f.rules("d") };
        let e = f.plan(&["d"], rules).unwrap_err();
        assert!(e.kind() == Kind::Usage && e.to_string().contains("overwrite an input"), "{e}");
        assert!(f.plan(&["d/a.png"], OutputRules { overwrite, ..f.rules("d/../d/a.png") }).is_err());
    }
}

#[test]
fn a_second_run_sees_what_is_finished() {
    let f = Folder::with(&["d/a.png", "d/b.png", "out/a.png"]);
    fs::write(f.at("out/b.png"), b"").unwrap();
    let finished = |overwrite| {
        let jobs = f.plan(&["d"], OutputRules { overwrite, ..f.rules("out") }).unwrap();
        jobs.iter().map(|j| j.finished).collect::<Vec<_>>()
    };
    assert_eq!(finished(false), [true, false]);
    assert_eq!(finished(true), [false, false]);
    fs::create_dir_all(f.at("taken/a.png")).unwrap();
    assert!(f.plan(&["d"], f.rules("taken")).is_err());
}

#[test]
fn results_of_an_earlier_run_are_no_input() {
    // Beside their sources, told by the suffix; even results of results are told apart.
    let f = Folder::with(&["d/a.png", "d/a_x4.png", "d/b_x4.png"]);
    let rules = OutputRules { suffix: "_x4".into(), ..f.rules("d") };
    let jobs = f.plan(&["d"], rules.clone()).unwrap();
    assert_eq!(f.outputs(&jobs), ["d/a_x4.png", "d/b_x4_x4.png"]);
    assert!(jobs[0].finished && !jobs[1].finished);
    // Asked for by name it is one.
    assert_eq!(f.outputs(&f.plan(&["d/a_x4.png"], rules).unwrap()), ["d/a_x4_x4.png"]);
    // In an output folder inside the input folder.
    let f = Folder::with(&["d/a.png", "d/out/a.png"]);
    assert_eq!(f.outputs(&f.plan(&["d"], f.rules("d/out")).unwrap()), ["d/out/a.png"]);
}
