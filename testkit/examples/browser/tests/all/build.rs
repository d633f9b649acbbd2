//! The modules, and the programs that run them.

use pillarbox_browser::site;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds one of the modules of this package, as it is published.
pub(crate) fn module(name: &str, features: &str) -> String {
    let module = site::module(name, "wasm", features).unwrap_or_else(|error| panic!("{error}"));
    module.to_str().unwrap().to_owned()
}

/// The core's own unit tests, as one module that runs them.
pub(crate) fn core_tests() -> PathBuf {
    let told = cargo_in("core", &["test", "--no-run", "--lib", "--message-format", "json"]);
    let line = told.lines().rfind(|line| line.contains("\"executable\":\"")).expect(&told);
    let artifact: serde_json::Value = serde_json::from_str(line).unwrap();
    PathBuf::from(artifact["executable"].as_str().unwrap())
}

/// Runs Node on a script of this package, and answers what it says.
pub(crate) fn node(script: &str, arguments: &[&str]) -> String {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    run(Command::new("node").arg(package.join("tests").join(script)).args(arguments))
}

/// Where modules and pictures are kept, below the target folder.
pub(crate) fn folder() -> PathBuf {
    let folder = target().join("browser");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

fn cargo_in(package: &str, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).args(["--target", TARGET, "--target-dir"]).arg(target());
    run(command.current_dir(root.join(package)))
}

/// What a program says on its standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/setup installs what the tests need"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{complaint}", output.status);
    said
}
