//! What was seen of some messages, in words: what a violation is shown with.

use super::{Observed, Report};
use crate::storage::world::{list, name};
use pillarbox_core::{MessageId, Token};
use std::fmt::Write as _;

impl Observed {
    /// Everything that concerns these messages, in the order in which the calls began.
    pub(super) fn story(&self, messages: &[MessageId]) -> String {
        let concerns = |id: &MessageId| messages.contains(id);
        let mut lines: Vec<(u64, String)> = Vec::new();
        for commit in &self.commits {
            let of_it: Vec<_> = commit.messages.iter().filter(|message| concerns(&message.id())).collect();
            if let Some(first) = of_it.first() {
                let names = list(of_it.iter().map(|message| name(message.id())));
                let key = first.key().map(|key| format!(", the first with key {key}")).unwrap_or_default();
                let end = match commit.acknowledged {
                    true => format!("acknowledged at {}", commit.span.ended),
                    false => "never acknowledged".to_owned(),
                };
                let line = format!("enqueue {names}{key}; commit asked for at {}, {end}", commit.asked);
                lines.push((commit.span.began, line));
            }
        }
        for hold in self.holds.iter().filter(|hold| hold.entries.iter().any(|(id, _)| concerns(id))) {
            let entries = list(hold.entries.iter().map(|(id, attempts)| format!("{}/{attempts}", name(*id))));
            let (at, until) = (hold.claimed_at, hold.until);
            let line = format!(
                "claim, by {}: {:?} at {at:?} until {until:?}: {entries}",
                hold.span.ended, hold.token
            );
            lines.push((hold.span.began, line));
        }
        let concerned = |token: Token| {
            let hold = self.by_token.get(&token).map(|hold| &self.holds[*hold]);
            hold.is_some_and(|hold| hold.entries.iter().any(|(id, _)| concerns(id)))
        };
        for renewal in self.renewals.iter().filter(|renewal| concerned(renewal.token)) {
            let line = format!("renew, by {}: {:?}: {:?}", renewal.span.ended, renewal.token, renewal.answer);
            lines.push((renewal.span.began, line));
        }
        for settling in self.settlings.iter().filter(|settling| concerned(settling.token)) {
            let answer = match settling.answer {
                Some(answer) => format!("{:?} at {:?}", answer.outcome, answer.at),
                None => "no answer".to_owned(),
            };
            let report = match &settling.report {
                Report::Verdicts(verdicts) => format!("{verdicts:?}"),
                Report::HandBack(after) => format!("hand back after {after:?}"),
            };
            let line =
                format!("settle, by {}: {:?} as {report}: {answer}", settling.span.ended, settling.token);
            lines.push((settling.span.began, line));
        }
        lines.sort_by_key(|(began, _)| *began);
        let mut story =
            String::from("\n  what was seen of it, by the moments at which calls began and ended:");
        for (began, line) in lines {
            // Writing to a `String` cannot fail.
            let _ = write!(story, "\n    {began:>4}  {line}");
        }
        story
    }

    /// The story of a run's messages.
    pub(super) fn story_of(&self, token: Token) -> String {
        let hold = self.by_token.get(&token).map(|hold| &self.holds[*hold]);
        let messages: Vec<_> =
            hold.into_iter().flat_map(|hold| hold.entries.iter().map(|(id, _)| *id)).collect();
        self.story(&messages)
    }
}
