"""IdentityDataLayer: what stands in a batch, what is done to an image, workers, sources.

Every image is of one colour that tells its identity and its number, so that a batch says which
images it holds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.context import ForkProcess

import numpy as np
import pytest
from equal_lengths import zip_equal

pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")

from caffe_metric.data.conversion import convert
from caffe_metric.data.identity import batches
from caffe_metric.data.identity.source import open_images
from caffe_metric.data.identity.transform import Transform
from caffe_metric.support.errors import UserError
from harness import build
from PIL import Image

import caffe

COUNTS = [1, 3, 4, 6, 9]  # images of each identity


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A list of images, colour 20 * identity + number, 12 high and 10 wide."""
    folder = tmp_path_factory.mktemp("images")
    lines = []
    for identity, count in enumerate(COUNTS):
        for number in range(count):
            name = f"p{identity}@{number}.png"
            colour = np.full((12, 10, 3), 20 * identity + number, np.uint8)
            Image.fromarray(colour).save(folder / name)
            lines.append(f"{name} {identity}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder


def net(source, parameters="", phase=caffe.TRAIN):
    text = "{" + ", ".join(filter(None, [f"source: {source}", parameters])) + "}"
    return build(
        'layer { name: "data" type: "Python" top: "data" top: "label" python_param { '
        'module: "caffe_metric.layers" layer: "IdentityDataLayer" '
        f'param_str: "{text}" }} }}',
        phase,
    )


def read(made, count=1):
    """Colours and labels of batches."""
    found = []
    for _ in range(count):
        made.forward()
        found.append((made.blobs["data"].data[:, 0, 0, 0].copy(), made.blobs["label"].data.copy()))
    return found


LAYOUTS = [
    "identities: 3, images: 4",
    "layout: PAIRS, batch_size: 8",
    "layout: TRIPLETS, batch_size: 8, num_negatives: 2",
    "layout: THIRDS, batch_size: 9",
    "layout: SHUFFLED, batch_size: 7, crop_size: 8, mirror: true",
    "layout: LISTED, batch_size: 6, images: 1, shuffle: true",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_belong_to_images_and_workers_change_nothing(images, layout):
    results = [
        read(net(images / "list.txt", f"seed: 3, workers: {workers}, {layout}"), 9)
        for workers in (0, 1, 3)
    ]
    for batch in zip_equal(*results):
        colours, labels = batch[0]
        assert (colours // 20 == labels).all()
        for other in batch[1:]:
            assert np.array_equal(batch[0], other)


def test_pk_layout(images):
    for colours, labels in read(net(images / "list.txt", "identities: 3, images: 4"), 20):
        rows = colours.reshape(3, 4)
        assert len(set(labels)) == 3
        assert (labels.reshape(3, 4) == labels.reshape(3, 4)[:, :1]).all()
        for row in rows:  # no image twice, but where an identity has too few
            assert len(set(row)) == min(4, COUNTS[int(row[0]) // 20])


def test_pairs_layout_leaves_out_identities_with_one_image(images):
    for colours, labels in read(net(images / "list.txt", "layout: PAIRS, batch_size: 8"), 20):
        pairs = colours.reshape(-1, 2)
        assert (pairs[:, 0] // 20 == pairs[:, 1] // 20).all()
        assert (pairs[:, 0] != pairs[:, 1]).all()
        assert 0 not in labels


def test_triplets_layout(images):
    layout = "layout: TRIPLETS, batch_size: 12, num_negatives: 2"
    negatives = []
    for _, labels in read(net(images / "list.txt", layout), 300):
        groups = labels.reshape(-1, 4)
        assert (groups[:, 0] == groups[:, 1]).all()
        assert (groups[:, :1] != groups[:, 2:]).all()
        negatives.append(groups)
    groups = np.concatenate(negatives)
    # For anchors of identity 4 the negatives are the other 14 images, each as likely.
    drawn = groups[groups[:, 0] == 4][:, 2:].ravel()
    share = np.bincount(drawn.astype(int), minlength=4) / len(drawn)
    assert np.abs(share - np.array(COUNTS[:4]) / 14).max() < 0.06  # about 4 standard errors


def test_thirds_layout(images):
    for colours, _ in read(net(images / "list.txt", "layout: THIRDS, batch_size: 9"), 20):
        anchors, positives, negatives = colours.reshape(3, 3)
        identity = anchors[0] // 20
        assert (anchors // 20 == identity).all()
        assert (positives // 20 == identity).all()
        assert (negatives // 20 != identity).all()
        assert (anchors != positives).all()


def test_shuffled_layout_shows_each_image_once_an_epoch(images):
    made = net(images / "list.txt", "layout: SHUFFLED, batch_size: 23")
    for colours, _ in read(made, 3):
        assert len(set(colours)) == sum(COUNTS)


def test_listed_layout_keeps_what_stands_together():
    """The order of xiaolonw's and wujiyang's lists: pairs, in their order or shuffled."""
    labels = np.array([5, 5, 2, 2, 5, 5, 7, 7, 7])  # the last fills no pair
    batch = batches.listed(labels, 0, 6, 2)
    assert [batch(number).tolist() for number in range(3)] == [
        [0, 1, 2, 3, 4, 5], [6, 7, 0, 1, 2, 3], [4, 5, 6, 7, 0, 1]
    ]  # fmt: skip
    batch = batches.listed(labels, 0, 8, 2, shuffle=True)
    epochs = [batch(number) for number in range(9)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(8))
        assert (epoch[::2] % 2 == 0).all() and (epoch[1::2] == epoch[::2] + 1).all()
    assert len({tuple(epoch) for epoch in epochs}) > 3
    for wrong, size, images, words in [
        (np.array([1, 1, 2, 3]), 4, 2, "images 2 to 3 are a group, but of several"),
        (np.array([1]), 2, 2, "1 images make no group of 2"),
        (labels, 5, 2, "batch_size is 5"),
        (labels, 6, 0, "images is 0"),
    ]:
        with pytest.raises(UserError, match=words):
            batches.listed(wrong, 0, size, images)


def test_random_seed_governs(images):
    def batch(seed):
        caffe.set_random_seed(seed)
        return read(net(images / "list.txt", "identities: 3"))[0][0].tolist()

    assert batch(1) == batch(1)
    assert batch(1) != batch(2)


def test_mean_scale_and_resize(images):
    parameters = "seed: 1, identities: 2, mean_value: [1, 2, 3], scale: 0.5, width: 5, height: 6"
    made = net(images / "list.txt", parameters)
    made.forward()
    data, labels = made.blobs["data"].data, made.blobs["label"].data
    assert data.shape == (8, 3, 6, 5)
    means = np.array([1, 2, 3])[None, :, None, None]
    colours = data / 0.5 + means
    assert np.allclose(colours, colours[:, :1, :1, :1])
    assert (colours[:, 0, 0, 0] // 20 == labels).all()


def test_gray_makes_one_channel(images):
    made = net(images / "list.txt", "gray: true, identities: 2")
    assert made.blobs["data"].data.shape == (8, 1, 12, 10)


def gradient_image(folder):
    """One image whose colour tells the place: 10 y + x."""
    y, x = np.mgrid[:6, :8]
    gradient = np.repeat((10 * y + x).astype(np.uint8)[:, :, None], 3, axis=2)
    for number in range(2):
        Image.fromarray(gradient).save(folder / f"{number}.png")
    (folder / "list.txt").write_text("0.png 0\n1.png 1\n")
    return folder / "list.txt"


def test_crop_and_mirror(tmp_path):
    parameters = "identities: 2, images: 8, crop_size: 4, mirror: true"
    source = gradient_image(tmp_path)
    corners, mirrored = set(), set()
    made = net(source, parameters)
    for _ in range(30):
        made.forward()
        for image in made.blobs["data"].data[:, 0]:
            step = image[0, 1] - image[0, 0]
            assert abs(step) == 1
            assert (image[1] - image[0] == 10).all()
            mirrored.add(step < 0)
            corners.add(image[0].min())
    assert mirrored == {True, False}
    assert corners == {10 * y + x for y in range(3) for x in range(5)}
    made = net(source, parameters, caffe.TEST)
    made.forward()
    assert (made.blobs["data"].data[:, 0, 0] == 10 + np.arange(2, 6)).all()


def test_mean_of_the_size_of_the_image_is_cropped_with_it():
    mean = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    out = np.empty((1, 2, 2), np.float32)
    Transform(2, mean, 2.0)(np.full((1, 4, 6), 50, np.uint8), (1.0, 1.0), False, out)
    assert (out == 2 * (50 - mean[:, 2:, 4:])).all()


def test_a_gray_image_becomes_one_of_three_channels_where_the_mean_has_three():
    transform = Transform(0, np.array([1, 2, 3], np.float32)[:, None, None])
    assert transform.shape((1, 2, 2)) == (3, 2, 2)
    out = np.empty((3, 2, 2), np.float32)
    transform(np.full((1, 2, 2), 9, np.uint8), (0.5, 0.5), False, out)
    assert (out == np.array([8, 7, 6])[:, None, None]).all()


def test_mean_files(images, tmp_path):
    blob = caffe.io.array_to_blobproto(np.full((1, 3, 12, 10), 7.0))
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    np.save(tmp_path / "mean.npy", np.full(3, 7.0))
    plain = read(net(images / "list.txt", "seed: 5, identities: 2"))[0][0]
    for name in ("mean.binaryproto", "mean.npy"):
        parameters = f"seed: 5, identities: 2, mean_file: {tmp_path / name}"
        assert (read(net(images / "list.txt", parameters))[0][0] == plain - 7).all()


@pytest.mark.parametrize("encoded", [False, True])
def test_lmdb_gives_the_same_as_the_list(images, tmp_path, encoded):
    from caffe_metric.data.picture import Picture
    from caffe_metric.data.sources import open_source

    source = open_source(images / "list.txt", picture=Picture(encoded=encoded))
    convert(source, tmp_path / "images.lmdb")
    for workers in (0, 2):
        parameters = f"seed: 3, workers: {workers}, identities: 3"
        of_lmdb = read(net(tmp_path / "images.lmdb", parameters), 5)
        assert np.array_equal(of_lmdb, read(net(images / "list.txt", parameters), 5))


def test_a_train_and_a_test_layer_read_one_lmdb(images, tmp_path):
    convert(open_images(images / "list.txt"), tmp_path / "images.lmdb")
    train = net(tmp_path / "images.lmdb", "identities: 2")
    test = net(tmp_path / "images.lmdb", "identities: 2, workers: 0", caffe.TEST)
    for made in (train, test, train, test):
        (colours, labels) = read(made)[0]
        assert (colours // 20 == labels).all()


def test_person_at_file_may_stand_in_the_persons_folder(tmp_path):
    for person in ("ann", "bob"):
        (tmp_path / "faces" / person).mkdir(parents=True)
        Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "faces" / person / "1.png")
    (tmp_path / "list.txt").write_text("ann@1.png 0\nbob@1.png 1\n")
    source = open_images(tmp_path / "list.txt", tmp_path / "faces")
    assert source.load(1).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("source: /nowhere/at/all", "/nowhere/at/all: no such file or folder"),
        ("sorce: x", "unknown parameter 'sorce': did you mean 'source'"),
        ("layout: PAIRS, batch_size: 7", "batch_size is 7, must be a multiple of 2"),
        ("layout: TRIPLETS", "batch_size must be set with layout TRIPLETS"),
        ("layout: ROWS", "layout: 'ROWS' is none of PK"),
        ("identities: 6", "6 identities a batch, but there are 5"),
        ("crop_size: 11", "crop_size is 11, the image is 12 high and 10 wide"),
        ("width: 5", "width is 5 and height 0: set both, or none"),
        ("mean_value: [1, 2]", r"mean_value is \[1, 2\], must be 1 number or 3"),
        ("mean_value: 3, mean_file: x", "mean_value and mean_file are both set"),
        ("mean_file: /nowhere.npy", "mean_file: .*No such file"),
    ],
)
def test_bad_parameters(images, capfd, parameters, message):
    text = parameters if "source" in parameters else f"{parameters}, identities: 2"
    if "identities" in parameters:
        text = parameters
    source = images / "list.txt"
    with pytest.raises(ValueError, match=message):
        net(source, text)
    # `caffe train` loses the text of the exception: it must have been printed.
    assert "IdentityDataLayer: " in capfd.readouterr().err


def test_one_identity_has_no_negatives():
    with pytest.raises(UserError, match="at least 2 identities"):
        batches.triplets(np.zeros(4, int), 0, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named(tmp_path, workers):
    for number in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    Image.new("RGB", (5, 4)).save(tmp_path / "3.png")
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i % 2}\n" for i in range(4)))
    made = net(tmp_path / "list.txt", f"workers: {workers}, layout: SHUFFLED, batch_size: 4")
    with pytest.raises(ValueError, match=r"image 3: the image gives \[3, 4, 5\]"):
        made.forward()
    (tmp_path / "3.png").write_bytes(b"no picture")
    made = net(tmp_path / "list.txt", f"workers: {workers}, layout: SHUFFLED, batch_size: 4")
    with pytest.raises(ValueError, match=r"3\.png"):
        made.forward()


def test_no_worker_outlives_the_process(images):
    """Not even one that is killed, as `caffe` is by a CHECK."""
    program = (
        "import os, sys, time; sys.path[:0] = sys.argv[2:]\n"
        "from test_identity_data import net, read\n"
        "made = [net(sys.argv[1]+'/list.txt', 'identities: 2, workers: 2') for _ in range(2)]\n"
        "read(made[0])\n"
        "print(*os.popen(f'pgrep -P {os.getpid()}').read().split(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = [os.path.dirname(__file__), *sys.path]
    result = subprocess.run(
        [sys.executable, "-c", program, str(images), *path], capture_output=True, text=True
    )
    children = [int(word) for word in result.stdout.split()]
    assert len(children) >= 4, result.stderr
    deadline = time.monotonic() + 10
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(child) for child in children[:4])


def test_workers_outlive_an_interrupt(images):
    """`caffe train` goes on to its snapshot."""
    made = net(images / "list.txt", "identities: 2, workers: 2")
    read(made)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGINT)
    read(made, 9)


def test_workers_outlive_an_interrupt_at_their_start(images, monkeypatch):
    bootstrap = ForkProcess._bootstrap  # the first that runs in a worker

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return bootstrap(*arguments, **options)

    monkeypatch.setattr(ForkProcess, "_bootstrap", interrupted)
    read(net(images / "list.txt", "identities: 2, workers: 2"), 9)


def alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
