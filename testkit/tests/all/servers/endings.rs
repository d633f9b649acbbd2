//! How servers end. These tests look at processes through `/proc`, so they run on Linux only.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use pillarbox_testkit::servers::{ChildServer, RabbitMqNode, RedisServer, ServerErrorKind, ServerFolder};

use super::eventually;
use super::process::shell;

#[test]
fn a_server_that_never_answers_is_given_up_and_killed() {
    let folder = ServerFolder::create("test").unwrap();
    let launch = shell(&folder, "echo $$ > id; exec sleep 600").patience(Duration::from_millis(200));
    let id = folder.path().join("id");
    let wrote = id.clone();
    let error = ChildServer::start(launch, move |_| {
        // Nothing is proved before the process is there.
        eventually("the id is written", || {
            std::fs::read_to_string(&wrote).is_ok_and(|id| id.ends_with('\n'))
        });
        Err("it said nothing".to_owned())
    });
    assert!(error.unwrap_err().to_string().contains("it said nothing"));
    assert!(!is_alive(std::fs::read_to_string(&id).unwrap().trim()));
}

#[test]
fn children_of_a_server_die_with_it() {
    let folder = ServerFolder::create("test").unwrap();
    let child = folder.path().join("child");
    let written = child.clone();
    let server = ChildServer::start(shell(&folder, "sleep 600 & echo $! > child; wait"), move |_| {
        let content = std::fs::read_to_string(&written).unwrap_or_default();
        if content.ends_with('\n') { Ok(()) } else { Err("no child yet".to_owned()) }
    });
    let server = server.unwrap();
    let child = std::fs::read_to_string(&child).unwrap().trim().to_owned();
    assert!(is_alive(&child));
    server.kill();
    eventually("the child ends", || !is_alive(&child));
    assert_eq!(server.process_id(), None);
    assert_eq!(server.pause().unwrap_err().kind(), ServerErrorKind::NotRunning);
}

const ACT_AS_CHILD: &str = "PILLARBOX_TESTKIT_ACT_AS_CHILD";

/// The test starts itself as another process. That one keeps servers in a `static`, which is never dropped, tells what
/// it has started, and ends when its input does.
#[test]
fn nothing_remains_of_a_test_process_that_ends_or_is_killed() {
    if std::env::var_os(ACT_AS_CHILD).is_some() {
        return act_as_child();
    }
    for kill in [false, true] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("servers::endings::nothing_remains_of_a_test_process_that_ends_or_is_killed")
            .env(ACT_AS_CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let folder = lines.find_map(|line| line.strip_prefix("folder=").map(str::to_owned));
        let folder = folder.expect("the child says where its servers are");
        eventually("the servers of the child run", || processes_of(&folder).len() >= 3);
        if kill {
            child.kill().unwrap();
        }
        drop(child.stdin.take());
        // Until the end of its output, so that the child can say how its test went.
        lines.for_each(drop);
        assert_eq!(child.wait().unwrap().success(), !kill);
        eventually("the servers end", || processes_of(&folder).is_empty());
        eventually("the folder is removed", || !Path::new(&folder).exists());
    }
}

fn act_as_child() {
    static REDIS: OnceLock<RedisServer> = OnceLock::new();
    let redis = REDIS.get_or_init(|| RedisServer::start().unwrap());
    let folder = redis.folder().path().parent().unwrap();
    // Begins with an end of line, since the test runner has begun one.
    println!("\nfolder={}", folder.display());
    // Its thread is still starting the broker when this process ends.
    std::thread::spawn(RabbitMqNode::shared);
    std::io::stdin().lines().for_each(drop);
}

/// The processes that work in this folder: Redis, epmd, and a RabbitMQ that is starting.
fn processes_of(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        if std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn is_alive(process: &str) -> bool {
    // A zombie has ended; only its parent has not asked for it yet.
    let state = std::fs::read_to_string(format!("/proc/{process}/stat"));
    state.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim().starts_with('Z'))
}
