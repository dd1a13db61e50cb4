"""Naive loops in float64 of the formulas, a module a layer. They import nothing of the project."""
