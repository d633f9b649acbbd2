use crate::playground::{Playground, Request};
use serde::Deserialize;
use std::cell::RefCell;

thread_local! {
    static PLAYGROUND: RefCell<Playground> = RefCell::default();
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    /// Hashes of the simulator's histories, as hexadecimal numbers.
    #[cfg(feature = "simulator")]
    Hashes {
        first: u64,
        count: u64,
    },
    Playground(Request),
}

/// Answers one call, JSON to JSON. What it does not understand it answers with `{"error": …}`.
pub fn answer(call: &str) -> String {
    let answered = match serde_json::from_str(call) {
        Ok(Call::Playground(request)) => {
            PLAYGROUND.with_borrow_mut(|playground| serde_json::to_string(&playground.handle(request)))
        }
        #[cfg(feature = "simulator")]
        Ok(Call::Hashes { first, count }) => {
            let hashes: Vec<String> = (first..first.saturating_add(count))
                .map(|seed| format!("{:016x}", crate::hash(seed)))
                .collect();
            serde_json::to_string(&hashes)
        }
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}
