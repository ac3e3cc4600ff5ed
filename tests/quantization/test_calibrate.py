"""Images through the float graph, statistics into the bundle."""

from __future__ import annotations

import hashlib
import json
import tarfile

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from bundle.samples import files_below
from PIL import Image

from pargo_calibration import dataset_sha256
from pargo_export.bundle import Bundle, BundleTransaction
from pargo_export.errors import BundleError, CalibrationError, ConfigError, IntegrityError
from pargo_export.preprocessing import preprocess, preprocess_uint8
from pargo_export.quantization import calibrate as calibrate_module
from pargo_export.quantization.calibrate import CalibrateOptions, calibrate
from pargo_export.quantization.linears import find_linears
from pargo_export.quantization.measure import load_evaluation
from pargo_export.quantization.observe import attention_inputs, group_by_activation
from pargo_export.quantization.sessions import open_session
from pargo_export.quantization.statistics import unpack

OPTIONS = CalibrateOptions(threads=1)
FORMS = {"npz": "pixels", "floats": "pixels", "jsonl": "jsonl", "tar": "webdataset"}


def table_of(bundle, name="default"):
    """Return the table for people."""
    return json.loads(bundle.check(f"calibration/{name}.json").read_bytes())


def statistics_of(bundle, name="default"):
    """Return the bytes of the statistics."""
    return bundle.check(f"calibration/{name}.statistics.safetensors").read_bytes()


