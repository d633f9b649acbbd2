//! Nobody listens: full disks and closed pipes behind the program's output, and servers that do not answer.

use super::run::{Relay, outbox, program, run, run_with_input, status, text, wait_until};
use pillarbox_testkit::servers::RedisServer;
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::process::Stdio;

/// Where every write fails as on a full disk.
#[cfg(target_os = "linux")]
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_a_failure_with_a_word() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    for arguments in [
        &["status", "--storage", &url][..],
        &["status", "--json", "--storage", &url],
        &["dead", "redrive", "--all", "--storage", &url],
        &["drivers"],
    ] {
        let output = program(arguments).stdout(full()).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains("cannot write to standard output"), "{arguments:?}: {errors}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_error_changes_no_exit_code() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    for (arguments, code) in [
        (&["status", "--storage", &url][..], 0),
        (&["enqueue", "--storage", &url], 0),
        (&["status", "--storage", "nowhere"], 2),
        (&["status", "--nonsense"], 2),
        (&["dead", "redrive", "--storage", &url], 2),
    ] {
        let output = program(arguments).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_relay_outlives_the_disk_under_its_log() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    let lines = "{\"topic\":\"a\",\"payload\":\"1\"}\n".repeat(10);
    assert!(run_with_input(&["enqueue", "--storage", &url], &lines).status.success());
    let relay = ["relay", "--log", "trace", "--storage", &url, "--transport", "stdout:"];
    let mut child = program(&relay).stdout(Stdio::null()).stderr(full()).spawn().unwrap();
    wait_until("everything is published", || status(&url)["pending"] == 0 && status(&url)["claimed"] == 0);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_relay_that_still_connects_obeys_a_signal() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/?outbox.name=orders", silent.local_addr().unwrap());
    let mut relay = Relay::start(&["relay", "--storage", &url, "--transport", "stdout:"]);
    // It listens to signals before it connects.
    let _connection = silent.accept().unwrap();
    relay.signal(rustix::process::Signal::TERM);
    let (code, errors) = relay.end();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("before it was connected"), "{errors}");
}

#[test]
fn an_empty_filter_is_refused_rather_than_everything() {
    for filter in ["--reason", "--topic", "--key", "--id"] {
        let arguments = ["dead", "discard", "--yes", filter, "", "--storage", "redis://127.0.0.1:1/"];
        let output = run(&arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{filter}: {errors}");
        assert!(errors.contains(filter), "{errors}");
    }
}

#[test]
fn the_help_of_enqueue_fits_its_width() {
    let output = run(&["enqueue", "--help"]);
    for line in text(&output.stdout).lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert!(text(&output.stdout).contains("Anything\nelse is a bad line"), "wrapped once, by hand");
}
