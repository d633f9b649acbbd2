//! What the server refuses, and what is told of it.

use crate::faulty::{Faulty, PATIENCE, repeated};
use crate::support::{SHOP, ask};
use mongodb::bson::doc;
use pillarbox_core::{Effect, ErrorKind, Hints, Storage as _};
use std::time::{Duration, Instant};

/// A server may have no change streams for this user, or lose them: the relay's poll interval is the floor, and hints come back.
#[tokio::test]
async fn without_change_streams_claims_go_on_and_hints_come_later() {
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let namespace = format!("{SHOP}.{}.messages", outbox.first.name());
    let refused = doc! { "namespace": namespace, "errorCode": 40_573 };
    faulty.fail("aggregate", i32::MAX, refused);
    let mut hints = outbox.first.wakeup().unwrap().subscribe();
    assert!(!poll_once(&mut *hints), "there is no stream yet");
    let begun = Instant::now();
    while faulty.times_entered() == 0 {
        assert!(begun.elapsed() < PATIENCE, "nobody asked for a stream");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    outbox.is_as_new().await;
    assert!(!poll_once(&mut *hints), "a refused stream hints at nothing");
    faulty.heal();
    // The listener tries again, and what was enqueued before it hears is hinted at.
    tokio::time::timeout(PATIENCE, hints.hinted()).await.unwrap();
}

/// The table of errors, by what a real server answers: its kind, its words, and that it goes on afterwards.
#[tokio::test]
async fn every_code_of_the_server_is_told_as_its_kind() {
    use ErrorKind::{Misconfigured, Rejected, Unavailable, Unexpected};
    let faulty = Faulty::server().await;
    let outbox = faulty.outbox().await;
    let place = faulty.server.address().to_string();
    for (codes, kind, words) in [
        (&[13][..], Misconfigured, "`readWrite`"),
        (&[18], Misconfigured, "the user and the password"),
        (&[20], Misconfigured, "--replSet"),
        (&[26], Misconfigured, "collection of this outbox is missing"),
        (&[10_334, 17_280], Rejected, "16 MB"),
        (&[6, 7, 89, 262, 9_001], Unavailable, "election"),
        (&[50, 64, 79, 100, 202], Unavailable, "in time"),
        (&[24, 112, 225, 244, 251, 256, 263], Unavailable, "met another one"),
        (&[239, 246], Unavailable, "snapshot"),
        (&[39, 14_031], Unavailable, "disk is full"),
        (&[2, 9], Unexpected, "not expected"),
        // What says that it is not the primary, or shuts down: the client believes it until it hears from the server again.
        (&[91, 189, 10_058, 10_107, 11_600, 11_602, 13_435, 13_436], Unavailable, "election"),
    ] {
        for code in codes {
            let namespace = format!("{SHOP}.{}.lanes", outbox.first.name());
            faulty.fail("aggregate", 10, doc! { "errorCode": *code, "namespace": namespace });
            let error = outbox.first.claim(ask(10)).await.unwrap_err();
            faulty.heal();
            let shown = error.report().to_string();
            assert_eq!(error.kind(), kind, "{code}: {shown}");
            assert!(shown.contains(words) && shown.contains(&place), "{code}: {shown}");
            assert!(shown.contains(&format!("code {code}")), "{code}: {shown}");
            let applied = matches!(kind, Misconfigured | Rejected);
            assert_eq!(error.effect() == Effect::NotApplied, applied, "{code}: {shown}");
            repeated(async || outbox.first.claim(ask(0)).await).await;
        }
    }
    outbox.is_as_new().await;
}

fn poll_once(hints: &mut dyn Hints) -> bool {
    let mut hinted = hints.hinted();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    hinted.as_mut().poll(&mut context).is_ready()
}