def sha256_of(photographs):
    """Return the hash of every photograph by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in photographs.iterdir()}


def write_form(form, photographs, folder, spec):
    """Write the photographs in another form and return the path to calibrate on."""
    files = sorted(photographs.iterdir())
    path = folder / f"data.{'npz' if form == 'floats' else form}"
    if form == "npz":
        np.savez(path, pixel_values=preprocess_uint8(files, spec))
    elif form == "floats":
        np.savez(path, pixel_values=preprocess(files, spec))
    elif form == "jsonl":
        lines = []
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
            lines.append(json.dumps({"image": file.name, "caption": file.stem}))
        path.write_text("\n".join(lines))
    else:
        with tarfile.open(path, "w") as archive:
            for file in files:
                archive.add(file, file.name)
    return path


@pytest.fixture
def saved_often(monkeypatch):
    """Progress is saved after every image."""
    monkeypatch.setattr(calibrate_module, "_SAVE_EVERY_S", -1.0)


def interrupt(bundle, data, after=3, options=OPTIONS):
    """Calibrate, but be interrupted after some images as by Ctrl-C."""

    def stop(done, _total):
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(bundle, data, options, advance=stop)


def test_everything_that_linears_read_is_observed(calibrated_bundle, photographs):
    """The input of each linear, each self-attention and each tower attention, as it is and smoothed."""
    bundle = Bundle.open(calibrated_bundle)
    graph = bundle.file("onnx/fp32.onnx")
    model = ir.load(graph)
    observation = unpack(bundle.file("calibration/default.statistics.safetensors"))
    groups = group_by_activation(find_linears(model))
    assert set(observation.activations) == set(groups) | set(attention_inputs(model))
    # Three layers in which queries meet queries, and queries and keys of three tower blocks.
    assert len(attention_inputs(model)) == 9 + 6

    key = "projector.layers.2.self_attention"
    key = next(path for path in attention_inputs(model) if path.startswith(key) and path.endswith("/key"))
    names = {key: attention_inputs(model)[key].name}
    for path in ("tower.patch_embedding", "tower.blocks.1.mlp.down"):
        names[path] = groups[path][0].activation.name
    session = open_session(graph, graph.parent, outputs=list(names.values()), threads=1)
    files = [photographs / entry["name"] for entry in table_of(bundle)["images"]]
    found = [
        session.run(list(names.values()), {"pixel_values": values[None]})
        for values in preprocess(files, bundle.manifest.preprocessing)
    ]
    for position, path in enumerate(names):
        values = np.concatenate([item[position] for item in found])
        item = observation.activations[path]
        assert item.plain.count == values.size
        assert np.allclose([item.plain.minimum, item.plain.maximum], [values.min(), values.max()], rtol=1e-5)
        axes = (0, 2, 3) if path == "tower.patch_embedding" else tuple(range(values.ndim - 1))
        assert np.allclose(item.plain.channel_max_abs, np.abs(values).max(axis=axes), rtol=1e-5)
        assert (item.factors is None) == (path != "tower.blocks.1.mlp.down")
        if item.smoothed is not None:
            assert np.isclose(item.smoothed.maximum, (values / item.factors).max(), rtol=1e-5)
            assert item.smoothed.count == values.size


def test_provenance_is_in_the_manifest(calibrated_bundle, photographs):
    """Which graph, which images, how prepared; the table lists every image with its hash."""
    bundle = Bundle.open(calibrated_bundle)
    manifest = bundle.manifest
    calibration = manifest.calibrations["default"]
    table = table_of(bundle)
    hashes = sha256_of(photographs)
    used = {entry["name"]: entry["sha256"] for entry in table["images"]}
    assert used.items() <= hashes.items()
    assert calibration.dataset_sha256 == dataset_sha256(used.values())
    assert calibration.graph_sha256 == manifest.files["onnx/fp32.onnx"].sha256
    assert calibration.weights_sha256 == manifest.source.sha256
    assert calibration.rewrites == manifest.variants["fp32"].rewrites
    assert calibration.preprocessing == manifest.preprocessing
    found = calibration.model_dump(
        include={"variant", "component", "input", "source", "seed", "shard", "smoothing"}
    )
    assert found == {
        "variant": "fp32",
        "component": "all",
        "input": "float",
        "source": "folder",
        "seed": 0,
        "shard": (0, 1),
        "smoothing": 1.0,
    }
    assert (calibration.num_images, calibration.num_evaluation, calibration.num_skipped) == (12, 4, 0)
    assert table["calibration"]["dataset_sha256"] == calibration.dataset_sha256
    assert table["note"] == ""
    for name in calibration.files:
        record = manifest.files[name]
        assert (record.stage, record.parents) == ("quantize", ("onnx/fp32.onnx",))
    assert all(check.ok for check in bundle.verify())


def test_evaluation_images_were_not_observed(calibrated_bundle, photographs):
    """They are other images, by content, and kept as the model reads them."""
    bundle = Bundle.open(calibrated_bundle)
    images = load_evaluation(bundle, bundle.manifest.calibrations["default"])
    hashes = sha256_of(photographs)
    observed = {entry["sha256"] for entry in table_of(bundle)["images"]}
    assert len(observed) == 12
    kept = table_of(bundle)["evaluation"]
    assert [entry["name"] for entry in kept] == list(images.names)
    assert {entry["name"]: entry["sha256"] for entry in kept}.items() <= hashes.items()
    assert {hashes[name] for name in images.names}.isdisjoint(observed)
    assert {hashes[name] for name in images.names} | observed == set(hashes.values())
    for index, name in enumerate(images.names):
        assert np.array_equal(images.values(index), preprocess([photographs / name], images.spec))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data(uncalibrated, calibrated_bundle, photographs, tmp_path, form):
    """The same images in another form give the same statistics, byte for byte."""
    data = tmp_path / "data"
    data.mkdir()
    spec = Bundle.open(uncalibrated).manifest.preprocessing
    result = calibrate(uncalibrated, write_form(form, photographs, data, spec), OPTIONS)
    assert result.calibration.source == FORMS[form]
    assert result.calibration.num_images == 12
    assert statistics_of(result.bundle) == statistics_of(Bundle.open(calibrated_bundle))


def test_unusable_images_are_skipped_and_listed(uncalibrated, photographs, tmp_path):
    """Damaged, repeated and black ones: result, table and manifest agree."""
    data = tmp_path / "data"
    data.mkdir()
    for path in sorted(photographs.iterdir())[:8]:
        (data / path.name).write_bytes(path.read_bytes())
    content = path.read_bytes()
    (data / "copy.jpg").write_bytes(content)
    (data / "cut.jpg").write_bytes(content[:500])
    Image.new("RGB", (60, 30)).save(data / "black.png")
    result = calibrate(uncalibrated, data, OPTIONS)
    skipped = dict(result.skipped)
    assert set(skipped) - {path.name} - {"copy.jpg"} == {"cut.jpg", "black.png"}
    assert len(skipped) == result.calibration.num_skipped == 3
    assert {item["name"]: item["reason"] for item in table_of(result.bundle)["skipped"]} == skipped
    assert result.calibration.num_images + result.calibration.num_evaluation == 8


def test_number_of_images_is_a_limit(uncalibrated, photographs):
    """No more images are observed and kept than were asked for."""
    calls = []
    options = CalibrateOptions(num_images=5, num_evaluation=2, threads=1)
    result = calibrate(uncalibrated, photographs, options, advance=lambda *call: calls.append(call))
    assert (result.calibration.num_images, result.calibration.num_evaluation) == (5, 2)
    assert calls == [(done, 5) for done in range(1, 6)]
    assert len(table_of(result.bundle)["images"]) == 5
    assert result.resumed == 0


def test_seed_and_shard_choose_the_images(uncalibrated, photographs):
    """Another seed takes others; two shards have none in common; the manifest says which."""
    used = {}
    for name, seed, shard in (("a", 0, (0, 1)), ("b", 1, (0, 1)), ("c", 0, (0, 2)), ("d", 0, (1, 2))):
        options = CalibrateOptions(num_images=4, seed=seed, shard=shard, name=name, threads=1)
        result = calibrate(uncalibrated, photographs, options)
        assert (result.calibration.seed, result.calibration.shard) == (seed, shard)
        used[name] = {entry["sha256"] for entry in table_of(result.bundle, name)["images"]}
    assert used["a"] != used["b"]
    assert used["c"].isdisjoint(used["d"])
    assert set(Bundle.open(uncalibrated).manifest.calibrations) == set(used)


def test_without_smoothing_only_plain_ranges_are_kept(uncalibrated, photographs):
    """Nothing is divided by factors that nobody asked for."""
    result = calibrate(uncalibrated, photographs, CalibrateOptions(num_images=4, smoothing=0, threads=1))
    observation = unpack(result.bundle.check(result.calibration.statistics))
    assert all(item.factors is None and item.smoothed is None for item in observation.activations.values())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("missing", "no such file or folder"),
        ("empty", "found no images"),
        ("one", "1 usable images.*at least 4"),
        ("three", "3 usable images.*at least 4"),
        ("black", r"0 usable images, 6 left out \(.*same colour.*at least 4"),
        ("damaged", r"0 usable images, 5 left out \(.*at least 4"),
        ("size", r"pixels uint8\[3, 30, 30\], expected \[3, 84, 84\]"),
        ("random", "random pixels are no calibration data.*--allow-random"),
    ],
)
def test_useless_data_are_refused(uncalibrated, photographs, tmp_path, monkeypatch, data, message):
    """The message says what was found and how to mend it; bundle and folder stay as they were."""
    path = tmp_path / "data"
    path.mkdir()
    monkeypatch.chdir(path)
    files = sorted(photographs.iterdir())
    if data in {"one", "three"}:
        for file in files[: 1 if data == "one" else 3]:
            (path / file.name).write_bytes(file.read_bytes())
    elif data == "black":
        for size in range(20, 26):
            Image.new("RGB", (size, 30)).save(path / f"{size}.png")
    elif data == "damaged":
        for index in range(5):
            (path / f"{index}.png").write_bytes(files[0].read_bytes()[: 200 + index])
    elif data == "size":
        path = path / "pixels.npz"
        np.savez(path, pixel_values=np.random.default_rng(0).integers(0, 255, (8, 3, 30, 30), np.uint8))
    elif data == "missing":
        path = path / "missing"
    before = files_below(uncalibrated)
    beside = sorted(item.name for item in uncalibrated.parent.iterdir())
    with pytest.raises(CalibrationError, match=message):
        calibrate(uncalibrated, "random" if data == "random" else path, OPTIONS)
    assert files_below(uncalibrated) == before
    assert sorted(item.name for item in uncalibrated.parent.iterdir()) == beside


def test_random_pixels_are_stamped(uncalibrated):
    """If somebody insists, manifest and table say what the numbers are worth."""
    options = CalibrateOptions(num_images=4, num_evaluation=2, allow_random=True, threads=1)
    result = calibrate(uncalibrated, "random", options)
    assert result.calibration.source == "random"
    assert (result.calibration.num_images, result.calibration.num_evaluation) == (4, 1)
    assert table_of(result.bundle)["note"] == "random pixels: no evidence of accuracy"


def test_a_folder_called_random_is_a_folder(uncalibrated, photographs, tmp_path, monkeypatch):
    """What lies on disk comes before the word."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "random").symlink_to(photographs)
    result = calibrate(uncalibrated, "random", CalibrateOptions(num_images=4, threads=1))
    assert result.calibration.source == "folder"


