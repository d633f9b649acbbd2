use super::claiming::{Plan, plan};
use super::{Change, Loaded, RecordStorage, StoredRecord};
use crate::{
    Admin, Claim, Claimed, Command, Entry, Error, ErrorKind, Outcome, Renewed, Run, Settled, Settlement,
    Settlements, Storage, StorageGuarantees, Text, Timestamp, Token, Transition, Verdict, Wakeup,
    check_verdicts, step,
};
use std::time::Duration;

/// Makes a [`Storage`] of a [`RecordStorage`]. A claim is one run, or several where strikes have shortened them.
#[derive(Clone, Copy, Debug)]
pub struct Records<R>(pub R);

/// How often a swap is tried again when others were faster. Each failure is another's success, so few are enough.
const TRIES: u32 = 32;

/// How many records a solo claim looks at first.
const SOLO_LOOKS_AT: u32 = 64;

impl<R: RecordStorage> Storage for Records<R> {
    fn guarantees(&self) -> StorageGuarantees {
        self.0.guarantees()
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        if claim.limit == 0 {
            return Ok(Claimed { now: self.0.load_due(0).await?.now, ..Claimed::default() });
        }
        for _ in 0..TRIES {
            let repeated = repeat(&self.0.load_claimed(claim.nonce).await?);
            if !repeated.runs.is_empty() {
                return Ok(repeated);
            }
            let plan = self.plan(&claim).await?;
            if plan.changes.is_empty() || self.0.compare_and_swap(&plan.changes).await? {
                return Ok(plan.claimed);
            }
        }
        Err(contended("claim"))
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        let mut answers = Vec::with_capacity(tokens.len());
        for token in tokens {
            let command = |_: usize| Command::Renew { token: *token, lease };
            let (outcome, at, until) = self.change_run(*token, "renew", command).await?;
            answers.push(Renewed { outcome, at, lease_until: until });
        }
        Ok(answers)
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        for (token, settlement) in settlements.iter() {
            self.check(token, settlement).await?;
        }
        let mut answers = Vec::with_capacity(settlements.len());
        for (token, settlement) in settlements.iter() {
            let command = |index: usize| match settlement {
                // `check` has compared the lengths, and a run never changes its length.
                Settlement::Verdicts(verdicts) => Command::Settle { token, verdict: &verdicts[index] },
                Settlement::HandBack { after } => Command::HandBack { token, after },
            };
            let (outcome, at, _) = self.change_run(token, "settle", command).await?;
            answers.push(Settled { outcome, at });
        }
        Ok(answers)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        self.0.wakeup()
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.0.admin()
    }
}

impl<R: RecordStorage> Records<R> {
    /// A suspect may stand behind any number of others that have been due for longer, so a solo claim looks further until it
    /// has found one, or everything was loaded.
    async fn plan(&self, claim: &Claim) -> Result<Plan, Error> {
        let mut limit = if claim.solo { claim.limit.max(SOLO_LOOKS_AT) } else { claim.limit };
        loop {
            let due = self.0.load_due(limit).await?;
            let plan = plan(&due, claim, &self.0.guarantees());
            let was_all = (due.records.len() as u64) < u64::from(limit);
            if !claim.solo || !plan.claimed.runs.is_empty() || was_all || limit == u32::MAX {
                return Ok(plan);
            }
            limit = limit.saturating_mul(8);
        }
    }

    async fn check(&self, token: Token, settlement: Settlement<'_>) -> Result<(), Error> {
        let Settlement::Verdicts(verdicts) = settlement else { return Ok(()) };
        let loaded = self.0.load_claimed(token.nonce).await?;
        let Ok(members) = members(&loaded, token) else { return Ok(()) };
        if members.len() != verdicts.len() {
            let (given, asked) = (verdicts.len(), members.len());
            return Err(Error::new(ErrorKind::Rejected, "settle")
                .describe(format!("{given} verdicts were given for the {asked} messages of run {token:?}"))
                .not_applied());
        }
        check_verdicts(
            members.iter().map(|stored| stored.key()).zip(verdicts),
            self.0.guarantees().head_policy,
        )
    }

    /// Steps every record of a run, in one swap.
    async fn change_run<'a>(
        &self,
        token: Token,
        operation: &'static str,
        command: impl Fn(usize) -> Command<'a>,
    ) -> Result<(Outcome, Timestamp, Option<Timestamp>), Error> {
        let max_strikes = self.0.guarantees().max_strikes;
        for _ in 0..TRIES {
            let loaded = self.0.load_claimed(token.nonce).await?;
            let members = match members(&loaded, token) {
                Ok(members) => members,
                Err(outcome) => return Ok((outcome, loaded.now, None)),
            };
            let mut until = None;
            let mut changes = Vec::with_capacity(members.len());
            for (index, stored) in members.iter().enumerate() {
                let command = command(index);
                // The token is current for every member.
                let Ok(transition) = step(&stored.record, &command, loaded.now, max_strikes) else {
                    continue;
                };
                let Some(record) = transition.record() else { continue };
                if let Transition::Renewed(record) = transition {
                    until = record.lease().map(|lease| lease.until);
                }
                changes.push(Change {
                    position: stored.position,
                    expected: stored.record,
                    record: *record,
                    reason: reason(&command),
                });
            }
            if self.0.compare_and_swap(&changes).await? {
                return Ok((Outcome::Applied, loaded.now, until));
            }
        }
        Err(contended(operation))
    }
}

/// The records of a run, if the token holds all of them still.
fn members(loaded: &Loaded, token: Token) -> Result<Vec<&StoredRecord>, Outcome> {
    let held = |stored: &&StoredRecord| stored.record.lease().is_some_and(|lease| lease.token == token);
    let members: Vec<_> = loaded.records.iter().filter(held).collect();
    let run = members.first().and_then(|stored| stored.record.lease()).map_or(0, |lease| lease.run);
    if run > 0 && members.len() == run as usize {
        return Ok(members);
    }
    let settled = loaded.records.iter().any(|stored| stored.record.settled == Some(token));
    Err(if settled { Outcome::AlreadyApplied } else { Outcome::Fenced })
}

/// The runs of an earlier claim with the same nonce that are whole and live.
fn repeat(loaded: &Loaded) -> Claimed {
    let mut claimed = Claimed { now: loaded.now, ..Claimed::default() };
    let mut tokens = Vec::new();
    for lease in loaded.records.iter().filter_map(|stored| stored.record.lease()) {
        if lease.until > loaded.now && !tokens.contains(&lease.token) {
            tokens.push(lease.token);
        }
    }
    for token in tokens {
        let Ok(members) = members(loaded, token) else { continue };
        let Some(lease) = members.first().and_then(|stored| stored.record.lease()) else { continue };
        let start = u32::try_from(claimed.entries.len()).unwrap_or(u32::MAX);
        claimed.runs.push(Run {
            token,
            claimed_at: lease.claimed_at,
            lease_until: lease.until,
            start,
            len: lease.run,
        });
        claimed.entries.extend(members.iter().map(|stored| Entry {
            content: stored.content.clone(),
            attempts: stored.record.attempts,
            strikes: stored.record.strikes,
        }));
    }
    claimed
}

fn reason(command: &Command<'_>) -> Option<Text> {
    match command {
        Command::Settle { verdict: Verdict::Retry { error, .. }, .. } => Some(error.clone()),
        Command::Settle { verdict: Verdict::Bury { reason }, .. } => Some(reason.clone()),
        _ => None,
    }
}

fn contended(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation)
        .describe(format!("other relays were faster {TRIES} times in a row; run fewer relays on this store"))
        .not_applied()
}
