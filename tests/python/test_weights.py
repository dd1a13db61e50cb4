"""`caffe-metric weights`: MarginInnerProduct's second blob comes and goes, in models and states.

Files are made by messages and by h5py here; that Caffe itself loads the results is shown with the
patched Caffe (test_weights_in_caffe below).
"""

from __future__ import annotations

import numpy as np
import pytest
from caffe_metric import lint
from caffe_metric.nets import blobs, netschema
from caffe_metric.nets import iteration as weights
from equal_lengths import zip_equal

NET = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 4 dim: 3 }} }} }}
layer {{ name: "label" type: "Input" top: "label" input_param {{ shape {{ dim: 4 }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "fc" type: "MarginInnerProduct" bottom: "ip" bottom: "label" top: "fc"
  margin_inner_product_param {{ num_output: 7 iteration: 30 persist_iteration: {persist}
    weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "last" type: "InnerProduct" bottom: "fc" top: "last" {shared}
  inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "last" bottom: "label" top: "loss" }}
"""
SHAPES = {"ip": [(5, 3), (5,)], "fc": [(7, 5)], "last": [(2, 7), (2,)]}


def values(rng, shapes):
    return {name: [np.float32(rng.normal(size=s)) for s in list_] for name, list_ in shapes.items()}


def write_model(path, content):
    if blobs.is_hdf5(path):
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, arrays in content.items():
                for place, array in enumerate(arrays):
                    file[f"data/{name}/{place}"] = array
        return
    net = netschema.load().net()
    for name, arrays in content.items():
        layer = net.layer.add(name=name)
        for array in arrays:
            blob = layer.blobs.add()
            blob.shape.dim.extend(array.shape)
            blob.data.extend(array.ravel().tolist())
    path.write_bytes(net.SerializeToString())


def read_model(path):
    if blobs.is_hdf5(path):
        import h5py

        with h5py.File(path) as file:
            return {
                name: [group[str(place)][...] for place in range(len(group))]
                for name, group in file["data"].items()
            }
    net = netschema.load().net.FromString(path.read_bytes())
    return {
        layer.name: [np.float32(b.data).reshape(tuple(b.shape.dim)) for b in layer.blobs]
        for layer in net.layer
    }


def write_state(path, model, history, iteration=100):
    if blobs.is_hdf5(path):
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["iter"], file["current_step"] = [iteration], [2]
            file["learned_net"] = np.bytes_(str(model).encode() + b"\0")
            for place, array in enumerate(history):
                file[f"history/{place}"] = array
        return
    state = netschema.load().state(iter=iteration, learned_net=str(model), current_step=2)
    for array in history:
        blob = state.history.add()
        blob.shape.dim.extend(array.shape)
        blob.data.extend(array.ravel().tolist())
    path.write_bytes(state.SerializeToString())


def read_state(path):
    if blobs.is_hdf5(path):
        import h5py

        with h5py.File(path) as file:
            history = [file["history"][str(i)][...] for i in range(len(file["history"]))]
            name = file["learned_net"][()].decode().rstrip("\0")
            return int(file["iter"][0]), int(file["current_step"][0]), name, history
    state = netschema.load().state.FromString(path.read_bytes())
    history = [np.float32(b.data).reshape(tuple(b.shape.dim)) for b in state.history]
    return state.iter, state.current_step, state.learned_net, history


@pytest.fixture
def net(tmp_path):
    def write(persist, shared=""):
        path = tmp_path / f"net_{persist}.prototxt"
        path.write_text(NET.format(persist=persist, shared=shared))
        return path

    return write


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert len(ours[name]) == len(theirs[name]), name
        for one, other in zip_equal(ours[name], theirs[name]):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.h5"])
def test_models_both_ways(rng, command, net, tmp_path, suffix):
    old, new, back = (tmp_path / f"{name}{suffix}" for name in ("old", "new", "back"))
    content = values(rng, SHAPES)
    write_model(old, content)
    assert not weights.fits(str(old), str(net("true")))
    status, out, err = command("weights", old, new, "--net", net("true"))
    assert (status, err) == (0, "")
    assert "layer 'fc': added the iteration count, 30" in out
    with_count = {**content, "fc": [*content["fc"], np.float32([30])]}
    assert_same(read_model(new), with_count)
    assert weights.fits(str(new), str(net("true")))
    status, out, _ = command("weights", new, back, "--net", net("false"))
    assert status == 0
    assert "took out" in out
    assert_same(read_model(back), content)


def test_iteration(rng, command, net, tmp_path):
    old, new = tmp_path / "old.caffemodel", tmp_path / "new.caffemodel"
    content = values(rng, SHAPES)
    write_model(old, content)
    assert command("weights", old, new, "--net", net("true"), "--iteration", 123)[0] == 0
    assert read_model(new)["fc"][1] == 123
    status, out, _ = command("weights", new, new, "--net", net("true"), "--iteration", 9)
    assert status == 0
    assert "set the iteration count to 9" in out
    assert read_model(new)["fc"][1] == 9
    status, out, _ = command("weights", new, old, "--net", net("true"))
    assert "fits already" in out
    assert read_model(old)["fc"][1] == 9


@pytest.mark.parametrize("suffix", ["", ".h5"])
@pytest.mark.parametrize("sections", [1, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_states_both_ways(rng, command, net, tmp_path, suffix, sections, shared):
    """sections: Adam keeps two histories in a row. shared: a weight under another layer's name."""
    model = tmp_path / f"old.caffemodel{suffix}"
    content = values(rng, SHAPES)
    write_model(model, content)
    specs = ""
    if shared:
        specs = 'param { name: "one" } param { name: "one" }'
    order = ["ip", "ip", "fc", "last"] + ([] if shared else ["last"])
    section = [array for name in SHAPES for array in content[name]][: len(order)]
    history = [array + i for i in range(sections) for array in section]
    state, new = tmp_path / f"old.solverstate{suffix}", tmp_path / f"new.solverstate{suffix}"
    write_state(state, model, history)
    status, out, err = command("weights", state, new, "--net", net("true", specs))
    assert (status, err) == (0, "")
    assert "added the iteration count, 130" in out  # iteration: 30, and 100 are done
    iteration, step, name, found = read_state(new)
    assert (iteration, step) == (100, 2)
    assert name == str(tmp_path / f"new.caffemodel{suffix}")
    assert read_model(tmp_path / f"new.caffemodel{suffix}")["fc"][1] == 130
    length = len(order) + 1
    assert len(found) == sections * length
    for i in range(sections):
        part = found[i * length : (i + 1) * length]
        added = part.pop(3)
        assert added.shape == (1,)
        assert not added.any()
        for one, other in zip_equal(part, section):
            np.testing.assert_array_equal(one, other + i)
    back = tmp_path / f"back.solverstate{suffix}"
    assert command("weights", new, back, "--net", net("false", specs))[0] == 0
    for one, other in zip_equal(read_state(back)[3], history):
        np.testing.assert_array_equal(one, other)
    assert_same(read_model(tmp_path / f"back.caffemodel{suffix}"), content)


def test_a_state_beside_its_model(rng, command, net, tmp_path):
    """Trained elsewhere: the recorded path is wrong, the file's name is right."""
    write_model(tmp_path / "old.caffemodel", values(rng, SHAPES))
    history = [array for arrays in values(rng, SHAPES).values() for array in arrays]
    write_state(tmp_path / "old.solverstate", "/elsewhere/old.caffemodel", history)
    arguments = ("--net", net("true"))
    assert (
        command("weights", tmp_path / "old.solverstate", tmp_path / "a.solverstate", *arguments)[0]
        == 0
    )


def test_other_fields_survive(rng, command, net, tmp_path):
    """Fields of other trees, such as sphereface's number 147, stay as they were."""
    old, new = tmp_path / "old.caffemodel", tmp_path / "new.caffemodel"
    write_model(old, values(rng, SHAPES))
    content = netschema.load().net.FromString(old.read_bytes())
    foreign = b"\x9a\x09\x02\x08\x07"  # field 147, a message { 1: 7 }
    layer = content.layer[1]
    layer.MergeFromString(foreign)
    old.write_bytes(content.SerializeToString())
    assert foreign in old.read_bytes()
    assert command("weights", old, new, "--net", net("true"))[0] == 0
    assert foreign in new.read_bytes()


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("none.caffemodel", "out.caffemodel", "No such file"),
        ("text.caffemodel", "out.caffemodel", "no file that Caffe has written"),
        ("empty.caffemodel", "out.caffemodel", "no layers"),
        ("old.caffemodel", "out.solverstate", "must both be"),
        ("old.caffemodel", "out.caffemodel.h5", "must both be"),
        ("lone.solverstate", "out.solverstate", "is not there"),
        ("short.solverstate", "out.solverstate", "history of 3 blobs"),
        ("other.caffemodel", "out.caffemodel", "no weights of layer 'fc'"),
    ],
)
def test_errors(rng, command, net, tmp_path, source, target, words):
    content = values(rng, SHAPES)
    write_model(tmp_path / "old.caffemodel", content)
    write_model(tmp_path / "other.caffemodel", {"ip": content["ip"]})
    (tmp_path / "text.caffemodel").write_text("no model, but a text\n" * 10)
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    write_state(tmp_path / "lone.solverstate", "nowhere.caffemodel", content["ip"])
    write_state(tmp_path / "short.solverstate", "old.caffemodel", content["ip"] + content["fc"])
    status, _, err = command("weights", tmp_path / source, tmp_path / target, "--net", net("true"))
    assert status == 1
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / target).exists()


def test_lint_explains(rng, command, net, tmp_path):
    old = tmp_path / "old.caffemodel"
    write_model(old, values(rng, SHAPES))
    status, out, _ = command("lint", net("true"), "--weights", old)
    assert status == 1
    assert "holds 1 blob(s) of it, the net 2" in out
    assert "caffe-metric weights" in out
    assert command("lint", net("false"), "--weights", old)[0] == 0


def test_weights_in_caffe(command, net, tmp_path):
    """A solver snapshots one layout and goes on in the other, in Caffe itself."""
    pytest.importorskip("caffe", reason="pycaffe is not built: ./run build")
    from harness import need

    need("cpp")
    from caffe_metric.support import child

    import caffe

    def solver(persist, kind):
        path = tmp_path / f"solver_{persist}_{kind}.prototxt"
        path.write_text(
            f'net: "{net(persist)}"\ntype: "{kind}"\nbase_lr: 0.01\nlr_policy: "fixed"\n'
            f'snapshot_prefix: "{tmp_path}/{persist}_{kind}"\nsnapshot_after_train: false\n'
        )
        return caffe.get_solver(str(path))

    for kind in ("SGD", "Adam"):
        for source, target in (("false", "true"), ("true", "false")):

            def snapshot(source=source, kind=kind):
                made = solver(source, kind)
                made.step(3)
                made.snapshot()
                return made.net.params["fc"][0].data.copy()

            kept = child.run(snapshot)
            assert kept.ok, kept.last_words
            state = tmp_path / f"{source}_{kind}_iter_3.solverstate"

            def resume(state=state, target=target, kind=kind):
                made = solver(target, kind)
                made.restore(str(state))
                values = [blob.data.copy() for blob in made.net.params["fc"]]
                made.step(1)
                return made.iter, values

            refused = child.run(resume)
            assert not refused.ok
            fitted = tmp_path / f"fitted_{source}_{kind}.solverstate"
            assert command("weights", state, fitted, "--net", net(target))[0] == 0
            done = child.run(lambda fitted=fitted, resume=resume: resume(fitted))
            assert done.ok, done.last_words
            iteration, found = done.value
            assert iteration == 4
            np.testing.assert_array_equal(found[0], kept.value)
            if target == "true":
                assert found[1] == 33  # iteration: 30 and three forwards


def test_a_model_of_2014(tmp_path, rng):
    """`layers`, whose blobs have four numbers for a shape, as Caffe itself would upgrade it."""
    content = values(rng, {**SHAPES, "fc": SHAPES["fc"][:1]})
    made = netschema.load().net()
    for name, arrays in content.items():
        layer = made.layers.add(name=name)
        for array in arrays:
            shape = (1,) * (4 - array.ndim) + array.shape
            blob = layer.blobs.add(num=shape[0], channels=shape[1], height=shape[2], width=shape[3])
            blob.data.extend(array.ravel().tolist())
    (tmp_path / "old.caffemodel").write_bytes(made.SerializeToString())
    (tmp_path / "net.prototxt").write_text(NET.format(persist="true", shared=""))
    net = str(tmp_path / "net.prototxt")
    weights.fit(str(tmp_path / "old.caffemodel"), str(tmp_path / "new.caffemodel"), net)
    new = blobs.shapes(tmp_path / "new.caffemodel")
    assert new == {**SHAPES, "fc": [(7, 5), (1,)]}
    assert weights.fits(str(tmp_path / "new.caffemodel"), net)
    found = lint.check(net, str(tmp_path / "new.caffemodel"))
    assert not [row for row in found if row.severity == "error"]
    caffe = pytest.importorskip("caffe")
    if "MarginInnerProduct" not in caffe.layer_type_list():
        pytest.skip("this Caffe lacks the layers")
    loaded = caffe.Net(net, caffe.TEST, weights=str(tmp_path / "new.caffemodel"))
    for name, arrays in content.items():
        np.testing.assert_array_equal(loaded.params[name][0].data, arrays[0])
    assert loaded.params["fc"][1].data.tolist() == [30]
