//! `pillarbox dead`: look at dead letters, send them again, or drop them.

use crate::arguments::{DeadArguments, FilterArguments, StorageArguments};
use crate::failure::Failure;
use crate::say;
use crate::{connect, progress, stored};
use clap::{Args, Subcommand};
use pillarbox::{Admin, AnyStorage, Filter, ListState, Listing, MessageId, Stored};
use std::io::{IsTerminal as _, Write as _};

/// How many are asked for in one call: no call holds the store up.
const PAGE: u32 = 500;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List dead letters, one a line.
    List(ListArguments),
    /// Show one dead or scheduled message with its payload, as JSON.
    Show(ShowArguments),
    /// Make dead letters pending again, with their attempts forgotten.
    Redrive(ChangeArguments),
    /// Remove dead letters for good.
    Discard(DiscardArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    storage: StorageArguments,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    limit: u64,
    /// Print JSON lines with everything, payloads too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    storage: StorageArguments,
    /// The message's id.
    id: MessageId,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArguments {
    #[command(flatten)]
    storage: StorageArguments,
    /// All of them; needed where nothing else says which.
    #[arg(long, conflicts_with_all = ["ids", "topic", "key", "reason"])]
    all: bool,
    /// At most so many. Default: as many as are dead at the start.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Only count; change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DiscardArguments {
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeArguments,
}

pub(crate) async fn run(arguments: DeadArguments) -> Result<(), Failure> {
    match arguments.action {
        Action::List(arguments) => list(arguments).await,
        Action::Show(arguments) => show(arguments).await,
        Action::Redrive(arguments) => change(arguments, Change::Redrive).await,
        Action::Discard(arguments) => {
            let confirmed = arguments.yes || arguments.change.dry_run;
            change(arguments.change, Change::Discard { confirmed }).await
        }
    }
}

async fn list(arguments: ListArguments) -> Result<(), Failure> {
    let storage = connect::storage(&arguments.storage).await?.storage;
    let mut output = std::io::stdout().lock();
    let mut failed = None;
    let is_json = arguments.json;
    each(connect::admin(&storage)?, &arguments.filter.filter(), arguments.limit, |stored| {
        let line = if is_json { stored::object(stored).to_string() } else { stored::line(stored) };
        if failed.is_none() {
            failed = writeln!(output, "{line}").err();
        }
    })
    .await?;
    say::written(failed.map_or_else(|| output.flush(), Err))
}

async fn show(arguments: ShowArguments) -> Result<(), Failure> {
    let storage = connect::storage(&arguments.storage).await?.storage;
    let Some(stored) = connect::admin(&storage)?.get(arguments.id).await? else {
        return Err(Failure::failed(format!("there is no dead or scheduled message {}", arguments.id)));
    };
    say::print(&format!("{:#}\n", stored::object(&stored)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Redrive,
    Discard { confirmed: bool },
}

impl Change {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Redrive => ("redrive", "redrove"),
            Self::Discard { .. } => ("discard", "discarded"),
        }
    }
}

async fn change(arguments: ChangeArguments, change: Change) -> Result<(), Failure> {
    let (verb, done) = change.words();
    let filter = arguments.filter.filter();
    if filter.is_all() && !arguments.all {
        return Err(Failure::misconfigured(format!(
            "say which dead letters to {verb}: by --id, --topic, --key or --reason, or --all of them"
        )));
    }
    let storage = connect::storage(&arguments.storage).await?.storage;
    let admin = connect::admin(&storage)?;
    // A redriven message can die again meanwhile: without this end it could go round for ever.
    let limit = arguments.limit.unwrap_or(u64::MAX).min(admin.stats().await?.dead);
    if arguments.dry_run {
        let count = each(admin, &filter, limit, |_| {}).await?;
        return say::print(&format!("would {verb} {count} dead letters\n"));
    }
    if change == (Change::Discard { confirmed: false }) && !confirmed(admin, &filter, limit).await? {
        return Err(Failure::failed("nothing was discarded"));
    }
    let count = apply(&storage, &filter, limit, change).await?;
    say::print(&format!("{done} {count} dead letters\n"))
}

/// Changes page after page until the limit, or until there are no more.
async fn apply(storage: &AnyStorage, filter: &Filter, limit: u64, change: Change) -> Result<u64, Failure> {
    let admin = connect::admin(storage)?;
    let bar = progress::bar(Some(limit), change.words().0);
    let mut count = 0;
    while count < limit {
        let page = u32::try_from(limit - count).unwrap_or(PAGE).min(PAGE);
        let outcome = match change {
            Change::Redrive => admin.redrive(filter.clone(), page, false).await,
            Change::Discard { .. } => admin.discard(filter.clone(), page, false).await,
        };
        let affected = outcome.map_err(|error| {
            let done = change.words().1;
            Failure::failed(format!("{done} {count} dead letters, then failed: {}", error.report()))
        })?;
        count += affected.count;
        bar.set_position(count);
        if !affected.more {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(count)
}

/// Asks the person at the terminal.
async fn confirmed(admin: &dyn Admin, filter: &Filter, limit: u64) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::misconfigured("discarding is for good: say --yes, or ask with --dry-run first"));
    }
    let count = each(admin, filter, limit, |_| {}).await?;
    let question = format!("Discard {count} dead letters for good? [y/N] ");
    std::io::stderr()
        .write_all(question.as_bytes())
        .map_err(|error| Failure::system("ask on standard error", &error))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| Failure::system("read the answer", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Looks at each dead letter that matches, up to `limit`, and answers how many there were.
async fn each(
    admin: &dyn Admin,
    filter: &Filter,
    limit: u64,
    mut look: impl FnMut(&Stored),
) -> Result<u64, Failure> {
    let (mut count, mut cursor) = (0, None);
    while count < limit {
        let page = u32::try_from(limit - count).unwrap_or(PAGE).min(PAGE);
        let listing = Listing { state: ListState::Dead, filter: filter.clone(), cursor, limit: page };
        let page = admin.list(listing).await?;
        for stored in &page.messages {
            look(stored);
        }
        count += page.messages.len() as u64;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(count)
}

impl FilterArguments {
    fn filter(&self) -> Filter {
        Filter {
            ids: self.ids.clone(),
            topic: self.topic.clone().map(Into::into),
            key: self.key.clone().map(Into::into),
            reason_contains: self.reason.clone().map(Into::into),
        }
    }
}
