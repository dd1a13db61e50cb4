"""Is a gradient right? Central differences against the backward pass."""
