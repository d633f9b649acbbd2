use crate::arguments::MigrateArguments;
use crate::failure::Failure;
use crate::say;

/// Brings the schema of a SQL store to this program's version, or prints how.
pub(crate) async fn run(arguments: MigrateArguments) -> Result<(), Failure> {
    let url = &arguments.storage.storage;
    if arguments.print {
        let steps = pillarbox::sql::migrations(url)?;
        return say::print(&steps.iter().map(|step| format!("{}\n\n", step.trim_end())).collect::<String>());
    }
    let applied = pillarbox::sql::migrate(url).await?;
    if applied.is_empty() {
        return say::print("the schema is at its newest version; nothing was changed\n");
    }
    let lines = applied.iter().map(|version| format!("applied version {version} of the schema\n"));
    say::print(&lines.collect::<String>())
}
