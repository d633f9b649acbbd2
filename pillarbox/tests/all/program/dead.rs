use super::run::{outbox, run, run_with_input, status, text};
use pillarbox::{Claim, Nonce, Settlements, Storage as _, Verdict};
use pillarbox_testkit::servers::RedisServer;
use std::time::Duration;

/// Enqueues `count` messages on each of two topics and buries all of them.
async fn bury(url: &str, count: usize) {
    let input: String = (0..count)
        .map(|number| {
            format!(
                "{{\"topic\":\"a\",\"payload\":\"a{number}\"}}\n{{\"topic\":\"b\",\"key\":\"k\",\"payload_base64\":\"/w==\"}}\n"
            )
        })
        .collect();
    let enqueued = run_with_input(&["enqueue", "--storage", url], &input);
    assert!(enqueued.status.success(), "{}", text(&enqueued.stderr));
    let storage = pillarbox::registry().storage(url).await.unwrap();
    let mut left = count * 2;
    for draw in 1.. {
        let nonce = Nonce::from_words(7, draw);
        let claim = Claim { limit: 500, lease: Duration::from_secs(30), nonce, solo: false };
        let claimed = storage.claim(claim).await.unwrap();
        let mut settlements = Settlements::new();
        for run in &claimed.runs {
            let reason = format!("buried in draw {draw}").into();
            let verdict = Verdict::Bury { reason };
            settlements.verdicts(run.token, std::iter::repeat_n(verdict, run.len as usize));
        }
        storage.settle(&settlements).await.unwrap();
        left -= claimed.entries.len();
        if left == 0 {
            return;
        }
    }
}

fn said(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_redriven_and_discarded() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    bury(&url, 30).await;
    assert_eq!(status(&url)["dead"], 60);

    let list = said(&["dead", "list", "--storage", &url, "--topic", "a", "--limit", "10"]);
    assert_eq!(list.lines().count(), 10, "{list}");
    assert!(list.lines().all(|line| line.contains("buried in draw")), "{list}");
    let json = said(&["dead", "list", "--storage", &url, "--key", "k", "--json"]);
    let stored: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((stored.len(), stored[0]["payload_base64"].as_str()), (30, Some("/w==")));

    let id = stored[0]["id"].as_str().unwrap();
    let shown: serde_json::Value =
        serde_json::from_str(&said(&["dead", "show", "--storage", &url, id])).unwrap();
    assert_eq!((shown["topic"].as_str(), shown["key"].as_str()), (Some("b"), Some("k")));
    let unknown = run(&["dead", "show", "--storage", &url, "018f2f5e-7a4b-7c3d-8e9f-0123456789ab"]);
    assert_eq!(unknown.status.code(), Some(1));

    let dry = said(&["dead", "redrive", "--storage", &url, "--topic", "a", "--dry-run"]);
    assert_eq!((dry.trim(), status(&url)["dead"].as_u64()), ("would redrive 30 dead letters", Some(60)));
    assert_eq!(
        said(&["dead", "redrive", "--storage", &url, "--topic", "a"]).trim(),
        "redrove 30 dead letters"
    );
    assert_eq!((status(&url)["dead"].as_u64(), status(&url)["pending"].as_u64()), (Some(30), Some(30)));
    assert_eq!(said(&["dead", "redrive", "--storage", &url, "--id", id]).trim(), "redrove 1 dead letters");

    let refused = run(&["dead", "discard", "--storage", &url, "--topic", "b"]);
    assert_eq!((refused.status.code(), status(&url)["dead"].as_u64()), (Some(2), Some(29)));
    assert!(text(&refused.stderr).contains("--yes"), "{}", text(&refused.stderr));
    let refused = run(&["dead", "discard", "--storage", &url, "--yes"]);
    assert_eq!(refused.status.code(), Some(2), "it is not said which");
    let limited = said(&["dead", "discard", "--storage", &url, "--all", "--yes", "--limit", "9"]);
    assert_eq!(limited.trim(), "discarded 9 dead letters");
    assert_eq!(
        said(&["dead", "discard", "--storage", &url, "--all", "--yes"]).trim(),
        "discarded 20 dead letters"
    );
    assert_eq!((status(&url)["dead"].as_u64(), status(&url)["pending"].as_u64()), (Some(0), Some(31)));
}
