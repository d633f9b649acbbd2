//! Several relays at once against one outbox, each of which may fail in every way, on real connections. The suite's walks know
//! every rule of one message; these look at what lanes add: keys that share a lane, parks that overlap with leases, and many
//! handles that race.

use crate::support::{LEASE, config, connection, message, server};
use pillarbox_core::{
    Claim, Claimed, Content, HeadPolicy, MessageId, Nonce, Outcome, Settlements, Storage as _, TestClock,
    Text, Timestamp, Verdict,
};
use pillarbox_redis::RedisStorage;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What all relays did, in the order in which this process learned of it. Judged at the end and by the fences, since an answer
/// may be noted later than another one that the store gave after it.
#[derive(Default)]
struct History {
    steps: u64,
    /// The claims of each message by their fences, and of each key.
    messages: HashMap<MessageId, BTreeMap<u64, Hold>>,
    keys: HashMap<String, BTreeMap<u64, Hold>>,
    /// When the settlement of a fence was first asked for.
    asked: HashMap<u64, u64>,
    /// The fence under which a message was published or buried.
    ended: HashMap<MessageId, u64>,
    /// What was published of each key, by fence and place.
    delivered: BTreeMap<String, BTreeMap<(u64, usize), MessageId>>,
    fenced: u32,
    parked: u32,
}

#[derive(Clone, Copy)]
struct Hold {
    claimed_at: Timestamp,
    until: Timestamp,
    noted: u64,
}

impl History {
    fn claimed(&mut self, claimed: &Claimed) {
        self.steps += 1;
        for run in &claimed.runs {
            let hold = Hold { claimed_at: run.claimed_at, until: run.lease_until, noted: self.steps };
            for entry in claimed.entries_of(run) {
                let Content::Message(message) = &entry.content else { panic!("a record became unreadable") };
                let twice = self.messages.entry(message.id()).or_default().insert(run.token.fence, hold);
                assert!(twice.is_none(), "{} was claimed twice under one fence", message.id());
                if let Some(key) = message.key() {
                    self.keys.entry(key.to_string()).or_default().insert(run.token.fence, hold);
                }
            }
        }
    }

    /// How many claims took over from one that had expired. Two holders are only ever one after the other: the first one's lease
    /// had run out, or its settlement had been asked for.
    fn takeovers(&self) -> u32 {
        let mut expired = 0;
        for (of, holds) in self
            .keys
            .iter()
            .map(|(key, holds)| (key.clone(), holds))
            .chain(self.messages.iter().map(|(id, holds)| (id.to_string(), holds)))
        {
            for ((fence, hold), (next_fence, next)) in holds.iter().zip(holds.iter().skip(1)) {
                let asked = self.asked.get(fence).is_some_and(|asked| *asked < next.noted);
                let ran_out = next.claimed_at >= hold.until;
                assert!(asked || ran_out, "{of} was held under {fence} when {next_fence} claimed it");
                expired += u32::from(ran_out);
            }
        }
        expired
    }

    fn check(&self, enqueued: &BTreeMap<String, Vec<MessageId>>) {
        for (id, fence) in &self.ended {
            let last = self.messages[id].keys().next_back();
            assert_eq!(last, Some(fence), "{id} was claimed after its end");
        }
        for (key, delivered) in &self.delivered {
            let mut wanted = enqueued[key].iter();
            // Those that were buried are left out; the others come in the order of their commits.
            assert!(
                delivered.values().all(|id| wanted.any(|wanted| wanted == id)),
                "{key} was delivered as {delivered:?}, enqueued as {:?}",
                enqueued[key]
            );
        }
    }
}

/// Small, fast and seeded (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// How messages come and fail.
#[derive(Clone, Copy)]
struct Manner {
    /// How many messages come and are claimed, as a multiple.
    many: u64,
    /// How rarely one fails, as a multiple.
    calm: u64,
}

/// Short runs, and something in most of them fails.
const ROUGH: Manner = Manner { many: 1, calm: 1 };
/// Runs so long that they are read after they were leased, which needs that no key is parked.
const CALM: Manner = Manner { many: 20, calm: 500 };

struct Holder {
    outbox: RedisStorage,
    clock: TestClock,
    random: Random,
    manner: Manner,
    /// Runs that this relay forgot, and settles when it comes back.
    zombies: Vec<Claimed>,
}

