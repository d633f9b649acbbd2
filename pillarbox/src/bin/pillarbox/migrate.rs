use crate::arguments::MigrateArguments;
use crate::failure::Failure;

/// Brings the schema of a SQL store to this program's version, or prints how.
pub(crate) async fn run(arguments: MigrateArguments) -> Result<(), Failure> {
    let url = &arguments.storage.storage;
    if arguments.print {
        for step in pillarbox::sql::migrations(url)? {
            println!("{}\n", step.trim_end());
        }
        return Ok(());
    }
    let applied = pillarbox::sql::migrate(url).await?;
    if applied.is_empty() {
        println!("the schema is at its newest version; nothing was changed");
    }
    for version in applied {
        println!("applied version {version} of the schema");
    }
    Ok(())
}
