"""FaceNet's sampling against loops written from the description of the published functions.

Both start from the same generator state, and must end in the same state with the same result. The
distances are summed in the same order, so the comparison is exact.
"""

from __future__ import annotations

import numpy as np
import pytest
from caffe_metric.data.sampling import sample_people, select_triplet_rows, select_triplets


class ImageClass:
    """As the published data set holds a class."""

    def __init__(self, name, count):
        self.name = name
        self.image_paths = [f"{name}/{i}.png" for i in range(count)]

    def __len__(self):
        return len(self.image_paths)


def sample_people_loops(dataset, people_per_batch, images_per_person, rng):
    wanted = people_per_batch * images_per_person
    class_indices = np.arange(len(dataset))
    rng.shuffle(class_indices)
    image_paths, num_per_class = [], []
    i = 0
    while len(image_paths) < wanted and i < len(dataset):
        images = dataset[class_indices[i]]
        image_indices = np.arange(len(images))
        rng.shuffle(image_indices)
        count = min(len(images), images_per_person, wanted - len(image_paths))
        for k in range(count):
            image_paths.append(images.image_paths[image_indices[k]])
        num_per_class.append(count)
        i += 1
    return image_paths, num_per_class


def select_triplets_loops(embeddings, per_class, image_paths, people, alpha, strategy, rng):
    tried, start = 0, 0
    triplets = []
    for i in range(people):
        count = per_class[i]
        for j in range(1, count):
            a = start + j - 1
            to_all = np.sum(np.square(embeddings[a] - embeddings), 1)
            for pair in range(j, count):
                p = start + pair
                to_positive = np.sum(np.square(embeddings[a] - embeddings[p]))
                to_all[start : start + count] = np.nan
                if strategy == "vgg":
                    candidates = np.where(to_all - to_positive < alpha)[0]
                else:
                    near = np.logical_and(to_all - to_positive < alpha, to_positive < to_all)
                    candidates = np.where(near)[0]
                if len(candidates) > 0:
                    n = candidates[rng.randint(len(candidates))]
                    triplets.append((image_paths[a], image_paths[p], image_paths[n]))
                tried += 1
        start += count
    rng.shuffle(triplets)
    return triplets, tried, len(triplets)


def same_state(one, other):
    return one.randint(2**31, size=4).tolist() == other.randint(2**31, size=4).tolist()


@pytest.mark.parametrize(("people", "images"), [(1, 1), (2, 3), (5, 4), (9, 2), (50, 40)])
@pytest.mark.parametrize("seed", range(5))
def test_sample_people_as_the_loops(people, images, seed):
    sizes = np.random.RandomState(seed).randint(1, 8, size=12)
    dataset = [ImageClass(f"c{i}", count) for i, count in enumerate(sizes)]
    ours, theirs = np.random.RandomState(seed + 100), np.random.RandomState(seed + 100)
    assert sample_people(dataset, people, images, ours) == sample_people_loops(
        dataset, people, images, theirs
    )
    assert same_state(ours, theirs)


def test_sample_people_of_plain_lists_and_the_global_generator():
    dataset = [["a", "b"], ["c"], ["d", "e", "f"]]
    np.random.seed(7)  # noqa: NPY002 - what the published functions draw from
    paths, counts = sample_people(dataset, 2, 2)
    np.random.seed(7)  # noqa: NPY002 - what the published functions draw from
    again = sample_people(dataset, 2, 2)
    assert (paths, counts) == again
    assert sum(counts) == len(paths) <= 4
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("strategy", ["vgg", "facenet"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dimension", [1, 3, 33, 128])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 5.0])
def test_select_triplets_as_the_loops(strategy, dtype, dimension, alpha):
    rng = np.random.RandomState(dimension)
    per_class = [4, 1, 7, 2, 5]
    embeddings = rng.normal(size=(sum(per_class), dimension)).astype(dtype)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings[3] = embeddings[5]  # a duplicate across classes: distance 0, ties
    paths = [f"{row}.png" for row in range(len(embeddings))]
    ours, theirs = np.random.RandomState(3), np.random.RandomState(3)
    arguments = (embeddings, per_class, paths, len(per_class), alpha, strategy)
    found = select_triplets(*arguments, ours)
    assert found == select_triplets_loops(*arguments, theirs)
    assert same_state(ours, theirs)
    assert found[1] == sum(n * (n - 1) // 2 for n in per_class)


def test_people_per_batch_and_rows():
    rng = np.random.RandomState(0)
    embeddings = rng.normal(size=(9, 4))
    rows, tried = select_triplet_rows(embeddings, [3, 3, 3], 2, 100.0, "vgg", rng)
    assert tried == 6
    assert rows.shape == (6, 3)
    classes = rows // 3
    assert (classes[:, 0] == classes[:, 1]).all()
    assert (classes[:, 0] != classes[:, 2]).all()
    assert set(classes[:, 0]) == {0, 1}


def test_no_candidate_draws_nothing():
    embeddings = np.repeat(np.arange(2.0), 3)[:, None] * 10
    ours, untouched = np.random.RandomState(1), np.random.RandomState(1)
    rows, tried = select_triplet_rows(embeddings, [3, 3], 2, 0.1, "vgg", ours)
    assert rows.shape == (0, 3)
    assert tried == 6
    assert same_state(ours, untouched)


def test_a_new_generator_serves_too():
    embeddings = np.random.RandomState(0).normal(size=(8, 3))
    rng = np.random.default_rng(0)
    triplets, tried, kept = select_triplets(embeddings, [4, 4], list("abcdefgh"), 2, 50.0, rng=rng)
    assert (tried, kept) == (12, 12)
    assert len(triplets) == 12


def test_bad_arguments():
    with pytest.raises(ValueError, match="strategy is 'hard'"):
        select_triplet_rows(np.zeros((2, 2)), [2], 1, 0.2, "hard")
    with pytest.raises(ValueError, match="5 images a class in all, but 2 embeddings"):
        select_triplet_rows(np.zeros((2, 2)), [5], 1, 0.2)