impl Holder {
    /// One claim and what becomes of it. The calls race with other relays; the checks are by the store's own times.
    async fn turn(&mut self, history: &Mutex<History>) {
        let nonce = Nonce::from_words(self.random.next(), self.random.next());
        let limit = u32::try_from(1 + self.random.below(40 * self.manner.many)).unwrap();
        let mut claim = Claim { limit, lease: LEASE, nonce, solo: false };
        let mut claimed = self.claim(claim, history).await;
        if claimed.runs.is_empty() && claimed.suspects > 0 {
            claim.solo = true;
            claim.nonce = Nonce::from_words(self.random.next(), self.random.next());
            claimed = self.claim(claim, history).await;
        }
        if claimed.runs.is_empty() {
            self.clock.advance(Duration::from_secs(self.random.below(4)));
            return;
        }
        match self.random.below(20) {
            // It dies, and comes back one day.
            0 => {
                self.clock.advance(LEASE / 2);
                self.zombies.push(claimed);
            }
            // Its answer was lost: the claim is repeated and answers the same.
            1 => {
                let again = self.outbox.claim(claim).await.unwrap();
                if again.now < claimed.runs[0].lease_until {
                    let tokens =
                        |claimed: &Claimed| claimed.runs.iter().map(|run| run.token).collect::<HashSet<_>>();
                    assert_eq!(tokens(&again), tokens(&claimed));
                }
                self.zombies.push(claimed);
            }
            2 => {
                if let Some(zombie) = self.zombies.pop() {
                    self.settle(&zombie, history).await;
                }
                self.settle(&claimed, history).await;
            }
            _ => self.settle(&claimed, history).await,
        }
    }

    async fn claim(&self, claim: Claim, history: &Mutex<History>) -> Claimed {
        let claimed = self.outbox.claim(claim).await.unwrap();
        assert!(claimed.entries.len() <= claim.limit as usize);
        assert_eq!(claimed.buried, 0);
        history.lock().unwrap().claimed(&claimed);
        claimed
    }

    async fn settle(&mut self, claimed: &Claimed, history: &Mutex<History>) {
        let mut call = Settlements::new();
        let mut verdicts_of = Vec::new();
        for run in &claimed.runs {
            let verdicts = self.verdicts(claimed, run);
            match &verdicts {
                Some(verdicts) => call.verdicts(run.token, verdicts.iter().cloned()),
                None => call.hand_back(run.token, Duration::from_secs(self.random.below(3))),
            }
            verdicts_of.push(verdicts);
        }
        {
            let mut history = history.lock().unwrap();
            history.steps += 1;
            let now = history.steps;
            for run in &claimed.runs {
                history.asked.entry(run.token.fence).or_insert(now);
            }
        }
        let answers = self.outbox.settle(&call).await.unwrap();
        let mut history = history.lock().unwrap();
        for ((run, answer), verdicts) in claimed.runs.iter().zip(answers).zip(verdicts_of) {
            if answer.outcome != Outcome::Applied {
                history.fenced += 1;
                continue;
            }
            let fence = run.token.fence;
            for (at, entry) in claimed.entries_of(run).iter().enumerate() {
                let Content::Message(message) = &entry.content else { continue };
                match verdicts.as_ref().map(|verdicts| &verdicts[at]) {
                    Some(Verdict::Published) => {
                        history.ended.insert(message.id(), fence);
                        if let Some(key) = message.key() {
                            let of_key = history.delivered.entry(key.to_string()).or_default();
                            of_key.insert((fence, at), message.id());
                        }
                    }
                    Some(Verdict::Bury { .. }) => {
                        history.ended.insert(message.id(), fence);
                    }
                    Some(Verdict::Retry { .. }) => history.parked += 1,
                    _ => {}
                }
            }
        }
    }

    fn verdicts(&mut self, claimed: &Claimed, run: &pillarbox_core::Run) -> Option<Vec<Verdict>> {
        if self.random.below(20) == 0 {
            return None;
        }
        let mut stopped = HashSet::new();
        let mut verdicts = Vec::new();
        for entry in claimed.entries_of(run) {
            let Content::Message(message) = &entry.content else { return None };
            let key = message.key().map(ToString::to_string);
            let after = Duration::from_secs(self.random.below(4));
            let verdict = match self.random.below(100 * self.manner.calm) {
                _ if key.as_ref().is_some_and(|key| stopped.contains(key)) => Verdict::Release { after },
                0..10 => Verdict::Retry { after, error: Text::from("no") },
                10..14 => Verdict::Release { after },
                14 => Verdict::Bury { reason: Text::from("given up") },
                _ => Verdict::Published,
            };
            if verdict != Verdict::Published
                && let Some(key) = key
            {
                stopped.insert(key);
            }
            verdicts.push(verdict);
        }
        Some(verdicts)
    }
}

