use pillarbox_testkit::servers::{ChildServer, Launch, ServerErrorKind, ServerFolder, find_program};

use super::eventually;

pub(super) fn shell(folder: &ServerFolder, script: &str) -> Launch {
    Launch::new("shell", find_program("sh", &[]).unwrap(), folder.path()).arguments(["-c", script])
}

#[test]
fn a_missing_program_says_what_to_run() {
    let error = find_program("pillarbox-no-such-server", &[]).unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::Missing);
    assert!(error.to_string().contains("run scripts/setup"), "{error}");
}

#[test]
fn a_server_that_ends_shows_its_log() {
    let folder = ServerFolder::create("test").unwrap();
    let launch = shell(&folder, "echo no room left; exit 3");
    let error = ChildServer::start(launch, |_| Err("silent".to_owned())).unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::NotReady);
    assert!(error.to_string().contains("no room left"), "{error}");
    assert!(format!("{error:?}").contains("\nno room left"), "Debug keeps the lines: {error:?}");
}

#[test]
fn a_taken_port_is_told_apart_from_other_failures() {
    let folder = ServerFolder::create("test").unwrap();
    let launch = shell(&folder, "echo 'bind: Address already in use'; exit 1");
    let error = ChildServer::start(launch, |_| Err("silent".to_owned())).unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::PortTaken);
}

#[test]
fn the_environment_of_the_machine_can_be_hidden() {
    let folder = ServerFolder::create("test").unwrap();
    let launch = shell(&folder, "echo cargo=${CARGO_MANIFEST_DIR-none} set=$CARGO_SET; exec sleep 600")
        .without_environment("CARGO_")
        .environment("CARGO_SET", "yes");
    let server = ChildServer::start(launch, |_| Ok(())).unwrap();
    eventually("the shell has written", || server.log().contains("cargo=none set=yes"));
}
