"""`./run demo`: three losses trained on real images, measured, and shown.

Fashion-MNIST, classes 2, 5 and 8 kept out of training; one net for each loss, and a softmax as
their baseline, trained by the `caffe` tool from the solver files in examples/; a table,
build/demo/summary.json and build/demo/report.html.
"""
