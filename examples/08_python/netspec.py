"""A net with the suite's layers, written by caffe.NetSpec. Needs Caffe, patched or not."""

import caffe_metric as cm

import caffe

n = caffe.NetSpec()
n.embedding, n.label = (caffe.layers.Input(shape={"dim": dim}) for dim in ([32, 8], [32]))
n.unit = cm.spec.Norm(n.embedding)
n.loss = cm.spec.TripletLoss(n.unit, n.label, margin=0.2, mining="SEMIHARD")
print(n.to_proto())
