"""Scores of generated images: one file per metric, and the suite that feeds them together."""

from mmbench.metrics.base import Metric, Score
from mmbench.metrics.features import Extractor
from mmbench.metrics.suite import MetricSuite, build_suite

__all__ = ["Extractor", "Metric", "MetricSuite", "Score", "build_suite"]
