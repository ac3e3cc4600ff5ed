"""Open, share between threads, close."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pargo_export.bundle import Bundle
from pargo_export.errors import BackendError, BundleError, ConfigError, InputError, IntegrityError
from pargo_export.runtime import Runner, Runtime
from pargo_export.signature import Signature, TensorSpec

WAIT_S = 60  # far more than anything here takes; reached only by a deadlock


class _SlowRunner(Runner):
    """Runs until it is let go."""

    def __init__(self):
        spec = TensorSpec(name="x", dtype="float32", shape=("batch",))
        super().__init__(Signature(inputs=(spec,), outputs=(spec,)), "slow")
        self.entered, self.go, self.num_released = threading.Event(), threading.Event(), 0

    def _execute(self, feed):
        self.entered.set()
        assert self.go.wait(WAIT_S)
        return dict(feed)

    def _release(self):
        self.num_released += 1


FEED = {"x": np.zeros(1, np.float32)}


@pytest.mark.parametrize(
    "options", [{}, {"warmup": False, "verify": False, "threads": 1, "allow_spinning": True}]
)
def test_opens_a_directory_or_an_opened_bundle(bundle_path, photos, options):
    """A path, its string and a `Bundle` open the same graph, with and without the optional steps."""
    expected = None
    for bundle in (bundle_path, str(bundle_path), Bundle.open(bundle_path)):
        with Runtime.open(bundle, **options) as runtime:
            tokens = runtime.encode(photos[0])
        expected = tokens if expected is None else expected
        assert np.array_equal(tokens, expected)


def test_threads_must_be_positive(bundle_path):
    """Zero threads are refused, not taken for a default."""
    with pytest.raises(ConfigError, match="threads: found 0, expected at least 1"):
        Runtime.open(bundle_path, threads=0)


def test_what_is_no_bundle_is_refused(tmp_path):
    """An empty directory and a missing one are refused with the way to make a bundle."""
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BundleError, match="pargo-export onnx"):
            Runtime.open(path)


@pytest.mark.parametrize("name", ["fp32.onnx", "fp32.onnx.data"])
def test_changed_graph_is_never_loaded(bundle_copy, name):
    """One changed byte of the graph or of the weights beside it is found before ONNX Runtime reads them."""
    bundle = _with_weights_beside(bundle_copy)
    path = bundle.path / "onnx" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="has sha256"):
        Runtime.open(bundle.path)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["fp32.onnx", "fp32.onnx.data"])
def test_cut_graph_is_never_loaded(bundle_copy, name, verify):
    """A file of another size is found even without hashing, and though the bundle was opened before."""
    bundle = _with_weights_beside(bundle_copy)
    path = bundle.path / "onnx" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="bytes, expected"):
        Runtime.open(bundle, verify=verify)


def _with_weights_beside(path):
    """Store the weights of the variant fp32 in a file of their own, as a large model has them."""
    import onnx

    from pargo_export.bundle import BundleTransaction

    model = onnx.load(path / "onnx" / "fp32.onnx")
    with BundleTransaction(path) as transaction:
        target = transaction.stage("onnx/fp32.onnx")
        onnx.save(model, target, save_as_external_data=True, location="fp32.onnx.data", size_threshold=1024)
        names = ["onnx/fp32.onnx", "onnx/fp32.onnx.data"]
        records = {name: transaction.record(name, stage="graph") for name in names}
        transaction.commit(transaction.previous.merged(files=records))
    return Bundle.open(path)


def test_weights_beside_the_graph_are_loaded(bundle_copy, runtime, photos):
    """A graph with external data computes the same."""
    with Runtime.open(_with_weights_beside(bundle_copy), threads=1) as beside:
        assert np.array_equal(beside.encode(photos), runtime.encode(photos))


def test_closed_runtime_says_so(bundle_path, photos):
    """After `close`, which may be repeated, every way to compute is refused."""
    runtime = Runtime.open(bundle_path)
    runtime.submit(photos[0]).result(WAIT_S)
    runtime.close()
    runtime.close()
    assert "(closed)" in repr(runtime)
    for use in (
        lambda: runtime.encode(photos[0]),
        lambda: runtime.encode_into(photos[0], np.zeros((1, 22, 80), np.float32)),
        lambda: runtime.run({"pixel_values": np.zeros((1, 3, 84, 84), np.float32)}),
        lambda: runtime.submit(photos[0]),
    ):
        with pytest.raises(BackendError, match=r"closed.*open the bundle again"):
            use()


def test_leaving_the_block_by_an_error_closes(bundle_path):
    """The context manager closes whatever happens, and lets the error through."""
    with pytest.raises(ZeroDivisionError), Runtime.open(bundle_path) as runtime:
        _ = 1 / 0
    with pytest.raises(BackendError, match="closed"):
        runtime.encode(np.zeros((8, 8, 3), np.uint8))


def test_sixteen_threads_get_what_one_gets(bundle_path, photos):
    """Concurrent calls of every kind, with different batches, give the same bits as calls one after the other."""
    with Runtime.open(bundle_path, threads=1, gather_ms=0, preprocess_threads=2) as runtime:
        batches = [photos[:count] for count in (1, 2, 3, 5)] * 4
        pixels = [runtime.preprocess(batch) for batch in batches]
        expected = [runtime.encode(batch) for batch in batches]

        def compute(index):
            out = np.empty_like(expected[index])
            yield runtime.encode(batches[index])
            yield runtime.encode_into(pixels[index], out)
            yield runtime.submit(batches[index]).result(WAIT_S)
            yield runtime.encode(pixels[index])

        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(lambda index: list(compute(index)), range(len(batches))))
    for index, tokens in enumerate(results):
        assert all(np.array_equal(found, expected[index]) for found in tokens)


def test_closing_a_runner_waits_for_its_runs():
    """A run in progress ends before the device is released, once; a new one is refused meanwhile."""
    runner = _SlowRunner()
    with ThreadPoolExecutor(3) as pool:
        run = pool.submit(runner.run, FEED)
        assert runner.entered.wait(WAIT_S)
        closings = [pool.submit(runner.close) for _ in range(2)]
        while not runner._closed:
            pass
        with pytest.raises(BackendError, match="the runner is closed"):
            runner.run(FEED)
        assert runner.num_released == 0
        runner.go.set()
        assert run.result(WAIT_S).keys() == {"x"}
        for closing in closings:
            closing.result(WAIT_S)
    assert runner.num_released == 1
    assert repr(runner) == "<_SlowRunner: slow (closed)>"


def test_runner_checks_its_feed_and_is_a_context_manager():
    """What does not fit the signature never reaches the backend."""
    with _SlowRunner() as runner:
        with pytest.raises(InputError, match="float64"):
            runner.run({"x": np.zeros(1)})
        assert not runner.entered.is_set()
    assert runner.num_released == 1
