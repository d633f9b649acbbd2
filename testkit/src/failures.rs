//! The failures that outboxes are known for, each found in some system in production, and where it is shown that this one does
//! not have it. A case that fails names those that it stands for.

use std::fmt;

/// A failure that outboxes are known for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct KnownFailure {
    /// Its number: `F3`.
    pub number: u8,
    /// What goes wrong.
    pub words: &'static str,
    /// The cases of the storage suite and of the transport suite that show it.
    pub cases: &'static [&'static str],
    /// What shows it where no store and no transport alone can.
    pub elsewhere: &'static str,
}

impl KnownFailure {
    /// Those that a case of either suite stands for.
    pub fn of_case(case: &str) -> impl Iterator<Item = &'static Self> {
        KNOWN_FAILURES.iter().filter(move |failure| failure.cases.contains(&case))
    }
}

impl fmt::Display for KnownFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "F{}: {}", self.number, self.words)
    }
}

const fn failure(
    number: u8,
    words: &'static str,
    cases: &'static [&'static str],
    elsewhere: &'static str,
) -> KnownFailure {
    KnownFailure { number, words, cases, elsewhere }
}

/// All of them, by number.
#[rustfmt::skip]
pub const KNOWN_FAILURES: &[KnownFailure] = &[
    failure(1, "a hot loop on a message that cannot be sent",
        &["retry_waits_exactly_its_delay", "other_keys_of_a_run_go_on", "unkeyed_messages_wait_for_nobody"], ""),
    failure(2, "a hot loop while the store is down", &[],
        "the relay machine: `a_store_that_is_down_for_an_hour_is_asked_a_bounded_number_of_times`"),
    failure(3, "a zombie completes or reschedules another's claim",
        &["stale_settle_is_fenced", "stale_renew_is_fenced", "one_stale_token_fails_no_batch"], ""),
    failure(4, "a zombie resurrects a deleted record", &["zombie_resurrects_nothing"], ""),
    failure(5, "a finished or exhausted record is claimed again",
        &["published_is_never_claimed_again", "dead_is_never_claimed_again"], ""),
    failure(6, "stuck in flight for ever",
        &["abandoned_claim_is_taken_after_its_lease", "dropped_claim_strands_nothing"], ""),
    failure(7, "a message that kills its relay is never counted",
        &["a_deadly_message_is_found_by_halving", "nobody_is_buried_for_a_neighbour"],
        "the facade's proof `deadly`"),
    failure(8, "an undecodable record stops the batch", &["undecodable_record_does_not_stop_the_batch"], ""),
    failure(9, "failing records fill the batch, and healthy ones starve behind them",
        &["healthy_messages_are_not_starved"], ""),
    failure(10, "a key is frozen after its head died",
        &["dead_head_continue", "dead_head_block", "redrive_under_continue_counts_as_new",
          "redrive_under_block_returns_to_the_head"], ""),
    failure(11, "the order of commits is not the order of ids, and a late commit is skipped",
        &["late_commit_is_not_skipped"], ""),
    failure(12, "the partial success of a batch reorders its retry",
        &["released_rest_comes_back_in_order", "prefix_per_key"], ""),
    failure(13, "skewed clocks steal or extend leases",
        &["lease_is_counted_by_the_store", "live_lease_is_not_taken"], ""),
    failure(14, "two relays publish one message while both are healthy",
        &["claims_are_exclusive", "many_claimants_at_once", "concurrent_relays_keep_every_rule",
          "concurrent_relays_keep_every_rule_under_block"], ""),
    failure(15, "cleanup never ends, or deletes what is alive", &["purge_removes_published_only"], ""),
    failure(16, "what was published slows every claim", &[],
        "measured by the benches; a suite that runs on any machine asserts no times"),
    failure(17, "a wake-up is lost, or a thousand stampede",
        &["hint_arrives_after_a_commit", "every_subscriber_is_hinted", "many_hints_are_few"],
        "the facade's proof `hints`"),
    failure(18, "a connection is held while publishing, and the pool starves", &[],
        "the SQL store: its tests `open_transactions`"),
    failure(19, "dead letters are deleted automatically", &["dead_is_never_claimed_again"], ""),
    failure(20, "a shutdown counts as a failure, or strands claims",
        &["released_is_not_charged", "hand_back_is_not_charged"],
        "the relay machine: its tests `stopping`"),
    failure(21, "delayed messages live in memory, or too many fall due at once",
        &["scheduled_is_not_claimable_before", "thousands_that_fall_due_at_once_arrive"],
        "measured by the benches with a million"),
    failure(22, "a message without a route is dropped silently",
        &["unroutable_is_unroutable", "outcomes_are_per_message_in_a_large_batch"], ""),
    failure(23, "completing one marks others", &["settle_touches_exactly_the_given_tokens"], ""),
    failure(24, "staleness is measured from creation", &["age_does_not_end_a_lease"], ""),
    failure(25, "retries come oftener with every relay", &["retry_waits_exactly_its_delay"], ""),
    failure(26, "an outage of the broker spends all retries", &["hand_back_is_not_charged"],
        "the relay machine: `an_outage_charges_nothing_and_pauses_its_destination_only`"),
    failure(27, "a failed settlement counts as a failed send", &[],
        "the relay machine: `a_settle_is_repeated_with_identical_verdicts_and_nothing_is_sent_again`"),
    failure(28, "a publisher without confirms loses messages",
        &["ok_means_received", "broker_gone_during_the_batch"], ""),
    failure(29, "a failed message waits for a whole claim timeout",
        &["retry_waits_exactly_its_delay", "retry_without_delay_is_due_at_once"], ""),
    failure(30, "one error of the store ends the relay for good", &[],
        "the simulator: every call fails before and after its effect, and the relays that ended are judged"),
    failure(31, "an acknowledged enqueue is lost in a failover", &[],
        "each store's own tests of its durability"),
    failure(32, "a failover repeats a fence", &["nonce_is_compared_beside_the_fence"], ""),
    failure(33, "a lost connection burns the attempts of what was in flight",
        &["broker_gone_during_the_batch"],
        "the relay machine: `after_a_lost_connection_messages_are_sent_one_at_a_time_and_the_one_that_kills_it_is_charged`"),
    failure(34, "a queue that is away for a moment buries what was sent to it", &[],
        "the RabbitMQ transport: its tests `routing`"),
    failure(35, "the answer of a claim is lost, and its messages wait for the whole lease",
        &["claim_repeated_with_its_nonce_answers_the_same_runs", "repeated_claim_does_not_answer_settled_runs",
          "dropped_claim_strands_nothing"], ""),
    failure(36, "a producer that repeats an enqueue fails its transaction", &["enqueued_twice_never_fails"], ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The sources of the cases.
    const SOURCES: &[&str] = &[
        include_str!("storage/cases/admin.rs"),
        include_str!("storage/cases/answers.rs"),
        include_str!("storage/cases/cancel.rs"),
        include_str!("storage/cases/claims.rs"),
        include_str!("storage/cases/due.rs"),
        include_str!("storage/cases/enqueueing.rs"),
        include_str!("storage/cases/fencing.rs"),
        include_str!("storage/cases/heads.rs"),
        include_str!("storage/cases/order.rs"),
        include_str!("storage/cases/strikes.rs"),
        include_str!("storage/cases/waking.rs"),
        include_str!("transport/cases/delivering.rs"),
        include_str!("transport/cases/order.rs"),
        include_str!("transport/cases/outages.rs"),
        include_str!("transport/cases/outcomes.rs"),
    ];

    #[test]
    fn every_number_is_there_and_names_what_exists() {
        assert!(KNOWN_FAILURES.iter().map(|failure| failure.number).eq(1..=36));
        let storage = crate::storage::CASES.iter().map(|case| case.name);
        let all: Vec<_> = storage.chain(crate::transport::CASES.iter().map(|case| case.name)).collect();
        for failure in KNOWN_FAILURES {
            assert!(!failure.cases.is_empty() || !failure.elsewhere.is_empty(), "{failure}");
            for case in failure.cases {
                assert!(all.contains(case), "{failure} names `{case}`");
            }
        }
    }

    /// The documentation of a case and this list say the same.
    #[test]
    fn what_a_case_says_of_itself_is_listed() {
        let mut seen = 0;
        for source in SOURCES {
            let mut said = String::new();
            for line in source.lines() {
                if let Some(text) = line.strip_prefix("///") {
                    said.push_str(text);
                } else if let Some(rest) = line.strip_prefix("pub async fn ") {
                    let case = rest.split(['<', '(']).next().unwrap_or_default();
                    for number in numbers(&said) {
                        seen += 1;
                        let known = KnownFailure::of_case(case).any(|failure| failure.number == number);
                        assert!(known, "`{case}` says that it shows F{number}");
                    }
                    said.clear();
                } else if line.is_empty() {
                    said.clear();
                }
            }
        }
        assert!(seen > 40, "{seen}");
    }

    /// The numbers that a text names as `F3`.
    fn numbers(text: &str) -> impl Iterator<Item = u8> + '_ {
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        words.filter_map(|word| word.strip_prefix('F')?.parse().ok())
    }
}
