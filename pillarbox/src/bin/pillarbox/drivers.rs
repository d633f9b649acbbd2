use crate::connect::is_within_one_process;

/// Prints what can be opened.
pub(crate) fn list() {
    let registry = pillarbox::registry();
    println!("Stores (--storage)\n");
    for driver in registry
        .storages()
        .iter()
        .filter(|driver| !driver.schemes.iter().any(|scheme| is_within_one_process(scheme)))
    {
        tell(driver.schemes, driver.description);
    }
    println!("Brokers (--transport)\n");
    for driver in registry.transports() {
        tell(driver.schemes, driver.description);
    }
}

fn tell(schemes: &[&str], description: &str) {
    let schemes: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}:")).collect();
    println!("{}\n{description}\n", schemes.join(" "));
}
