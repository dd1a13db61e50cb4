"""Measures the speed and memory promises of the project: `python -m benchmarks`.

A case (benchmarks/cases) runs in a child process of its own, where it times our layer and its
peers in turn, and gives rows of a table. What it measures against which peer, and why, is in
docs/speed.md.
"""
