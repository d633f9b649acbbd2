//! `/health`, `/ready` and `/metrics`.

use crate::failure::Failure;
use crate::health::{Health, State};
use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use pillarbox::{AnyStorage, Storage as _};
use serde_json::json;
use std::time::Duration;
use tokio::net::TcpListener;

/// How often samples are summed up while nobody asks for them; between two sums they are kept one by one.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long counting what is stored may take before a page goes out without it: scrapers give up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// From half a millisecond, which a store on the same machine takes, to the default limit of a publish.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The recorder of the process.
#[derive(Clone)]
pub(crate) struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs it. Whatever is counted has to be made afterwards.
    pub(crate) fn install() -> Result<Self, Failure> {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .map_err(|error| Failure::failed(format!("cannot set up metrics: {error}")))?;
        let recorder = builder
            .install_recorder()
            .map_err(|error| Failure::failed(format!("cannot install metrics: {error}")))?;
        Ok(Self(recorder))
    }
}

/// What is served.
#[derive(Clone)]
pub(crate) struct Page {
    health: Health,
    metrics: Metrics,
    storage: AnyStorage,
}

impl Page {
    pub(crate) fn new(health: Health, metrics: Metrics, storage: AnyStorage) -> Self {
        Self { health, metrics, storage }
    }

    /// Serves until something fails, and answers what.
    pub(crate) async fn serve(self, listener: TcpListener) -> Failure {
        let recorder = self.metrics.0.clone();
        let router = Router::new()
            .route("/health", get(health))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self);
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                recorder.run_upkeep();
            }
        };
        tokio::select! {
            outcome = axum::serve(listener, router) => match outcome {
                Ok(()) => Failure::failed("health and metrics are not served any more"),
                Err(error) => Failure::system("serve health and metrics", &error),
            },
            () = upkeep => Failure::failed("metrics are not summed up any more"),
        }
    }
}

/// Whether the relay lives. An outage of the store or the broker is no reason to restart it, so it answers 200 all the same.
async fn health(Shared(page): Shared<Page>) -> impl IntoResponse {
    answer(StatusCode::OK, &page.health.state())
}

/// Whether messages flow: 503 while the store or a destination is away, and while it drains.
async fn ready(Shared(page): Shared<Page>) -> impl IntoResponse {
    let state = page.health.state();
    let status = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, &state)
}

fn answer(status: StatusCode, state: &State) -> impl IntoResponse + use<> {
    let body = json!({
        "status": if state.is_stopping { "stopping" } else if state.is_ready() { "ok" } else { "degraded" },
        "store": if state.is_store_down { "down" } else { "up" },
        "paused_destinations": state.paused,
    });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

async fn metrics(Shared(page): Shared<Page>) -> impl IntoResponse {
    count_stored(&page.storage).await;
    page.metrics.0.run_upkeep();
    let text = page.metrics.0.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Asks the store how much waits. While it does not answer, the gauges are not a number, rather than what they were.
async fn count_stored(storage: &AnyStorage) {
    let Some(admin) = storage.admin() else { return };
    let stats = match tokio::time::timeout(PATIENCE, admin.stats()).await {
        Ok(Ok(stats)) => Some(stats),
        Ok(Err(_)) | Err(_) => None,
    };
    #[allow(clippy::cast_precision_loss, reason = "a gauge of 2^53 messages may be off by one")]
    let set = |state: &'static str, count: Option<u64>| {
        gauge!("pillarbox_stored_messages", "state" => state)
            .set(count.map_or(f64::NAN, |count| count as f64));
    };
    set("pending", stats.map(|stats| stats.pending));
    set("scheduled", stats.map(|stats| stats.scheduled));
    set("claimed", stats.map(|stats| stats.claimed));
    set("dead", stats.map(|stats| stats.dead));
    let age = stats.map_or(f64::NAN, |stats| stats.oldest_due_age.unwrap_or_default().as_secs_f64());
    gauge!("pillarbox_oldest_due_age_seconds").set(age);
}
