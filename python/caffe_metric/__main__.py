"""`python -m caffe_metric` is `caffe-metric`."""

from __future__ import annotations

import sys

from caffe_metric.commands import main

if __name__ == "__main__":
    sys.exit(main())
