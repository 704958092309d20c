//! [`Registry`]: the metrics of one server: name, explanation, and how to read the number.
//!
//! Names follow Prometheus' conventions: `cairn_`, the process, what is counted, the base unit, and
//! `_total` for what only grows (added here). Labels have few values, fixed or bounded by
//! configuration.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry,
};

use super::{
    classic, latency,
    latency::{BOUNDS_US, Distribution},
    process,
};

/// A number of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count, or bytes.
    Whole(u64),
    /// Seconds.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(u64::from(value))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// Label names and values of one number of several.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// Takes the numbers of a metric one after the other.
pub struct Samples<'a> {
    encoder: MetricEncoder<'a>,
    kind: Kind,
    result: fmt::Result,
}

impl Samples<'_> {
    /// A counter or a gauge.
    pub fn put(&mut self, labels: Labels<'_>, value: impl Into<Value>) {
        let value = value.into();
        self.encode(labels, |kind, encoder| match (kind, value) {
            (Kind::Counter, Value::Whole(v)) => {
                encoder.encode_counter::<NoLabelSet, _, f64>(&v, None)
            }
            (Kind::Counter, Value::Real(v)) => {
                encoder.encode_counter::<NoLabelSet, _, f64>(&v, None)
            }
            (Kind::Gauge, Value::Whole(v)) => encoder.encode_gauge(&v),
            (Kind::Gauge, Value::Real(v)) => encoder.encode_gauge(&v),
            (Kind::Latency, _) => Err(fmt::Error),
        });
    }

    /// A distribution of latencies.
    pub fn put_latency(&mut self, labels: Labels<'_>, latency: &latency::Latency) {
        let Distribution { buckets, nanos } = latency.snapshot();
        let seconds = |us: u64| us as f64 / 1e6;
        let bounds = BOUNDS_US.into_iter().map(seconds).chain([f64::INFINITY]);
        let count = buckets.iter().sum();
        let buckets: Vec<_> = bounds.zip(buckets).collect();
        let sum = nanos as f64 / 1e9;
        self.encode(labels, |kind, encoder| match kind {
            Kind::Latency => encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None),
            Kind::Counter | Kind::Gauge => Err(fmt::Error),
        });
    }

    fn encode(
        &mut self,
        labels: Labels<'_>,
        encode: impl FnOnce(Kind, &mut MetricEncoder<'_>) -> fmt::Result,
    ) {
        let kind = self.kind;
        let result = match labels {
            [] => encode(kind, &mut self.encoder),
            _ => self.encoder.encode_family(&labels).and_then(|mut e| encode(kind, &mut e)),
        };
        self.result = self.result.and(result);
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Counter,
    Gauge,
    Latency,
}

struct Reading<F> {
    kind: Kind,
    read: F,
}

impl<F> fmt::Debug for Reading<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reading({:?})", self.kind)
    }
}

impl<F: Fn(&mut Samples<'_>)> EncodeMetric for Reading<F> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        let mut samples = Samples { encoder, kind: self.kind, result: Ok(()) };
        (self.read)(&mut samples);
        samples.result
    }

    fn metric_type(&self) -> MetricType {
        match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Latency => MetricType::Histogram,
        }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Registry {
    metrics: registry::Registry,
}

impl Registry {
    /// The metrics that every process has; `version` is that of the program.
    pub fn new(version: &'static str) -> Self {
        let mut new = Self { metrics: registry::Registry::default() };
        new.gauges(
            "cairn_build_info",
            "The running release, as a label of the number 1",
            move |s| {
                s.put(&[("version", version)], 1_u64);
            },
        );
        process::register(&mut new);
        new
    }

    /// A number that only grows; `name` without `_total`.
    pub fn counter<V: Into<Value>>(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn() -> V + Send + Sync + 'static,
    ) {
        self.counters(name, help, move |samples| samples.put(&[], read()));
    }

    /// Several numbers that only grow; `name` without `_total`.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn(&mut Samples<'_>) + Send + Sync + 'static,
    ) {
        self.register(Kind::Counter, name, help, read);
    }

    /// A number that grows and falls.
    pub fn gauge<V: Into<Value>>(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn() -> V + Send + Sync + 'static,
    ) {
        self.gauges(name, help, move |samples| samples.put(&[], read()));
    }

    /// Several numbers that grow and fall.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn(&mut Samples<'_>) + Send + Sync + 'static,
    ) {
        self.register(Kind::Gauge, name, help, read);
    }

    /// How often and how long; `name` ends with `_seconds`.
    pub fn latencies(
        &mut self,
        name: &str,
        help: &str,
        read: impl Fn(&mut Samples<'_>) + Send + Sync + 'static,
    ) {
        self.register(Kind::Latency, name, help, read);
    }

    fn register(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        read: impl Fn(&mut Samples<'_>) + Send + Sync + 'static,
    ) {
        self.metrics.register(name, help, Reading { kind, read });
    }

    /// Everything, in the OpenMetrics text format.
    pub fn open_metrics(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.metrics)
            .expect("a string takes everything, and every reading puts numbers of its own kind");
        text
    }

    /// Everything, in the classic text format.
    pub fn classic(&self) -> String {
        classic::from_open_metrics(&self.open_metrics())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[test]
    fn two_registries_share_nothing_and_read_when_asked() {
        let latency = Arc::new(latency::Latency::default());
        let mut one = Registry::new("1.2.3");
        let read = Arc::clone(&latency);
        one.latencies("cairn_wait_seconds", "Waits", move |s| {
            s.put_latency(&[("operation", "read")], &read);
        });
        one.counters("cairn_things", "Things", |s| {
            s.put(&[("disk", "/a \"b\"\\c\nd")], 7_u64);
        });
        let other = Registry::new("1.2.3");
        latency.record(Duration::from_millis(1500));
        let text = one.open_metrics();
        assert!(text.contains("cairn_build_info{version=\"1.2.3\"} 1\n"), "{text}");
        assert!(text.contains("cairn_wait_seconds_sum{operation=\"read\"} 1.5\n"), "{text}");
        assert!(text.contains("{le=\"1.0\",operation=\"read\"} 0\n"), "{text}");
        assert!(text.contains("{le=\"2.0\",operation=\"read\"} 1\n"), "{text}");
        assert!(text.contains("{le=\"+Inf\",operation=\"read\"} 1\n"), "{text}");
        assert!(text.contains(r#"cairn_things_total{disk="/a \"b\"\\c\nd"} 7"#), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(!other.open_metrics().contains("cairn_wait"));
    }
}
