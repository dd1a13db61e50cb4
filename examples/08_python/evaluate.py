"""How good are embeddings? Here those of scikit-learn's digits as they are."""

import caffe_metric as cm
from sklearn.datasets import load_digits

pixels, labels = load_digits(return_X_y=True)
report = cm.evaluate(pixels - 8, labels)
print(report)
print("as a dict:", report["verification"]["auc"])
