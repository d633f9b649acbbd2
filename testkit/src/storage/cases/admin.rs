//! Looking and mending.

use crate::storage::rule::{ADMIN, NO_LOSS, ensure};
use crate::storage::world::{World, bury, claimed_ids, ids, list, name, retry};
use crate::storage::{OutboxSettings, StorageHarness, TestStore, Trial, Violation};
use pillarbox_core::{
    Admin, ErrorKind, Filter, ListState, Listing, Message, MessageId, Stats, Storage as _, Stored, Text,
    Verdict,
};
use std::time::Duration;

const DELAY: Duration = Duration::from_secs(300);

/// `stats` counts what is stored by its state, and tells how long the oldest due message has waited.
///
/// # Errors
/// The violation.
pub async fn stats_count_by_state<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let admin = admin(&world)?;
    let empty = admin.stats().await?;
    ensure!(empty == Stats::default(), ADMIN, "nothing in an empty outbox", "{empty:?}");
    // Dead, retried and claimed ones have keys of their own, so that they share no lane with each other for ever.
    dead(&world, 2).await?;
    world.enqueue(&world.messages(1, Some("retried"))).await?;
    let claimed = world.claim(1).await?;
    world.settle_all(&claimed, &retry(DELAY)).await?;
    let later = world.now().await?.after(DELAY);
    world.enqueue(&[world.message_due(None, Some(later)), world.message_due(Some("s"), Some(later))]).await?;
    world.enqueue(&world.messages(1, Some("claimed"))).await?;
    let held = world.claim(1).await?;
    world.enqueue(&world.messages(4, Some("pending"))).await?;
    world.advance(DELAY / 10).await?;
    let stats = admin.stats().await?;
    let wanted = Stats {
        pending: 4,
        scheduled: 3,
        claimed: held.entries.len() as u64,
        dead: 2,
        published: 0,
        oldest_due_age: stats.oldest_due_age,
    };
    ensure!(stats == wanted, ADMIN, format!("{wanted:?}"), "{stats:?}");
    if let Some(age) = stats.oldest_due_age {
        ensure!(
            age >= DELAY / 10,
            ADMIN,
            format!("the oldest due message waits {:?}", DELAY / 10),
            "{age:?}"
        );
    }
    Ok(())
}

/// Rule 8: a dead letter keeps its message, its reason, its time and its charges.
///
/// # Errors
/// The violation.
pub async fn dead_letter_keeps_its_message_and_reason<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let message = world.message(Some("a"));
    world.enqueue(std::slice::from_ref(&message)).await?;
    let mut died_at = None;
    for verdict in [retry(Duration::ZERO), bury()] {
        let claimed = world.claim(1).await?;
        died_at = world.settle_all(&claimed, &verdict).await?.first().map(|answer| answer.at);
    }
    let found = admin(&world)?.get(message.id()).await?;
    let is_whole = found.as_ref().is_some_and(|stored| {
        stored.message() == Some(&message)
            && stored.attempts == 1
            && stored.died_at == died_at
            && stored.reason.as_deref() == Some("given up by the suite")
    });
    ensure!(
        is_whole,
        NO_LOSS,
        format!("the message, 1 attempt, dead since {died_at:?}, \"given up by the suite\""),
        "{found:?}"
    );
    Ok(())
}

/// `get` finds a scheduled message and one that waits for its retry, with the time when each is due and the reason of the
/// retry; an id that is not there is `None`.
///
/// # Errors
/// The violation.
pub async fn get_finds_what_waits<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let admin = admin(&world)?;
    for key in [None, Some("a")] {
        let retried = world.message(key);
        world.enqueue(std::slice::from_ref(&retried)).await?;
        let claimed = world.claim(1).await?;
        let settled = world.settle_all(&claimed, &retry(DELAY)).await?;
        let due = settled.first().map(|answer| answer.at.after(DELAY));
        let found = admin.get(retried.id()).await?;
        ensure!(
            found.as_ref().is_some_and(|stored| stored.message() == Some(&retried)
                && stored.due_at == due
                && stored.attempts == 1
                && stored.reason.as_deref() == Some("the broker said no")),
            ADMIN,
            format!("the retried message, due at {due:?}, \"the broker said no\""),
            "{found:?}"
        );
        let later = world.now().await?.after(DELAY);
        let scheduled = world.message_due(key, Some(later));
        world.enqueue(std::slice::from_ref(&scheduled)).await?;
        // Some stores sort what was scheduled at the next claim.
        world.claim(0).await?;
        world.claim(1).await?;
        let found = admin.get(scheduled.id()).await?;
        ensure!(
            found
                .as_ref()
                .is_some_and(|stored| stored.message() == Some(&scheduled) && stored.due_at == Some(later)),
            ADMIN,
            format!("the scheduled message, due at {later:?}"),
            "{found:?}"
        );
    }
    let nobody = admin.get(MessageId::from_bytes([0xee; 16])).await?;
    ensure!(nobody.is_none(), ADMIN, "nothing under an unknown id", "{nobody:?}");
    Ok(())
}

