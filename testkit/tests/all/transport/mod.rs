//! The proof of the transport suite: it bites. Each mutant breaks one promise of a transport that keeps them all, and the case
//! of that promise must tell.

mod broken;

use broken::{Fault, Mutant};
use pillarbox_testkit::transport::{Trial, cases};

macro_rules! every_case {
    ({} $($group:ident { $($name:ident $needs:tt)+ })+) => {
        /// The cases that fail, in the order of the list; only `wanted`, if it names one.
        fn failing(fault: Fault, wanted: &str) -> Vec<&'static str> {
            let mut failing = Vec::new();
            $($(
                if wanted.is_empty() || stringify!($name) == wanted {
                    let trial = Trial::new(stringify!($name), &[], Mutant::new(fault));
                    if futures_executor::block_on(cases::$group::$name(&trial)).is_err() {
                        failing.push(stringify!($name));
                    }
                }
            )+)+
            failing
        }
    };
}
pillarbox_testkit::__each_transport_case! { @list [every_case] {} }

mod whole {
    use super::{Fault, Mutant};

    pillarbox_testkit::transport_suite!(
        #[test]
        block_on = futures_executor::block_on,
        harness = Mutant::new(Fault::None)
    );
}

#[test]
fn every_mutant_is_caught_by_the_case_of_the_promise_that_it_breaks() {
    let expected = [
        (Fault::SaysOkAndDelivers2Of3, "ok_means_received"),
        (Fault::SaysOkAndDelivers2Of3, "outcomes_are_per_message"),
        (Fault::DeliversTheFirst100, "ok_means_received"),
        (Fault::DeliversTheFirst100, "outcomes_are_per_message_in_a_large_batch"),
        (Fault::DeliversTwice, "ok_means_received"),
        (Fault::ReordersTheBatch, "order_within_key_is_kept"),
        (Fault::ReordersTheBatch, "prefix_per_key"),
        (Fault::SaysNotApplied, "not_applied_means_not_received"),
        (Fault::DropsHeaders, "payload_and_headers_roundtrip"),
        (Fault::CutsPayloads, "payload_and_headers_roundtrip"),
        (Fault::RenamesRepetitions, "id_travels"),
        (Fault::ListsNoDestination, "every_destination_is_listed"),
        (Fault::FailsTheWholeBatch, "outcomes_are_per_message"),
        (Fault::TellsTheNeighbour, "outcomes_are_per_message"),
        (Fault::TellsTheNeighbour, "outcomes_are_per_message_in_a_large_batch"),
        (Fault::ForgetsTheLastOutcome, "outcomes_are_per_message"),
        (Fault::ForgetsTheLastOutcome, "broker_gone_before_the_batch"),
        (Fault::SharesConfirms, "publishes_side_by_side_keep_their_outcomes"),
        (Fault::SharesConfirms, "cancel_at_every_await_then_reuse"),
        (Fault::SaysUnavailableForUnroutable, "unroutable_is_unroutable"),
        (Fault::SaysOkForUnroutable, "unroutable_is_unroutable"),
        (Fault::SaysUnavailableForOversize, "oversize_is_rejected"),
        (Fault::GoesOnBehindAFailure, "prefix_per_key"),
        (Fault::ProbePublishes, "dropped_probe_has_no_effect"),
        (Fault::ProbeAlwaysSucceeds, "probe_tells_whether_it_is_there"),
        (Fault::NeverConnectsAgain, "broker_gone_after_the_batch"),
        (Fault::NeverConnectsAgain, "broker_gone_before_the_batch"),
        (Fault::SaysMisconfiguredInOutages, "broker_gone_before_the_batch"),
        (Fault::SaysOkInOutages, "broker_gone_during_the_batch"),
        (Fault::PublishesTheEmptyBatch, "empty_batch"),
    ];
    let missed: Vec<_> = expected.iter().filter(|(fault, case)| failing(*fault, case).is_empty()).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn every_case_catches_a_mutant() {
    let mut catching: Vec<_> = Fault::BROKEN.into_iter().flat_map(|fault| failing(fault, "")).collect();
    catching.sort_unstable();
    catching.dedup();
    let mut all: Vec<_> = pillarbox_testkit::transport::CASES.iter().map(|case| case.name).collect();
    all.sort_unstable();
    assert_eq!(catching, all);
}