@pytest.mark.usefixtures("saved_often")
def test_interrupted_run_continues(uncalibrated, calibrated_bundle, photographs):
    """The second run does the rest, ends with the same files, and leaves nothing beside the bundle."""
    before = files_below(uncalibrated)
    interrupt(uncalibrated, photographs)
    assert files_below(uncalibrated) == before
    state = uncalibrated.with_name(".bundle.calibration-default.partial")
    assert state.is_file()
    calls = []
    result = calibrate(uncalibrated, photographs, OPTIONS, advance=lambda done, _: calls.append(done))
    assert result.resumed == 2  # the interruption came before the third was saved
    assert calls == list(range(3, 13))
    assert statistics_of(result.bundle) == statistics_of(Bundle.open(calibrated_bundle))
    assert result.calibration == Bundle.open(calibrated_bundle).manifest.calibrations["default"]
    for name in result.calibration.files:
        assert (uncalibrated / name).read_bytes() == (calibrated_bundle / name).read_bytes()
    assert not state.exists()


@pytest.mark.usefixtures("saved_often")
@pytest.mark.parametrize("change", ["seed", "smoothing", "num_images", "data", "damage"])
def test_other_or_damaged_progress_is_not_continued(uncalibrated, photographs, tmp_path, change):
    """What an interrupted run of another calibration saw does not get into this one."""
    interrupt(uncalibrated, photographs, after=6)
    choices, data = {"threads": 1}, photographs
    if change == "data":
        data = tmp_path / "others"
        data.mkdir()
        for path in sorted(photographs.iterdir())[:8]:
            (data / f"other-{path.name}").write_bytes(path.read_bytes())
    elif change == "damage":
        state = uncalibrated.with_name(".bundle.calibration-default.partial")
        state.write_bytes(state.read_bytes()[:-100])
    else:
        choices[change] = {"seed": 3, "smoothing": 0.3, "num_images": 4}[change]
    result = calibrate(uncalibrated, data, CalibrateOptions(**choices))
    assert result.resumed == 0
    assert result.calibration.num_images == {"num_images": 4, "data": 6}.get(change, 12)
    assert len(table_of(result.bundle)["images"]) == result.calibration.num_images


