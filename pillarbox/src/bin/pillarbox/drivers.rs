use crate::connect::is_within_one_process;
use crate::failure::Failure;
use crate::say;

/// Prints what can be opened.
pub(crate) fn list() -> Result<(), Failure> {
    let registry = pillarbox::registry();
    let mut text = "Stores (--storage)\n\n".to_owned();
    for driver in registry
        .storages()
        .iter()
        .filter(|driver| !driver.schemes.iter().any(|scheme| is_within_one_process(scheme)))
    {
        text += &entry(driver.schemes, driver.description);
    }
    text += "Brokers (--transport)\n\n";
    for driver in registry.transports() {
        text += &entry(driver.schemes, driver.description);
    }
    say::print(&text)
}

fn entry(schemes: &[&str], description: &str) -> String {
    let schemes: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}:")).collect();
    format!("{}\n{description}\n\n", schemes.join(" "))
}
