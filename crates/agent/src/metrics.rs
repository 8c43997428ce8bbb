//! Figures for Prometheus, on a loopback port.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tombolo_abi::Outcome;

use crate::endpoints::Endpoints;

/// An operation and its result.
type Labels = [(&'static str, &'static str); 2];

/// What the agent counts itself.
#[derive(Debug)]
pub struct Metrics {
    /// What a round of the control loop could not do.
    pub reconcile_errors: Counter,
    /// Services that are known.
    pub services: Gauge,
    /// Those of which not all is programmed as somebody wants it.
    pub troubled_services: Gauge,
    /// How long it took until the kernel had what was told of Services, in seconds.
    pub services_round: Histogram,
    operations: Family<Labels, Histogram>,
}

impl Metrics {
    /// Nothing is counted yet.
    pub fn new() -> Self {
        // From half a millisecond to eight seconds.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 2.0, 15));
        Self {
            reconcile_errors: Counter::default(),
            services: Gauge::default(),
            troubled_services: Gauge::default(),
            // From an eighth of a millisecond to four seconds.
            services_round: Histogram::new(exponential_buckets(0.000_125, 2.0, 16)),
            operations: Family::new_with_constructor(histogram),
        }
    }

    /// Notes how long an ADD or DEL took that began at `start`.
    pub fn operation(&self, name: &'static str, start: Instant, ok: bool) {
        let labels = [("operation", name), ("result", if ok { "ok" } else { "error" })];
        self.operations
            .get_or_create(&labels)
            .observe(start.elapsed().as_secs_f64());
    }
}

/// What is read from the kernel and the store whenever somebody asks.
struct Node(Arc<Endpoints>);

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Node")
    }
}

impl Collector for Node {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counters = self.0.datapath.counters().unwrap_or_default();
        for (name, help, drops) in [
            ("tombolo_drops", "Packets dropped, by program and reason", true),
            (
                "tombolo_packets",
                "Packets that passed, by program and outcome",
                false,
            ),
        ] {
            let label = if drops { "reason" } else { "outcome" };
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (hook, outcome, counter) in counters
                .iter()
                .filter(|(_, o, _): &&(_, Outcome, _)| o.is_drop() == drops)
            {
                let labels = [("hook", hook.word()), (label, outcome.word())];
                ConstCounter::new(counter.packets).encode(family.encode_family(&labels)?)?;
            }
        }
        let endpoints = self.0.store.attachments().map_or(0, |a| a.len());
        let gauge = encoder.encode_descriptor(
            "tombolo_endpoints",
            "Endpoints of this node",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(endpoints as i64).encode(gauge)?;
        let help = "Addresses of this node's blocks, by state";
        let mut family = encoder.encode_descriptor("tombolo_addresses", help, None, MetricType::Gauge)?;
        for usage in self.0.store.usage().unwrap_or_default() {
            let block = usage.block.to_string();
            for (state, count) in [
                ("used", usage.used),
                ("resting", usage.resting),
                ("free", usage.free),
            ] {
                let labels = [("block", block.as_str()), ("state", state)];
                ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
                    .encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Serves `/metrics`.
pub fn router(metrics: &Metrics, endpoints: Arc<Endpoints>) -> Router {
    let mut registry = Registry::default();
    let (errors, help) = (
        metrics.reconcile_errors.clone(),
        "What could not be made as it should be",
    );
    registry.register("tombolo_reconcile_errors", help, errors);
    for (name, help, gauge) in [
        ("tombolo_services", "Services of the cluster", &metrics.services),
        (
            "tombolo_services_troubled",
            "Services of which something could not be programmed; the log says what",
            &metrics.troubled_services,
        ),
    ] {
        registry.register(name, help, gauge.clone());
    }
    let help = "How long it took until the kernel had what was told of Services, in seconds";
    registry.register(
        "tombolo_services_round_seconds",
        help,
        metrics.services_round.clone(),
    );
    let help = "How long ADD and DEL took in the agent, in seconds";
    registry.register("tombolo_operation_seconds", help, metrics.operations.clone());
    registry.register_collector(Box::new(Node(endpoints)));
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(Arc::new(registry))
}

async fn scrape(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], text.await.unwrap_or_default())
}