@pytest.mark.usefixtures("saved_often")
def test_more_images_continue_a_shorter_run(uncalibrated, calibrated_bundle, photographs):
    """The number of images decides when to stop, not which ones come first."""
    interrupt(uncalibrated, photographs, options=CalibrateOptions(num_images=5, threads=1))
    result = calibrate(uncalibrated, photographs, OPTIONS)
    assert result.resumed == 2
    assert statistics_of(result.bundle) == statistics_of(Bundle.open(calibrated_bundle))


def test_name_that_is_taken_is_refused(bundle, photographs):
    """Unless it is to be replaced; then other calibrations and the graphs stay."""
    before = files_below(bundle)
    with pytest.raises(CalibrationError, match=r"already has a calibration 'default'.*--name.*--force"):
        calibrate(bundle, photographs, OPTIONS)
    assert files_below(bundle) == before
    result = calibrate(bundle, photographs, CalibrateOptions(seed=5, threads=1), force=True)
    after = files_below(bundle)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"manifest.json", *result.calibration.files}
    assert result.bundle.manifest.calibrations["default"].seed == 5


def test_numbers_that_are_not_finite_are_refused(uncalibrated, tmp_path):
    """The message names the linear and the image; no warning of NumPy comes before it."""
    values = np.random.default_rng(1).standard_normal((16, 3, 84, 84)).astype(np.float32)
    values[8:] = 3e38 * np.sign(values[8:])  # finite, but no sum of two of them
    np.savez(tmp_path / "some.npz", pixel_values=values)
    before = files_below(uncalibrated)
    with pytest.raises(CalibrationError) as caught:
        calibrate(uncalibrated, tmp_path / "some.npz", OPTIONS)
    message = str(caught.value)
    assert "the input of tower.blocks.0.attention.qkv.merged holds" in message
    assert any(f"on some.npz:{index}:" in message for index in range(8, 16))
    assert files_below(uncalibrated) == before