/// Few lanes and few keys, so that everything meets; a clock that relays push on while they work.
async fn attack(seed: u64, lanes: u16, relays: u64, keys: u64, policy: HeadPolicy, manner: Manner) -> Wounds {
    let clock = TestClock::new();
    let config = config(&clock).lanes(lanes).head_policy(policy).max_strikes(1_000_000);
    let producer = RedisStorage::connect(config.clone()).await.unwrap();
    let history = Arc::new(Mutex::new(History::default()));
    let mut random = Random(seed);
    let mut enqueued: BTreeMap<String, Vec<MessageId>> = BTreeMap::new();
    let mut all = HashSet::new();
    let mut holders = Vec::new();
    for relay in 0..relays {
        let outbox = RedisStorage::connect(config.clone()).await.unwrap();
        let (clock, random) = (clock.clone(), Random(seed ^ (relay + 1) << 32));
        holders.push(Holder { outbox, clock, random, manner, zombies: Vec::new() });
    }
    for _ in 0..40 {
        let messages: Vec<_> = (0..random.below(30 * manner.many))
            .map(|_| match random.below(4) {
                0 => message(None),
                _ => message(Some(&format!("key-{}", random.below(keys)))),
            })
            .collect();
        for message in &messages {
            all.insert(message.id());
            if let Some(key) = message.key() {
                enqueued.entry(key.to_string()).or_default().push(message.id());
            }
        }
        producer.enqueue_alone(&messages).await.unwrap();
        // One turn of each relay, all at once on connections of their own.
        let turns = holders.iter_mut().map(|holder| holder.turn(&history));
        futures_util::future::join_all(turns).await;
    }
    // Everybody dies but one, which delivers what is left.
    let mut last = holders.swap_remove(0);
    let zombies: Vec<_> = holders.into_iter().flat_map(|holder| holder.zombies).collect();
    clock.advance(LEASE * 3);
    let mut idle = 0;
    while idle < 5 {
        let before = history.lock().unwrap().ended.len();
        for _ in 0..20 {
            last.turn(&history).await;
        }
        idle = if history.lock().unwrap().ended.len() == before { idle + 1 } else { 0 };
        if idle > 0 {
            if policy == HeadPolicy::Block {
                let discarded =
                    last.outbox.admin().unwrap().discard(pillarbox_core::Filter::all(), 1_000, false);
                discarded.await.unwrap();
            }
            clock.advance(LEASE * 3);
        }
    }
    for zombie in zombies {
        last.settle(&zombie, &history).await;
    }
    // Nothing is left behind in any of the indexes.
    let stats = last.outbox.admin().unwrap().stats().await.unwrap();
    assert_eq!((stats.pending, stats.scheduled, stats.claimed), (0, 0, 0));
    last.outbox.admin().unwrap().discard(pillarbox_core::Filter::all(), 100_000, false).await.unwrap();
    let pattern = format!("{{{}}}:*", last.outbox.name());
    let mut keys: Vec<String> =
        redis::cmd("KEYS").arg(pattern).query_async(&mut connection(server()).await).await.unwrap();
    keys.retain(|key| {
        !["settings", "state", "ended", "ended:order"].iter().any(|known| key.ends_with(known))
    });
    assert_eq!(keys, [""; 0]);
    let history = history.lock().unwrap();
    let missing = all.iter().filter(|id| !history.ended.contains_key(*id)).count();
    assert_eq!(missing, 0, "of {} never ended", all.len());
    history.check(&enqueued);
    Wounds { takeovers: history.takeovers(), fenced: history.fenced, parked: history.parked }
}

/// What happened in an attack: without these it would prove nothing.
#[derive(Default)]
struct Wounds {
    takeovers: u32,
    fenced: u32,
    parked: u32,
}

impl Wounds {
    fn add(&mut self, other: &Self) {
        self.takeovers += other.takeovers;
        self.fenced += other.fenced;
        self.parked += other.parked;
    }

    fn check(&self) {
        assert!(self.takeovers > 0 && self.fenced > 0 && self.parked > 0, "the attack was none");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_fail_in_every_way_lose_and_reorder_nothing() {
    let mut wounds = Wounds::default();
    for seed in 0..12 {
        let lanes = 1 + u16::try_from(seed % 4).unwrap();
        wounds.add(&attack(seed, lanes, 2 + seed % 4, 1 + seed % 7, HeadPolicy::Continue, ROUGH).await);
    }
    wounds.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_fail_under_block_lose_and_reorder_nothing() {
    let mut wounds = Wounds::default();
    for seed in 100..106 {
        let lanes = 1 + u16::try_from(seed % 3).unwrap();
        wounds.add(&attack(seed, lanes, 3, 2 + seed % 5, HeadPolicy::Block, ROUGH).await);
    }
    wounds.check();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_lose_long_runs_lose_and_reorder_nothing() {
    let mut wounds = Wounds::default();
    for seed in 200..206 {
        let lanes = 1 + u16::try_from(seed % 3).unwrap();
        wounds.add(&attack(seed, lanes, 3, 5, HeadPolicy::Continue, CALM).await);
    }
    wounds.check();
}
