"""Images with identities: where they come from, in which order, and how Caffe reads them."""
