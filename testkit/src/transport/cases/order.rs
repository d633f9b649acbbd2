//! The order of messages that have a key.

use crate::transport::violation::{ORDER, PREFIX, ensure};
use crate::transport::world::{World, complete, name};
use crate::transport::{Received, TransportHarness, Trial, Violation};
use pillarbox_core::{Destination, Message, Outcomes, Transport as _};

/// Messages of one key that are published as a relay does, together with those of other keys, arrive in order: in one call
/// where the transport gives `prefix_per_key`, else one of each key per call.
///
/// # Errors
/// The violation.
pub async fn order_within_key_is_kept<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    let world = trial.world().await?;
    let keys = ["a", "b", "c", "d"];
    let mut rounds = Vec::new();
    for round in 0..25 {
        let of_round = keys.map(|key| world.message().key(key).payload(format!("{round}")));
        rounds.push(of_round.into_iter().collect::<Result<Vec<_>, _>>()?);
    }
    if world.transport.guarantees(Destination::ONLY).prefix_per_key {
        world.publish_all(&rounds.concat(), ORDER).await?;
    } else {
        for round in &rounds {
            world.publish_all(round, ORDER).await?;
        }
    }
    let received = world.received().await?;
    for (place, key) in keys.into_iter().enumerate() {
        let sent: Vec<_> = rounds.iter().map(|round| name(round[place].id())).collect();
        let arrived = of_key(&received, key);
        ensure!(
            arrived == sent,
            ORDER,
            format!("of the key `{key}`: {}", sent.join(" ")),
            "{}",
            arrived.join(" ")
        );
    }
    Ok(())
}

/// F12: with `prefix_per_key`, what is accepted of a key is a prefix of what was sent of it, wherever the publish is cut off.
///
/// # Errors
/// The violation.
pub async fn prefix_per_key<H: TransportHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    for polls in 0..64 {
        let world = trial.world().await?;
        let key = format!("cut-off-{polls}");
        let mut batch = Vec::new();
        for number in 0..40 {
            batch.push(world.message().key(key.clone()).payload(format!("{number}"))?);
        }
        let (outcomes, ended) = world.publish_for(&batch, polls).await;
        is_prefix(&world, &key, &batch, &outcomes).await?;
        if ended {
            break;
        }
    }
    if trial.abilities().unroutable {
        let world = trial.world().await?;
        let mut batch = Vec::new();
        for number in 0..9 {
            let message =
                if number == 4 { world.unroutable().await? } else { world.message().payload("x")? };
            let keyed = Message::given(message.id(), message.created_at(), message.topic().clone());
            batch.push(keyed.key("failed-in-the-middle").payload("x")?);
        }
        let outcomes = world.publish(&batch).await;
        complete(&batch, &outcomes)?;
        is_prefix(&world, "failed-in-the-middle", &batch, &outcomes).await?;
    }
    Ok(())
}

/// What arrived of the key, and what is `Ok`, is a prefix of the batch.
async fn is_prefix<H: TransportHarness>(
    world: &World<'_, H>,
    key: &str,
    batch: &[Message],
    outcomes: &Outcomes,
) -> Result<(), Violation> {
    let sent: Vec<_> = batch.iter().map(|message| name(message.id())).collect();
    let arrived = of_key(&world.received().await?, key);
    // A retry of the client may repeat, so that only first arrivals are compared.
    let mut first: Vec<String> = Vec::new();
    for name in arrived {
        if !first.contains(&name) {
            first.push(name);
        }
    }
    ensure!(
        sent.starts_with(&first),
        PREFIX,
        format!("a prefix of {}", sent.join(" ")),
        "{}",
        first.join(" ")
    );
    let is_ok = |index: &usize| matches!(outcomes.outcome(*index), Some(Ok(())));
    let confirmed: Vec<_> = (0..batch.len()).filter(is_ok).collect();
    ensure!(
        confirmed.iter().copied().eq(0..confirmed.len()),
        PREFIX,
        "the outcomes `Ok` at the beginning of the batch",
        "at the places {confirmed:?}"
    );
    Ok(())
}

fn of_key(received: &[Received], key: &str) -> Vec<String> {
    let of_key = received.iter().filter(|received| received.key.as_deref() == Some(key));
    of_key.map(|received| name(received.id)).collect()
}
