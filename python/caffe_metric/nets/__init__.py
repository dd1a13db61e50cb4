"""Nets as protobuf messages: which layers run, which of them a blob needs."""
