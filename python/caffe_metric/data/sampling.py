"""FaceNet's sampling of people and of triplets (Schroff et al. 2015), outside of a net.

The functions draw exactly as the published ones do: given a generator in the same state they return
the same result. The generator is an argument; without one it is NumPy's global one, as there.
"""

from __future__ import annotations

import numpy as np

STRATEGIES = ("vgg", "facenet")
# Elements of the distances that are held at a time.
_BLOCK = 1 << 22


def sample_people(dataset, people_per_batch: int, images_per_person: int, rng=None):
    """Draws images of people_per_batch x images_per_person, a few of each class.

    dataset  a sequence of classes: each has `len` (its number of images) and either
             `image_paths` or, where it has not, is indexed itself
    rng      numpy.random.RandomState or Generator, or the module numpy.random

    Classes are walked in shuffled order, of each at most images_per_person images are taken, in
    shuffled order, until there are enough; a batch is smaller only where the data set is. Returns
    the list of paths and the list of the number of images of each sampled class.
    """
    rng = np.random if rng is None else rng
    wanted = people_per_batch * images_per_person
    class_indices = np.arange(len(dataset))
    rng.shuffle(class_indices)
    image_paths, images_per_class = [], []
    for class_index in class_indices:
        if len(image_paths) >= wanted:
            break
        images = dataset[class_index]
        image_indices = np.arange(len(images))
        rng.shuffle(image_indices)
        count = min(len(images), images_per_person, wanted - len(image_paths))
        paths = getattr(images, "image_paths", images)
        image_paths += [paths[index] for index in image_indices[:count]]
        images_per_class.append(count)
    return image_paths, images_per_class


def select_triplets(
    embeddings,
    nrof_images_per_class,
    image_paths,
    people_per_batch: int,
    alpha: float,
    strategy: str = "vgg",
    rng=None,
):
    """Triplets of paths: every pair of a class with one negative drawn at random, shuffled.

    embeddings             N x D, the images of a class side by side
    nrof_images_per_class  images of each class, in the order of the rows
    image_paths            N
    people_per_batch       how many of the classes are used, from the first
    alpha                  the margin, a squared distance
    strategy               "vgg": negatives with d_an - d_ap < alpha; "facenet": of these only
                           the ones with d_ap < d_an (semi-hard)
    rng                    numpy.random.RandomState or Generator, or the module numpy.random

    Returns the shuffled list of (anchor, positive, negative) paths, the number of pairs tried, and
    the number of triplets kept.
    """
    rng = np.random if rng is None else rng
    rows, tried = select_triplet_rows(
        embeddings, nrof_images_per_class, people_per_batch, alpha, strategy, rng
    )
    triplets = [tuple(image_paths[row] for row in triplet) for triplet in rows.tolist()]
    rng.shuffle(triplets)
    return triplets, tried, len(triplets)


def select_triplet_rows(
    embeddings,
    nrof_images_per_class,
    people_per_batch: int,
    alpha: float,
    strategy: str = "vgg",
    rng=None,
):
    """The row numbers (T x 3) of select_triplets' triplets before its shuffle, and the pairs tried.

    Draws one number for each pair that has a negative to choose, in the order of the pairs.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy is '{strategy}', must be one of {', '.join(STRATEGIES)}")
    rng = np.random if rng is None else rng
    embeddings = np.asarray(embeddings)
    sizes = [int(size) for size in nrof_images_per_class[:people_per_batch]]
    if sum(sizes) > len(embeddings):
        raise ValueError(f"{sum(sizes)} images a class in all, but {len(embeddings)} embeddings")
    found, tried, start = [np.empty((0, 3), np.int64)], 0, 0
    for size in sizes:
        anchor, positive = np.triu_indices(size, 1)
        found += _of_class(embeddings, start, size, anchor, positive, alpha, strategy, rng)
        tried += len(anchor)
        start += size
    return np.concatenate(found), tried


def _of_class(embeddings, start, size, anchor, positive, alpha, strategy, rng):
    """Triplets (rows) of the pairs of one class, whose rows begin at `start`."""
    found = []
    # With an array of bounds these draw what a loop over the bounds would.
    draw = rng.integers if hasattr(rng, "integers") else rng.randint
    distances = _distances_from(embeddings, start, size)
    step = max(1, _BLOCK // max(1, len(embeddings)))
    for first in range(0, len(anchor), step):
        a, p = anchor[first : first + step], positive[first : first + step]
        to_negative = distances[a]
        to_positive = distances[a, start + p][:, None]
        candidate = to_negative - to_positive < alpha
        if strategy == "facenet":
            candidate &= to_positive < to_negative
        candidate[:, start : start + size] = False
        counts = candidate.sum(axis=1)
        negative = np.nonzero(candidate)[1]
        begin = np.cumsum(counts) - counts
        tried = np.flatnonzero(counts)
        chosen = negative[begin[tried] + draw(counts[tried])]
        found.append(np.stack([start + a[tried], start + p[tried], chosen], axis=1))
    return found


def _distances_from(embeddings, start, size):
    """Squared distances, size x N, summed as the published loops do: of differences, row by row."""
    distances = np.empty((size, len(embeddings)), embeddings.dtype)
    step = max(1, _BLOCK // max(1, embeddings.size))
    for first in range(0, size, step):
        last = min(first + step, size)
        difference = embeddings[start + first : start + last, None] - embeddings
        np.sum(np.square(difference), axis=-1, out=distances[first:last])
    return distances
