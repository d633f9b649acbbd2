use super::*;
use serde_json::Value;

/// A run with its events, call by call.
struct Run {
    playground: Playground,
    last: Value,
    told: Vec<String>,
}

impl Run {
    fn open(seed: u64, blocks: bool, script: &str, to: u64) -> Self {
        let mut run = Self { playground: Playground::default(), last: Value::Null, told: Vec::new() };
        run.ask(Request::Open { seed, blocks, script: script.to_owned(), to });
        run
    }

    fn ask(&mut self, request: Request) {
        let answer = self.playground.handle(request);
        self.last = serde_json::to_value(answer).unwrap();
        assert_eq!(self.last["error"], Value::Null);
        for event in self.last["events"].as_array().unwrap() {
            self.told.push(format!(
                "{} {} at {}",
                event["rule"],
                event["text"].as_str().unwrap(),
                event["at"]
            ));
        }
        assert_eq!((self.total("lost"), self.total("disordered")), (0, 0));
    }

    fn advance(&mut self, to: u64) {
        self.ask(Request::Advance { to });
    }

    fn act(&mut self, act: &str) {
        self.ask(Request::Act { act: act.to_owned() });
    }

    fn total(&self, name: &str) -> u64 {
        self.last["totals"][name].as_u64().unwrap()
    }

    /// Whether an event of this rule says all of these.
    fn has_told(&self, rule: u8, words: &[&str]) -> bool {
        let rule = format!("{rule} ");
        self.told.iter().any(|told| told.starts_with(&rule) && words.iter().all(|word| told.contains(word)))
    }

    fn everything_arrives(&mut self) {
        let now = self.last["now"].as_u64().unwrap();
        self.act("c0");
        self.advance(now + 60_000);
        assert_eq!(self.total("waiting"), 0, "{:#?}", self.told);
        let accounted = self.total("delivered") + self.total("dead") + self.total("discarded");
        assert_eq!(self.total("committed"), accounted);
        assert_eq!(self.last["rows"].as_u64().unwrap(), self.total("committed"));
    }
}

#[test]
fn without_faults_everything_arrives_once() {
    let mut run = Run::open(1, false, "", 60_000);
    run.everything_arrives();
    assert!(run.total("delivered") > 30);
    assert_eq!((run.total("again"), run.total("dead")), (0, 0));
    assert!(run.total("rolled_back") > 0);
}

#[test]
fn a_run_is_the_same_however_its_time_is_divided() {
    let script = "2000k0.4000x0.7500x1.9000u1.9100d2.12000f1.20000t1";
    let mut at_once = Run::open(7, false, script, 0);
    let mut in_steps = Run::open(7, false, script, 0);
    at_once.advance(40_000);
    for to in (0..=40_000).step_by(16).chain([40_000]) {
        in_steps.advance(to);
    }
    assert_eq!(at_once.told, in_steps.told);
    let (mut once, mut steps) = (at_once.last, in_steps.last);
    (once["events"], steps["events"]) = (Value::Null, Value::Null);
    assert_eq!(once, steps);
}

#[test]
fn what_a_visitor_did_is_played_again_from_its_script() {
    let mut clicked = Run::open(3, true, "", 0);
    for (at, act) in [
        (1_234, "u0"),
        (1_234, "o0"),
        (5_000, "k0"),
        (5_000, "k1"),
        (9_999, "x0"),
        (14_000, "x1"),
        (30_000, "r0"),
    ] {
        clicked.advance(at);
        clicked.act(act);
    }
    clicked.advance(45_000);
    let script = clicked.last["script"].as_str().unwrap().to_owned();
    let played = Run::open(3, true, &script, 45_000);
    assert_eq!(clicked.told, played.told);
}

#[test]
fn another_seed_is_another_run() {
    assert_ne!(Run::open(1, false, "", 20_000).told, Run::open(2, false, "", 20_000).told);
}

#[test]
fn what_a_dead_relay_held_arrives_after_its_lease() {
    let mut run = Run::open(1, false, "0c0.0o0.0o1.0o2", 2_000);
    let holder =
        (0..2).find(|relay| !run.last["relays"][relay]["hand"].as_array().unwrap().is_empty()).unwrap();
    run.act(&format!("k{holder}"));
    run.advance(5_000);
    assert_eq!(run.last["relays"][holder]["state"], "dead");
    run.everything_arrives();
    assert!(run.has_told(3, &["lease on", "ran out"]), "{:#?}", run.told);
    assert_eq!(run.total("delivered"), 3);
}

#[test]
fn a_relay_that_stood_still_is_fenced_off() {
    // Frozen with everything in the air.
    let mut run = Run::open(1, false, "0c0.0o0.0o1.0o2", 2_000);
    let holder =
        (0..2).find(|relay| !run.last["relays"][relay]["hand"].as_array().unwrap().is_empty()).unwrap();
    run.act(&format!("f{holder}"));
    run.advance(14_000);
    assert_eq!(run.last["relays"][holder]["hand"][0]["is_stale"], true);
    run.act(&format!("t{holder}"));
    run.advance(16_000);
    assert!(run.has_told(3, &["fenced off, nothing changes"]), "{:#?}", run.told);
    run.everything_arrives();
    assert!(run.total("again") > 0);
}

#[test]
fn an_outage_charges_nobody() {
    let mut run = Run::open(5, false, "0c0.0o0.0o1.100x0", 20_000);
    assert!(run.has_told(4, &["An outage is no message's fault"]));
    assert_eq!((run.total("delivered"), run.total("dead")), (0, 0));
    run.act("x1");
    run.everything_arrives();
    assert_eq!((run.total("delivered"), run.total("dead")), (2, 0));
}

