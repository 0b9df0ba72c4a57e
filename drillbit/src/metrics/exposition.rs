//! Families and their samples as text; the encoder is that of `prometheus-client`.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use rpc_bus::Histogram;

use super::{
    Snapshot,
    families::{Family, Kind},
};

/// The text of one scrape.
pub(super) fn text(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.expose(&mut Exposition(encoder))
    }
}

/// Takes one family after the other.
pub(super) struct Exposition<'a>(DescriptorEncoder<'a>);

impl Exposition<'_> {
    /// Begins a family; its samples follow.
    pub(super) fn family<'s>(&'s mut self, family: &'s Family) -> Result<Samples<'s>, fmt::Error> {
        let (name, kind) = match family.kind {
            // The encoder adds the suffix to the samples by itself.
            Kind::Counter => (family.name.trim_end_matches("_total"), MetricType::Counter),
            Kind::Gauge => (family.name, MetricType::Gauge),
            Kind::Histogram => (family.name, MetricType::Histogram),
        };
        let encoder = self.0.encode_descriptor(name, family.help, None, kind)?;
        Ok(Samples { family, encoder })
    }
}

/// Takes the samples of one family.
pub(super) struct Samples<'a> {
    family: &'a Family,
    encoder: MetricEncoder<'a>,
}

impl Samples<'_> {
    /// A whole number, with the values of the family's labels in their order.
    pub(super) fn number(&mut self, labels: &[&str], value: u64) -> fmt::Result {
        let (kind, labels) = (self.family.kind, self.labelled(labels));
        // Without labels there are no braces.
        if labels.is_empty() {
            return write_number(&mut self.encoder, kind, value);
        }
        write_number(&mut self.encoder.encode_family(&labels)?, kind, value)
    }

    /// A number with a fraction, with the values of the family's labels in their order.
    pub(super) fn fraction(&mut self, labels: &[&str], value: f64) -> fmt::Result {
        let (kind, labels) = (self.family.kind, self.labelled(labels));
        if labels.is_empty() {
            return write_fraction(&mut self.encoder, kind, value);
        }
        write_fraction(&mut self.encoder.encode_family(&labels)?, kind, value)
    }

    /// A histogram, with the values of the family's labels in their order.
    pub(super) fn times(&mut self, labels: &[&str], times: &Histogram) -> fmt::Result {
        let labels = self.labelled(labels);
        let bounds = times.bounds_s.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(times.counts.iter().copied()).collect();
        self.encoder
            .encode_family(&labels)?
            .encode_histogram::<NoLabelSet>(times.sum_s, times.count, &buckets, None)
    }

    fn labelled<'v>(&self, values: &[&'v str]) -> Vec<(&'static str, &'v str)> {
        debug_assert_eq!(values.len(), self.family.labels.len(), "{:?}", self.family);
        let names = self.family.labels.iter().copied();
        names.zip(values.iter().copied()).collect()
    }
}

fn write_fraction(encoder: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> fmt::Result {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        Kind::Gauge | Kind::Histogram => encoder.encode_gauge(&value),
    }
}

fn write_number(encoder: &mut MetricEncoder<'_>, kind: Kind, value: u64) -> fmt::Result {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None),
        Kind::Gauge | Kind::Histogram => encoder.encode_gauge(&value),
    }
}
