"""Nets of stock layers only."""