/// Listings come in pages of at most the asked length, which together have everything, each once.
///
/// # Errors
/// The violation.
pub async fn listings_are_paged<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let dead = dead(&world, 7).await?;
    let later = world.now().await?.after(DELAY);
    let scheduled: Vec<_> = (0..7).map(|_| world.message_due(None, Some(later))).collect();
    world.enqueue(&scheduled).await?;
    world.claim(1).await?;
    let pending = world.messages(7, Some("b"));
    world.enqueue(&pending).await?;
    let states = [(ListState::Dead, dead), (ListState::Scheduled, scheduled), (ListState::Pending, pending)];
    for (state, wanted) in states {
        let mut listed = ids_of(&whole_list(admin(&world)?, state, &Filter::all(), 3).await?);
        let mut wanted = ids(&wanted);
        listed.sort_unstable();
        wanted.sort_unstable();
        ensure!(
            listed == wanted,
            ADMIN,
            format!("{state:?}: {}", list(wanted.into_iter().map(name))),
            "{}",
            list(listed.into_iter().map(name))
        );
    }
    Ok(())
}

/// Filters by id, topic, key and reason choose what they say; on pending messages a filter is `Misconfigured`.
///
/// # Errors
/// The violation.
pub async fn filters_choose_what_they_say<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let admin = admin(&world)?;
    let messages = [world.message(Some("a")), world.message(Some("b")), world.message(None)];
    for (number, message) in messages.iter().enumerate() {
        world.enqueue(std::slice::from_ref(message)).await?;
        let claimed = world.claim(1).await?;
        let reason = Text::from(format!("reason number {number}"));
        world.settle_all(&claimed, &Verdict::Bury { reason }).await?;
    }
    let text = |text: &'static str| Some(Text::from_static(text));
    let filters = [
        (Filter::id(messages[1].id()), vec![1]),
        (Filter { key: text("a"), ..Filter::all() }, vec![0]),
        (Filter { topic: text("suite.topic"), ..Filter::all() }, vec![0, 1, 2]),
        (Filter { topic: text("suite"), ..Filter::all() }, vec![]),
        (Filter { reason_contains: text("number 2"), ..Filter::all() }, vec![2]),
        (Filter { key: text("b"), reason_contains: text("number 2"), ..Filter::all() }, vec![]),
        (Filter { ids: ids(&messages[..2]), ..Filter::all() }, vec![0, 1]),
    ];
    for (filter, wanted) in filters {
        let mut listed = ids_of(&whole_list(admin, ListState::Dead, &filter, 100).await?);
        listed.sort_unstable();
        let wanted: Vec<_> = wanted.into_iter().map(|at: usize| messages[at].id()).collect();
        ensure!(
            listed == wanted,
            ADMIN,
            format!("{filter:?}: {}", list(wanted.into_iter().map(name))),
            "{}",
            list(listed.into_iter().map(name))
        );
        let dry = admin.discard(filter.clone(), 100, true).await?;
        ensure!(
            dry.count == listed.len() as u64,
            ADMIN,
            format!("{} would be discarded", listed.len()),
            "{dry:?}"
        );
    }
    let filtered = Listing {
        state: ListState::Pending,
        filter: Filter { key: text("a"), ..Filter::all() },
        cursor: None,
        limit: 10,
    };
    let answer = admin.list(filtered).await;
    ensure!(
        answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Misconfigured),
        ADMIN,
        "a filter on pending messages is `Misconfigured`",
        "{answer:?}"
    );
    Ok(())
}

/// Rule 7: a redrive makes dead messages pending again, at most as many as it may, and touches nothing else; a dry run
/// changes nothing and counts the same.
///
/// # Errors
/// The violation.
pub async fn redrive_touches_dead_only<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let admin = admin(&world)?;
    let dead = dead(&world, 5).await?;
    let later = world.now().await?.after(DELAY);
    let scheduled = world.message_due(None, Some(later));
    world.enqueue(std::slice::from_ref(&scheduled)).await?;
    let dry = admin.redrive(Filter::all(), 3, true).await?;
    ensure!(dry.count == 3 && dry.more, ADMIN, "a dry run counts 3 of 5, and more", "{dry:?}");
    let early = world.claim(10).await?;
    ensure!(early.runs.is_empty(), ADMIN, "a dry run changes nothing", "{:?}", early.runs);
    let done = admin.redrive(Filter::all(), 3, false).await?;
    ensure!(done.count == 3 && done.more, ADMIN, "3 of 5 are redriven, and more match", "{done:?}");
    let claims = world.claim_everything(10).await?;
    let redriven = claimed_ids(&claims);
    ensure!(
        redriven.len() == 3 && redriven.iter().all(|id| ids(&dead).contains(id)),
        ADMIN,
        "3 of the dead letters are handed out, and nothing that is scheduled",
        "{}",
        list(redriven.iter().copied().map(name))
    );
    for claimed in &claims {
        world.settle_all(claimed, &Verdict::Published).await?;
    }
    let rest = admin.redrive(Filter::all(), 10, false).await?;
    ensure!(rest.count == 2 && !rest.more, ADMIN, "the other 2, and no more", "{rest:?}");
    let mut wanted: Vec<_> = dead.into_iter().filter(|message| !redriven.contains(&message.id())).collect();
    wanted.push(scheduled);
    world.drains_exactly(&wanted).await
}

