//! The module under Node.

use super::build::{core_tests, folder, module, node};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use wasm_bindgen_cli_support::Bindgen;

const SEEDS: u64 = 400;

#[test]
fn neither_core_nor_memory_nor_the_simulator_imports_anything() {
    for (name, features) in [("playground", ""), ("simulator", "simulator")] {
        let told = exports(&module(name, features));
        assert_eq!(told["imports"], serde_json::json!([]), "{name}");
        assert_eq!(told["exports"], serde_json::json!(["call", "input", "memory", "output"]), "{name}");
    }
}

/// As the architecture's page has it. What wasm-bindgen needs for itself begins with two more underscores.
#[test]
fn with_the_feature_js_it_imports_time_randomness_and_promises() {
    let told = exports(glue().join("relay_bg.wasm").to_str().unwrap());
    let imports: Vec<String> = serde_json::from_value(told["imports"].clone()).unwrap();
    let asked: BTreeSet<&str> = imports
        .iter()
        .filter_map(|import| import.strip_prefix("./relay_bg.js.__wbg_")?.rsplit_once('_'))
        .map(|(name, _hash)| name)
        .filter(|name| !name.starts_with('_'))
        .collect();
    let time = ["setTimeout", "clearTimeout", "performance", "now"];
    let randomness = ["getRandomValues"];
    let promises = ["new_typed", "resolve", "then", "queueMicrotask", "call", "Error"];
    let global_object =
        ["GLOBAL", "GLOBAL_THIS", "SELF", "WINDOW"].map(|name| format!("static_accessor_{name}"));
    let documented = [&time[..], &randomness, &promises].concat();
    let documented = documented.into_iter().chain(global_object.iter().map(String::as_str));
    assert_eq!(asked, documented.collect());
}

#[test]
fn the_cases_of_the_claim_state_machine_hold() {
    assert_eq!(node("unit.mjs", &[core_tests().to_str().unwrap()]).trim(), "passed");
}

#[test]
fn every_seed_has_the_history_that_it_has_here() {
    let told = node("seeds.mjs", &[&module("simulator", "simulator"), "0", &SEEDS.to_string()]);
    let there: Vec<&str> = told.lines().collect();
    assert_eq!(there.len() as u64, SEEDS);
    for (seed, there) in (0..).zip(there) {
        let here = format!("{:016x}", pillarbox_browser::hash(seed));
        assert_eq!(here, there, "seed {seed}");
    }
}

#[test]
fn a_relay_runs_on_the_browsers_timer() {
    let told = node("relay.mjs", &[glue().join("relay.js").to_str().unwrap(), "40"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["refused"], 8);
    let taken: Vec<u32> = serde_json::from_value(told["taken"].clone()).unwrap();
    assert_eq!(taken.len(), 40);
    for remainder in [0, 1] {
        let of_one_key: Vec<u32> = taken.iter().copied().filter(|number| number % 2 == remainder).collect();
        assert!(of_one_key.is_sorted(), "{of_one_key:?}");
    }
}

fn exports(module: &str) -> serde_json::Value {
    serde_json::from_str(&node("exports.mjs", &[module])).unwrap()
}

/// A relay for Node, with the code that wasm-bindgen writes for it.
fn glue() -> &'static Path {
    static GLUE: OnceLock<PathBuf> = OnceLock::new();
    GLUE.get_or_init(|| {
        let glue = folder().join("relay");
        let mut bindgen = Bindgen::new();
        bindgen.input_path(module("relay", "js")).nodejs(true).unwrap().generate(&glue).unwrap();
        glue
    })
}
