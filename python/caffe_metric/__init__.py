"""Metric-learning layers for Caffe 1.0, and the tools around them."""

__version__ = "0.1.0"