#[test]
fn a_dead_head_holds_its_key_up_only_under_block() {
    let script = "0c0.0u0.100o0.200o0";
    let mut goes_on = Run::open(2, false, script, 40_000);
    assert_eq!((goes_on.total("delivered"), goes_on.total("dead")), (2, 1));
    let mut blocked = Run::open(2, true, script, 40_000);
    assert_eq!((blocked.total("delivered"), blocked.total("dead")), (0, 1));
    assert!(goes_on.has_told(6, &["A1 is dead", "its key goes on"]));
    assert!(blocked.has_told(6, &["A1 is dead", "its key waits"]));
    goes_on.act("r0");
    blocked.act("r0");
    for run in [&mut goes_on, &mut blocked] {
        run.everything_arrives();
        assert_eq!((run.total("delivered"), run.total("dead")), (3, 0));
    }
    let order = |run: &Run| -> Vec<String> {
        let taken = run.last["broker"]["last"][0].as_array().unwrap();
        taken.iter().map(|taken| taken["label"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(order(&goes_on), ["A2", "A3", "A1"]);
    assert_eq!(order(&blocked), ["A1", "A2", "A3"]);
}

#[test]
fn a_report_whose_answer_was_lost_is_repeated_and_changes_nothing() {
    let mut run = Run::open(1, false, "0c0.0o0.0o1.1000l0", 30_000);
    assert!(run.has_told(9, &["is lost on the way"]), "{:#?}", run.told);
    assert!(run.has_told(9, &["repeats its report", "nothing changes"]), "{:#?}", run.told);
    run.everything_arrives();
    assert_eq!((run.total("delivered"), run.total("again")), (2, 0));
}

#[test]
fn a_discarded_head_lets_its_key_go_on() {
    let mut run = Run::open(2, true, "0c0.0u0.100o0", 40_000);
    run.act("z0");
    run.everything_arrives();
    assert_eq!((run.total("delivered"), run.total("discarded")), (1, 1));
}

#[test]
fn a_deadly_message_is_found_and_buried_alone() {
    let mut run = Run::open(4, false, "0c0.0o1.0d0.0o2.0o3", 120_000);
    assert_eq!((run.total("delivered"), run.total("dead")), (3, 1), "{:#?}", run.told);
    assert!(run.has_told(4, &["A1 is under suspicion", "alone"]));
    assert!(run.has_told(4, &["A1 has killed too many relays"]));
    run.act("r1");
    run.everything_arrives();
    assert_eq!((run.total("delivered"), run.total("dead")), (4, 0));
}

#[test]
fn a_message_that_vanishes_is_counted_as_lost() {
    use pillarbox_core::{Admin as _, Affected, Filter};
    let mut run = Run::open(2, false, "0c0.0u0", 40_000);
    let world = run.playground.0.as_mut().unwrap();
    store::at_once::<Affected>(world.storage.discard(Filter::all(), 10, false)).unwrap();
    let answer = serde_json::to_value(run.playground.handle(Request::Advance { to: 41_000 })).unwrap();
    assert_eq!(answer["totals"]["lost"], 1);
}

#[test]
fn wrong_requests_are_answered_with_what_is_wrong() {
    let mut playground = Playground::default();
    let ask = |playground: &mut Playground, request| {
        serde_json::to_value(playground.handle(request)).unwrap()["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(ask(&mut playground, Request::Advance { to: 1 }), "open a run first");
    let open = |script: String| Request::Open { seed: 1, blocks: false, script, to: 0 };
    assert!(ask(&mut playground, open("1q1".to_owned())).contains("1q1"));
    assert!(ask(&mut playground, open("1o1.".repeat(501))).contains("at most 500"));
    assert_eq!(ask(&mut playground, open("1o1".to_owned())), "");
    assert!(ask(&mut playground, Request::Act { act: "k7".to_owned() }).contains("k7"));
}

/// Many runs with much done to them: nothing is lost, nothing overtakes, and in the end all has arrived.
#[test]
fn nothing_is_lost_whatever_is_done() {
    let acts = ["k0", "k1", "f0", "f1", "t0", "t1", "x0", "x1", "u0", "d1", "o2", "s0", "r3", "z4", "l0"];
    for seed in 0..60_u64 {
        let mut random = time::Random::new(seed, 9);
        let mut run = Run::open(seed, seed % 2 == 1, "", 0);
        let mut at = 0;
        for _ in 0..25 {
            at += 200 + random.draw() % 3_000;
            run.advance(at);
            run.act(acts[usize::try_from(random.draw() % acts.len() as u64).unwrap()]);
        }
        for act in ["c0", "t0", "t1", "x1"] {
            run.act(act);
        }
        // Under `Block` each dead letter is somebody's to decide about.
        for _ in 0..12 {
            at += 60_000;
            run.advance(at);
            let messages = run.last["messages"].as_array().unwrap().clone();
            for dead in messages.iter().filter(|message| message["state"] == "dead") {
                run.act(&format!("r{}", dead["number"]));
            }
        }
        assert_eq!((run.total("waiting"), run.total("dead")), (0, 0), "seed {seed}: {:#?}", run.told);
        assert_eq!(run.total("committed"), run.total("delivered") + run.total("discarded"), "seed {seed}");
    }
}
