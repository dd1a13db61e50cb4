"""Beyond one machine, on MPI: data-parallel training by `mpirun -n R caffe-metric train`.

    world      the processes that mpirun started together, as the environment tells it
    ranks      what they exchange: every wait has an end, every sum an order
    loop       the training loop of a rank
    merging    what layers change in their own blobs, made the same on all ranks
    agreement  whether the ranks train the same thing, and still have the same weights
    dealing    which rank reads what

A start without mpirun is a world of one rank, which needs no MPI.
"""
