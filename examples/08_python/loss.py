"""A loss on arrays: its value, and its gradient by the features. Needs NumPy only."""

import caffe_metric as cm
import numpy as np

x, labels = np.random.default_rng(0).normal(size=(32, 8)), np.arange(32) // 4
loss = cm.TripletLoss(margin=0.2, mining="SEMIHARD")
value, gradient = loss(x, labels, seed=1)
print(f"{loss}: {value:.4f}, a step against the gradient", end=" ")
print(f"makes it {loss(x - gradient, labels, seed=1)[0]:.4f}")
