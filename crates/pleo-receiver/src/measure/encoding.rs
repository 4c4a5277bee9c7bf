//! Encodes histograms.

use core::fmt;
use core::ops::Deref;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::histogram::{Distribution, Histogram, Scale};

/// A histogram that is encoded when the metrics are read.
#[derive(Clone, Debug)]
pub(super) struct SharedHistogram(Arc<Histogram>);

impl SharedHistogram {
    pub(super) fn new(scale: &'static Scale) -> Self {
        Self(Arc::new(Histogram::new(scale)))
    }
}

impl Deref for SharedHistogram {
    type Target = Histogram;

    fn deref(&self) -> &Histogram {
        &self.0
    }
}

impl TypedMetric for SharedHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for SharedHistogram {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        EncodedDistribution(self.distribution()).encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A distribution that a store measured.
#[derive(Clone, Debug)]
pub(super) struct EncodedDistribution(pub(super) Distribution);

impl EncodeMetric for EncodedDistribution {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let Distribution { buckets, sum } = &self.0;
        encoder.encode_histogram::<NoLabelSet>(*sum, self.0.count(), buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
