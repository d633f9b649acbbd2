//! The proof of the storage suite: it bites. Each mutant breaks one promise of a storage that keeps them all, and a case
//! must tell.

mod allowed;
mod broken;
mod concurrent;
mod harness;

pub(crate) use broken::Fault;
pub(crate) use harness::Mutant;
use pillarbox_testkit::storage::{Trial, cases};
use std::panic::{AssertUnwindSafe, catch_unwind};

macro_rules! every_case {
    ({} $($group:ident { $($name:ident $needs:tt)+ })+) => {
        /// The cases that fail, in the order of the list. Together with those after the first it would take minutes: so
        /// only until `wanted` was run.
        fn failing(fault: Fault, wanted: &str) -> Vec<&'static str> {
            let mut failing = Vec::new();
            $($(
                if wanted.is_empty() || stringify!($name) == wanted {
                    let trial = Trial::new(stringify!($name), &[], Mutant(fault));
                    let outcome = catch_unwind(AssertUnwindSafe(|| {
                        futures_executor::block_on(cases::$group::$name(&trial))
                    }));
                    if !matches!(outcome, Ok(Ok(()))) {
                        failing.push(stringify!($name));
                    }
                }
            )+)+
            failing
        }
    };
}
pillarbox_testkit::__each_storage_case! { @list [every_case] {} }

#[test]
fn the_storage_that_is_mutated_keeps_every_promise() {
    assert_eq!(failing(Fault::None, ""), [""; 0]);
}

#[test]
fn every_mutant_is_caught_by_the_case_of_the_promise_that_it_breaks() {
    let expected = [
        (Fault::HandsOutTwice, "claims_are_exclusive"),
        (Fault::HandsOutTwice, "many_claimants_at_once"),
        (Fault::ChoosesThenTakes, "many_claimants_at_once"),
        (Fault::ClaimsNothing, "commit_is_visible"),
        (Fault::TakesOutThenPutsBack, "dropped_claim_strands_nothing"),
        (Fault::NeverCountsCrashes, "a_deadly_message_is_found_by_halving"),
        (Fault::NeverCountsCrashes, "max_strikes_is_the_outbox_s_setting"),
        (Fault::StopsAtTheUndecodable, "undecodable_record_does_not_stop_the_batch"),
        (Fault::ReadsTheUndecodableAsNothing, "undecodable_record_does_not_stop_the_batch"),
        (Fault::FailsAt8000Due, "thousands_that_fall_due_at_once_arrive"),
        (Fault::VanishesTheDead, "dead_letter_keeps_its_message_and_reason"),
        (Fault::PurgesTheLiving, "purge_removes_published_only"),
        (Fault::DiscardsTheLiving, "discard_touches_dead_only"),
        (Fault::RedrivesNothing, "redrive_under_continue_counts_as_new"),
        (Fault::ListsOnePage, "listings_are_paged"),
        (Fault::NeverHints, "hint_arrives_after_a_commit"),
        (Fault::OverfillsTheLimit, "limit_is_respected"),
        (Fault::RepeatsNothing, "claim_repeated_with_its_nonce_answers_the_same_runs"),
        (Fault::TellsNoNextDue, "scheduled_is_not_claimable_before"),
        (Fault::TellsNoNextDue, "next_due_tells_the_end_of_a_lease"),
        (Fault::HandsOutSuspects, "suspects_go_only_to_solo_claims"),
        (Fault::HidesSuspects, "suspects_go_only_to_solo_claims"),
        (Fault::HandsOutHealthyOnesToSolo, "solo_claim_gets_suspects_only"),
        (Fault::HandsOutHealthyOnesToSolo, "a_deadly_message_is_found_by_halving"),
        (Fault::ForgetsAttempts, "every_retry_is_counted"),
        (Fault::ForgetsAttempts, "attempts_survive_a_crash"),
        (Fault::ChargesReleases, "released_is_not_charged"),
        (Fault::ChargesHandBacks, "hand_back_is_not_charged"),
        (Fault::LosesReleased, "released_is_not_charged"),
        (Fault::LosesReleased, "released_rest_comes_back_in_order"),
        (Fault::IgnoresDelays, "retry_waits_exactly_its_delay"),
        (Fault::IgnoresDelays, "retry_parks_its_key"),
        (Fault::IgnoresDelays, "release_with_delay_parks_its_key"),
        (Fault::DoublesDelays, "retry_waits_exactly_its_delay"),
        (Fault::AppliesNothing, "published_is_never_claimed_again"),
        (Fault::AppliesNothing, "stale_settle_is_fenced"),
        (Fault::SaysApplied, "stale_settle_is_fenced"),
        (Fault::SaysApplied, "zombie_resurrects_nothing"),
        (Fault::SaysApplied, "nonce_is_compared_beside_the_fence"),
        (Fault::SaysApplied, "unknown_token_is_fenced"),
        (Fault::ComparesNoNonce, "nonce_is_compared_beside_the_fence"),
        (Fault::FailsOnStale, "one_stale_token_fails_no_batch"),
        (Fault::FencesExpired, "expired_but_untaken_claim_still_settles"),
        (Fault::FencesExpired, "expired_but_untaken_claim_still_renews"),
        (Fault::RenewsNothing, "renew_prolongs"),
        (Fault::RenewsNothing, "strike_counts_only_on_a_renewed_solo_claim"),
        (Fault::ShortensRenewals, "renew_never_shortens"),
        (Fault::SwapsAnswers, "one_stale_token_fails_no_batch"),
        (Fault::DropsAnAnswer, "answers_match_questions"),
        (Fault::TurnsRunsAround, "keys_are_delivered_in_order"),
        (Fault::TurnsRunsAround, "transaction_keeps_its_order"),
        (Fault::SettlesEverything, "settle_touches_exactly_the_given_tokens"),
        (Fault::CommitsRollbacks, "rollback_is_invisible"),
        (Fault::CommitsEarly, "uncommitted_is_invisible"),
        (Fault::LosesTheLast, "commit_is_visible"),
        (Fault::LosesTheLast, "large_transaction_arrives_whole"),
        (Fault::DropsHeaders, "payload_roundtrip"),
        (Fault::IgnoresSchedules, "scheduled_is_not_claimable_before"),
        (Fault::RefusesRepeatedIds, "enqueued_twice_never_fails"),
    ];
    let missed: Vec<_> = expected.iter().filter(|(fault, case)| failing(*fault, case).is_empty()).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn the_walks_catch_what_they_should() {
    let walk = "random_walks_keep_every_rule";
    for fault in [
        Fault::HandsOutTwice,
        Fault::HandsOutSuspects,
        Fault::ForgetsAttempts,
        Fault::ChargesReleases,
        Fault::ChargesHandBacks,
        Fault::LosesReleased,
        Fault::IgnoresDelays,
        Fault::AppliesNothing,
        Fault::SaysApplied,
        Fault::RenewsNothing,
        Fault::TurnsRunsAround,
        Fault::SettlesEverything,
        Fault::LosesTheLast,
        Fault::IgnoresSchedules,
    ] {
        assert_eq!(failing(fault, walk), [walk], "{fault:?}");
    }
}
