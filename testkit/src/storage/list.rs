/// Makes one test of every case of the storage suite, in the module where it stands.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/memory_harness.rs"));
/// # fn main() {}
/// mod conformance {
///     use super::*;
///     pillarbox_testkit::storage_suite!(#[tokio::test] async harness = MyHarness);
/// }
/// mod without_a_runtime {
///     use super::*;
///     pillarbox_testkit::storage_suite!(#[test] block_on = futures_executor::block_on, harness = MyHarness);
/// }
/// ```
///
/// The harness's expression is evaluated once per case; in the `async` form it may await.
///
/// A case that is known to fail is named before the harness, with the reason: `allow_failing = { case => "why, and where it is
/// followed up" }, harness = …`. Its test passes while the case fails, and fails as soon as the case holds, so that the line
/// does not outlive its reason.
#[allow(clippy::test_attr_in_doctest, reason = "what the macro makes are tests")]
#[macro_export]
macro_rules! storage_suite {
    ($(#$attribute:tt)+ async $(allow_failing = { $($case:ident => $why:literal),* $(,)? },)? harness = $($harness:tt)+) => {
        $crate::__each_storage_case!(__storage_tests {
            async [$(#$attribute)+] [$($harness)+] [&[$($((stringify!($case), $why)),*)?]]
        });
    };
    ($(#$attribute:tt)+ block_on = $block_on:path, $(allow_failing = { $($case:ident => $why:literal),* $(,)? },)? harness = $($harness:tt)+) => {
        $crate::__each_storage_case!(__storage_tests {
            $block_on, [$(#$attribute)+] [$($harness)+] [&[$($((stringify!($case), $why)),*)?]]
        });
    };
}

/// Makes a test of each case. The caller's tokens pass through as one tree, since they repeat differently from the cases.
#[doc(hidden)]
#[macro_export]
macro_rules! __storage_tests {
    ($arguments:tt $($group:ident { $($name:ident $needs:tt)+ })+) => {
        $($($crate::__storage_test! { $arguments $group $name $needs })+)+
        $crate::__storage_declarations! { $arguments }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __storage_test {
    ({ async [$($attribute:tt)+] [$($harness:tt)+] [$allowed:expr] } $group:ident $name:ident [$($need:ident)*]) => {
        $($attribute)+
        async fn $name() {
            let needs = &[$($crate::storage::Ability::$need),*];
            let trial = $crate::storage::Trial::new(stringify!($name), needs, $($harness)+).allow_failing($allowed);
            if trial.applies() {
                trial.report($crate::storage::cases::$group::$name(&trial).await);
            }
        }
    };
    ({ $block_on:path, [$($attribute:tt)+] [$($harness:tt)+] [$allowed:expr] } $group:ident $name:ident [$($need:ident)*]) => {
        $($attribute)+
        fn $name() {
            let needs = &[$($crate::storage::Ability::$need),*];
            let trial = $crate::storage::Trial::new(stringify!($name), needs, $($harness)+).allow_failing($allowed);
            if trial.applies() {
                trial.report($block_on($crate::storage::cases::$group::$name(&trial)));
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __storage_declarations {
    ({ async [$($attribute:tt)+] [$($harness:tt)+] [$allowed:expr] }) => {
        $($attribute)+
        async fn declares_what_it_can() {
            let trial = $crate::storage::Trial::new("declares_what_it_can", &[], $($harness)+).allow_failing($allowed);
            trial.report(trial.declarations().await);
        }
    };
    ({ $block_on:path, [$($attribute:tt)+] [$($harness:tt)+] [$allowed:expr] }) => {
        $($attribute)+
        fn declares_what_it_can() {
            let trial = $crate::storage::Trial::new("declares_what_it_can", &[], $($harness)+).allow_failing($allowed);
            trial.report($block_on(trial.declarations()));
        }
    };
}

macro_rules! table_of_cases {
    ({} $($group:ident { $($name:ident [$($need:ident)*])+ })+) => {
        /// Every case, with what it needs.
        pub const CASES: &[Case] =
            &[$($(Case { name: stringify!($name), needs: &[$(Ability::$need),*] }),+),+];
    };
}
pub(super) use table_of_cases;

/// The only list of the cases: the file that each stands in, its name, and what it needs.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_storage_case {
    ($callback:ident $arguments:tt) => {
        $crate::__each_storage_case! { @list [$crate::$callback] $arguments }
    };
    (@list [$($callback:tt)+] $arguments:tt) => {
        $($callback)+! { $arguments
            enqueueing {
                commit_is_visible []
                rollback_is_invisible []
                uncommitted_is_invisible []
                late_commit_is_not_skipped [ConcurrentTransactions]
                transaction_keeps_its_order []
                large_transaction_arrives_whole []
                nothing_is_enqueued_by_an_empty_list []
                refused_message_refuses_its_list []
                enqueued_twice_never_fails []
                payload_roundtrip []
                new_message_has_no_charges []
            }
            claims {
                claims_are_exclusive []
                many_claimants_at_once []
                limit_is_respected []
                zero_limit []
                empty_outbox_answers_nothing []
                lease_is_counted_by_the_store []
                live_lease_is_not_taken []
                abandoned_claim_is_taken_after_its_lease []
                fence_rises_at_every_claim []
                healthy_messages_are_not_starved []
                age_does_not_end_a_lease []
                short_leases_end_in_time []
            }
            fencing {
                stale_settle_is_fenced []
                zombie_resurrects_nothing []
                stale_renew_is_fenced []
                expired_but_untaken_claim_still_settles []
                expired_but_untaken_claim_still_renews []
                renew_prolongs []
                renew_never_shortens []
                nonce_is_compared_beside_the_fence []
                unknown_token_is_fenced []
                one_stale_token_fails_no_batch []
                repeated_settle_is_already_applied_or_fenced []
                claim_repeated_with_its_nonce_answers_the_same_runs []
                repeated_claim_does_not_answer_settled_runs []
                claim_repeated_after_its_lease_is_a_new_claim []
            }
            strikes {
                a_deadly_message_is_found_by_halving []
                nobody_is_buried_for_a_neighbour []
                suspects_go_only_to_solo_claims []
                solo_claim_gets_suspects_only []
                solo_claim_gets_one_suspect []
                solo_claim_finds_the_suspect_among_others []
                strike_counts_only_on_a_renewed_solo_claim []
                max_strikes_is_the_outbox_s_setting []
                an_outcome_clears_the_suspicion []
                a_released_suspect_stays_one []
                released_is_not_charged []
                hand_back_is_not_charged []
                every_retry_is_counted []
                attempts_survive_a_crash []
            }
            order {
                keys_are_delivered_in_order []
                one_holder_of_a_key_at_a_time []
                other_keys_of_a_run_go_on []
                retry_parks_its_key []
                release_with_delay_parks_its_key []
                released_rest_comes_back_in_order []
                expired_key_stays_in_order []
                expired_parked_key_stays_in_order []
                scheduled_keyed_message_blocks_nobody []
                scheduled_keyed_message_joins_its_key []
                takeover_goes_on_where_the_key_was []
                unkeyed_messages_wait_for_nobody []
            }
            due {
                scheduled_is_not_claimable_before []
                scheduled_for_the_past_is_due_now []
                retry_waits_exactly_its_delay []
                release_waits_exactly_its_delay []
                hand_back_waits_exactly_its_delay []
                next_due_tells_the_end_of_a_lease []
                retry_without_delay_is_due_at_once []
                scheduled_messages_come_when_each_is_due []
                thousands_that_fall_due_at_once_arrive []
            }
            heads {
                head_policy_is_the_outbox_s_setting []
                dead_head_continue []
                dead_head_block []
                deadly_head_blocks []
                redrive_under_continue_counts_as_new [Admin]
                redrive_under_block_returns_to_the_head [Admin]
                discard_frees_a_blocked_key [Admin]
                unkeyed_dead_letter_blocks_nobody []
                redrive_resets_both_counters [Admin]
            }
            answers {
                answers_match_questions []
                settle_touches_exactly_the_given_tokens []
                wrong_number_of_verdicts_is_rejected_and_changes_nothing []
                verdicts_that_reorder_a_key_are_rejected []
                published_is_never_claimed_again []
                dead_is_never_claimed_again []
                nothing_expires []
                undecodable_record_does_not_stop_the_batch [Corrupt]
                verdicts_meet_their_messages []
            }
            cancel {
                dropped_claim_strands_nothing []
                dropped_settle_is_repeated []
                dropped_renew_does_no_harm []
                dropped_commit_is_all_or_nothing []
            }
            admin {
                stats_count_by_state [Admin]
                dead_letter_keeps_its_message_and_reason [Admin]
                get_finds_what_waits [Admin]
                listings_are_paged [Admin]
                filters_choose_what_they_say [Admin]
                redrive_touches_dead_only [Admin]
                discard_touches_dead_only [Admin]
                purge_removes_published_only [Admin Retention]
                purge_without_retention_finds_nothing [Admin]
            }
            waking {
                hint_arrives_after_a_commit [Wakeup]
                every_subscriber_is_hinted [Wakeup]
                many_hints_are_few [Wakeup]
            }
            walks {
                random_walks_keep_every_rule []
                random_walks_keep_every_rule_under_block []
            }
            concurrent {
                concurrent_relays_keep_every_rule []
                concurrent_relays_keep_every_rule_under_block []
            }
        }
    };
}
