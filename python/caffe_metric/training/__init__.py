"""Running `caffe train` in a child process, and reading what it says."""
