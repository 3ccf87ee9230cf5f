//! Series that exist as long as somebody holds their handle.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The names and values of a series' labels.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];

/// The live series of one kind, by their labels. A series lives as long as a handle to it: when a
/// partition moves away its task is dropped, and with it the series.
#[derive(Debug)]
pub(super) struct Live<const N: usize, S>(Mutex<BTreeMap<Labels<N>, Weak<S>>>);

impl<const N: usize, S> Default for Live<N, S> {
    fn default() -> Self {
        Live(Mutex::new(BTreeMap::new()))
    }
}

/// What is written at a scrape: the living series of one kind.
pub(super) type Snapshot<const N: usize, S> = Vec<(Labels<N>, Arc<S>)>;

impl<const N: usize, S> Live<N, S> {
    /// The series with these labels: the living one (a partition that moves between two workers of a
    /// process has two holders for a moment), or a new one.
    pub(super) fn get(&self, labels: Labels<N>, new: impl FnOnce() -> S) -> Arc<S> {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(living) = series.get(&labels).and_then(Weak::upgrade) {
            return living;
        }
        let created = Arc::new(new());
        series.insert(labels, Arc::downgrade(&created));
        created
    }

    /// All living ones, in the order of their labels. Forgets the others.
    pub(super) fn all(&self) -> Snapshot<N, S> {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        series.retain(|_, series| series.strong_count() > 0);
        series.iter().filter_map(|(labels, series)| Some((labels.clone(), series.upgrade()?))).collect()
    }
}

/// A gauge that shows nothing until it is known.
#[derive(Debug)]
pub(super) struct Known(AtomicI64);

impl Known {
    /// No offset or size has this value, and a watermark has it as long as it is unknown.
    const NOTHING: i64 = i64::MIN;

    pub(super) fn not_yet() -> Known {
        Known(AtomicI64::new(Self::NOTHING))
    }

    pub(super) fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<i64> {
        match self.0.load(Ordering::Relaxed) {
            Self::NOTHING => None,
            value => Some(value),
        }
    }
}

/// Writes a gauge for each series that has a value.
pub(super) fn encode_gauges<const N: usize, S, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: &Snapshot<N, S>,
    value: impl Fn(&S) -> Option<V>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, series) in series {
        if let Some(value) = value(series) {
            ConstGauge::new(value).encode(metric.encode_family(labels)?)?;
        }
    }
    Ok(())
}

/// Writes a counter for each series. `name` is without the `_total` that a counter's name ends with.
pub(super) fn encode_counters<const N: usize, S, V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: &Snapshot<N, S>,
    value: impl Fn(&S) -> V,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, series) in series {
        ConstCounter::new(value(series)).encode(metric.encode_family(labels)?)?;
    }
    Ok(())
}
