use crate::address::shown;
use crate::arguments::{OWN_VARIABLES, RelayArguments, RelaySettings};
use crate::connect;
use crate::failure::Failure;
use crate::health::Health;
use crate::http::{Metrics, Page};
use crate::routes;
use crate::say;
use crate::signals::Signals;
use pillarbox::{
    CountingObserver, DEFAULT_PREFIX, MetricsObserver, Observers, Relay, RelayConfig, TokioTimer,
    TracingObserver,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Relays until a signal, then drains.
pub(crate) async fn run(arguments: RelayArguments) -> Result<(), Failure> {
    let config = configured(&arguments.settings)?;
    let mut signals = Signals::listen()?;
    let listener = match arguments.listen {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .map_err(|error| Failure::system(&format!("listen at {address} (`--listen`)"), &error))?,
        ),
        None => None,
    };
    let (health, counting) = (Health::default(), CountingObserver::new());
    let mut observers =
        Observers::new().with(TracingObserver::new()).with(health.clone()).with(counting.clone());
    let metrics = if listener.is_some() {
        let metrics = Metrics::install()?;
        observers = observers.with(MetricsObserver::new());
        Some(metrics)
    } else {
        None
    };

    let opening = async {
        let storage = connect::storage(&arguments.storage).await?.storage;
        Ok::<_, Failure>((storage, routes::transport(&arguments).await?))
    };
    // A server that does not answer is waited for, but not against a signal.
    let (storage, transport) = tokio::select! {
        opened = opening => opened?,
        _ = signals.next() => {
            say::tell("stopped before it was connected; it held nothing");
            return Ok(());
        }
    };
    let serving = async {
        match (listener, metrics) {
            (Some(listener), Some(metrics)) => {
                Page::new(health.clone(), metrics, storage.clone()).serve(listener).await
            }
            _ => std::future::pending().await,
        }
    };
    tell_what_it_does(&arguments, &config);

    let relay = Relay::new(storage.clone(), transport, config)?.timer(TokioTimer::new()).observer(observers);
    let (stop, stopped) = oneshot::channel::<()>();
    let relaying = relay.run(async {
        // Nothing is sent: that the other half is gone is the signal.
        let _ = stopped.await;
    });
    // A task of its own, so that a second signal ends the program even while a transport blocks its thread.
    tokio::spawn(async move {
        signals.next().await;
        drop(stop);
        tracing::info!("draining; a second signal ends it at once");
        let code = signals.next().await;
        say::tell("ended at once by a second signal; what was being sent may be sent again");
        std::process::exit(i32::from(code));
    });
    tokio::select! {
        outcome = relaying => outcome?,
        failure = serving => return Err(failure),
    }
    let counts = counting.counts();
    say::tell(format_args!(
        "stopped; published {}, retried {}, buried {}, gave back {}, lost leases of runs {}",
        counts.settled, counts.retried, counts.buried, counts.released, counts.fenced
    ));
    Ok(())
}

fn tell_what_it_does(arguments: &RelayArguments, config: &RelayConfig) {
    let (from, to) = (shown(&arguments.storage.storage), routes::shown(arguments));
    let at = arguments.listen.map(|address| format!("; health and metrics at http://{address}"));
    say::tell(format_args!("relaying from {from} to {to}{}", at.unwrap_or_default()));
    tracing::debug!(?config, "settings");
}

/// The settings: the environment's, and the arguments before them.
fn configured(settings: &RelaySettings) -> Result<RelayConfig, Failure> {
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.strip_prefix(DEFAULT_PREFIX)?.to_owned();
        Some((name, value.to_string_lossy().into_owned()))
    });
    let environment = environment.filter(|(name, _)| !OWN_VARIABLES.contains(&name.as_str()));
    let given = settings.variables();
    let overridden: Vec<_> = given.iter().map(|(name, _)| name.clone()).collect();
    let variables = environment.filter(|(name, _)| !overridden.contains(name)).chain(given);
    Ok(RelayConfig::from_variables(DEFAULT_PREFIX, variables)?)
}