/// Rule 8: a discard removes dead messages only, at most as many as it may; a dry run changes nothing.
///
/// # Errors
/// The violation.
pub async fn discard_touches_dead_only<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let admin = admin(&world)?;
    let dead = dead(&world, 4).await?;
    let held = world.messages(1, Some("held"));
    world.enqueue(&held).await?;
    world.claim(1).await?;
    let pending = world.messages(2, Some("pending"));
    world.enqueue(&pending).await?;
    for waiting in held.iter().chain(&pending) {
        let affected = admin.discard(Filter::id(waiting.id()), 10, false).await?;
        ensure!(affected.count == 0, NO_LOSS, "what is not dead is not discarded", "{affected:?}");
    }
    let dry = admin.discard(Filter::all(), 10, true).await?;
    ensure!(dry.count == 4 && !dry.more, ADMIN, "a dry run counts 4", "{dry:?}");
    let two = admin.discard(Filter::all(), 2, false).await?;
    ensure!(two.count == 2 && two.more, ADMIN, "2 of 4 are discarded", "{two:?}");
    let left = admin.stats().await?.dead;
    ensure!(left == 2, ADMIN, "2 dead letters are left", "{left}");
    admin.discard(Filter::all(), 10, false).await?;
    for message in &dead {
        let gone = admin.get(message.id()).await?;
        ensure!(gone.is_none(), ADMIN, "a discarded message is gone", "{gone:?}");
    }
    world.drains_exactly(&[held, pending].concat()).await
}

/// Rule 8, F15: a purge removes published messages only, those older than it says, a bounded number at a time.
///
/// # Errors
/// The violation.
pub async fn purge_removes_published_only<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings { keep_published: true, ..OutboxSettings::default() }).await?;
    let admin = admin(&world)?;
    dead(&world, 1).await?;
    let published = world.messages(5, None);
    world.enqueue(&published).await?;
    world.drains_exactly(&published).await?;
    let kept = admin.stats().await?.published;
    ensure!(kept == 5, ADMIN, "5 published messages are kept", "{kept}");
    world.advance(DELAY).await?;
    let young = admin.purge_published(DELAY * 100, 10).await?;
    ensure!(young == 0, ADMIN, "nothing younger than asked for is purged", "{young}");
    let held = world.messages(1, Some("held"));
    world.enqueue(&held).await?;
    world.claim(1).await?;
    let pending = world.messages(2, Some("pending"));
    world.enqueue(&pending).await?;
    let some = admin.purge_published(DELAY / 2, 3).await?;
    let rest = admin.purge_published(DELAY / 2, 3).await?;
    ensure!(some == 3 && rest == 2, ADMIN, "3, then the other 2", "{some}, then {rest}");
    let stats = admin.stats().await?;
    ensure!(stats.published == 0 && stats.dead == 1, NO_LOSS, "none published, 1 dead", "{stats:?}");
    world.drains_exactly(&[held, pending].concat()).await
}

/// A store that keeps no published messages purges none, and says so.
///
/// # Errors
/// The violation.
pub async fn purge_without_retention_finds_nothing<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    let world = trial.world(&OutboxSettings::default()).await?;
    let messages = world.messages(3, None);
    world.enqueue(&messages).await?;
    world.drains_exactly(&messages).await?;
    let purged = admin(&world)?.purge_published(Duration::ZERO, 10).await?;
    ensure!(purged == 0, ADMIN, "nothing is kept, so nothing is purged", "{purged}");
    Ok(())
}

/// Makes so many dead letters, each with a key of its own.
async fn dead<S: TestStore>(world: &World<'_, S>, count: usize) -> Result<Vec<Message>, Violation> {
    let messages: Vec<_> = (0..count).map(|number| world.message(Some(&format!("dead-{number}")))).collect();
    world.enqueue(&messages).await?;
    for claimed in world.claim_everything(100).await? {
        world.settle_all(&claimed, &bury()).await?;
    }
    Ok(messages)
}

async fn whole_list(
    admin: &dyn Admin,
    state: ListState,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Stored>, Violation> {
    let (mut all, mut cursor) = (Vec::new(), None);
    for _ in 0..1_000 {
        let page = admin.list(Listing { state, filter: filter.clone(), cursor, limit }).await?;
        ensure!(
            page.messages.len() <= limit as usize,
            ADMIN,
            format!("at most {limit} on a page"),
            "{}",
            page.messages.len()
        );
        all.extend(page.messages);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(all);
        }
    }
    Err(crate::storage::rule::broken(ADMIN, "a listing ends", "1,000 pages and no end"))
}

fn ids_of(listed: &[Stored]) -> Vec<MessageId> {
    listed.iter().filter_map(Stored::id).collect()
}

fn admin<'a, S: TestStore>(world: &'a World<'_, S>) -> Result<&'a dyn Admin, Violation> {
    world
        .storage
        .admin()
        .ok_or_else(|| Violation::Harness("the storage declares `admin` and offers none".into()))
}
