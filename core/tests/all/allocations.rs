//! At most one allocation per message through the whole relay.

use crate::supply::{Sink, Still, Supply};
use futures_executor::block_on;
use pillarbox_core::{Relay, RelayConfig};

const MESSAGES: u64 = 50_000;

fn allocations_per_message(run_length: u32, keyed: bool, prefix_per_key: bool) -> f64 {
    let supply = Supply::new(MESSAGES, run_length, keyed);
    let config = RelayConfig::default().batch_size(500);
    let relay = Relay::new(&supply, Sink { prefix_per_key }, config).unwrap().timer(Still);
    let relay = relay.randomness(|| 7);
    let counted = allocation_counter::measure(|| block_on(relay.run(supply.drained())).unwrap());
    assert_eq!(supply.settled(), MESSAGES);
    let per_message = counted.count_total as f64 / MESSAGES as f64;
    println!(
        "runs of {run_length}, keyed {keyed}, prefix {prefix_per_key}: {per_message:.4} allocations per message"
    );
    per_message
}

#[test]
fn at_most_one_allocation_per_message() {
    for run_length in [1, 500] {
        for (keyed, prefix_per_key) in [(false, false), (true, true), (true, false)] {
            let per_message = allocations_per_message(run_length, keyed, prefix_per_key);
            assert!(per_message <= 1.0, "{per_message} with runs of {run_length}, keyed {keyed}");
        }
    }
}