def test_damaged_graph_is_refused(uncalibrated, photographs):
    """The graph is hashed before anything is observed, and so are weights beside it."""
    graph = uncalibrated / "onnx/fp32.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"onnx/fp32\.onnx has sha256"):
        calibrate(uncalibrated, photographs, OPTIONS)
    graph.write_bytes(content)
    with BundleTransaction(uncalibrated) as transaction:
        names = ("onnx/fp32.onnx", "onnx/fp32.onnx.data")
        path, _ = (transaction.stage(name) for name in names)
        model, location = onnx.load(graph), "fp32.onnx.data"
        onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=1024)
        records = {name: transaction.record(name, stage="graph") for name in names}
        transaction.commit(transaction.previous.merged(files=records))
    weights = uncalibrated / "onnx/fp32.onnx.data"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"onnx/fp32\.onnx\.data has sha256"):
        calibrate(uncalibrated, photographs, OPTIONS)
    weights.write_bytes(content)
    assert calibrate(uncalibrated, photographs, OPTIONS).calibration.num_images == 12


def test_graph_replaced_meanwhile_is_noticed(uncalibrated, photographs):
    """The statistics of the old graph are not written beside the new one."""

    def replace(done, _total):
        if done == 2:
            with BundleTransaction(uncalibrated) as transaction:
                model = onnx.load(uncalibrated / "onnx/fp32.onnx")
                model.doc_string = "another one"
                onnx.save(model, transaction.stage("onnx/fp32.onnx"))
                record = transaction.record("onnx/fp32.onnx", stage="graph")
                transaction.commit(transaction.previous.merged(files={"onnx/fp32.onnx": record}))

    with pytest.raises(CalibrationError, match="'fp32' was replaced while"):
        calibrate(uncalibrated, photographs, OPTIONS, advance=replace)
    assert Bundle.open(uncalibrated).manifest.calibrations == {}


def test_named_variant_is_observed(uncalibrated, photographs):
    """Its rewrites and name are what the manifest says."""
    options = CalibrateOptions(num_images=4, variant="unmerged", threads=1)
    result = calibrate(uncalibrated, photographs, options)
    assert result.calibration.variant == "unmerged"
    assert "merge-qkv" not in result.calibration.rewrites
    observation = unpack(result.bundle.check(result.calibration.statistics))
    assert "tower.blocks.0.attention.qkv.query" in observation.activations
    with pytest.raises(BundleError, match="no variant 'fp64'"):
        calibrate(uncalibrated, photographs, CalibrateOptions(variant="fp64", name="x"))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"num_images": 2}, "num_images is 2; it must be at least 3"),
        ({"num_evaluation": 0}, "num_evaluation is 0; it must be at least 1"),
        ({"smoothing": 1.1}, r"smoothing is 1\.1"),
        ({"smoothing": float("nan")}, "smoothing is nan"),
        ({"shard": (2, 2)}, r"shard is \(2, 2\)"),
        ({"shard": (-1, 2)}, r"shard is \(-1, 2\)"),
        ({"name": "../outside"}, r"name is '\.\./outside'"),
    ],
)
def test_options_out_of_range_are_refused(choices, message):
    """Before anything is read."""
    with pytest.raises(ConfigError, match=message):
        CalibrateOptions(**choices)
