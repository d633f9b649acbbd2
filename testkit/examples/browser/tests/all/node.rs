//! The module under Node.

use super::build::{core_tests, folder, module, node};
use wasm_bindgen_cli_support::Bindgen;

const SEEDS: u64 = 400;

#[test]
fn neither_core_nor_memory_nor_the_simulator_imports_anything() {
    for (name, features) in [("playground", ""), ("simulator", "simulator")] {
        let told = node("exports.mjs", &[&module(name, features)]);
        assert_eq!(told.trim(), "imports: none; exports: call input memory output");
    }
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
    let glue = folder().join("relay");
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module("relay", "js")).nodejs(true).unwrap().generate(&glue).unwrap();
    let told = node("relay.mjs", &[glue.join("relay.js").to_str().unwrap(), "40"]);
    let taken: Vec<u32> = serde_json::from_str(&told).unwrap();
    assert_eq!(taken.len(), 40);
    for remainder in [0, 1] {
        let of_one_key: Vec<u32> = taken.iter().copied().filter(|number| number % 2 == remainder).collect();
        assert!(of_one_key.is_sorted(), "{of_one_key:?}");
    }
}
