"""Two workers of one Ray cluster; starting them takes seconds, so there are few calls that do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from pargo_export.encoding import EncodeOptions, encode_dataset, ray_executor
from pargo_export.encoding.choose import choose_model
from pargo_export.encoding.encode import _plan, _prepare
from pargo_export.encoding.listing import open_entries
from pargo_export.encoding.ray_executor import RayExecutor, ShardWorker
from pargo_export.encoding.work import Job
from pargo_export.errors import BackendError, ImageError, InputError

# Of Ray itself: deprecated settings, and sockets that it leaves to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
    pytest.mark.usefixtures("_cluster"),
]

OPTIONS = EncodeOptions(
    variant="fp32", precision="fp32", threads=1, shard_size=4, batch_size=2, on_error="record"
)
ON_RAY = replace(OPTIONS, executor="ray", workers=2)


@pytest.fixture(scope="module")
def _cluster():
    """Start one cluster for this file; on a busy machine its processes may miss the 30 s that Ray gives them."""
    starting = RayExecutor(ON_RAY)
    for attempt in range(3):
        try:
            starting.__enter__()
            break
        except BackendError:
            if attempt == 2:
                raise
    yield
    starting.__exit__(None, None, None)
    assert not ray.is_initialized()


@pytest.fixture
def job(exported_bundle, photos, tmp_path):
    """Return a planned job."""
    out = tmp_path / "out"
    out.mkdir()
    listing = open_entries(photos, str(photos), None, {})
    plan = _plan(listing, choose_model(exported_bundle, OPTIONS), OPTIONS)
    assert _prepare(out, plan, force=False) == []
    return Job(exported_bundle, out, plan, listing, "stop", 1)


def dying_worker(marker: Path) -> type[ShardWorker]:
    """Return a worker that dies in the middle of a shard, the first time that one does."""

    class DyingWorker(ShardWorker):
        def encode(self, number):
            listing = self._job.listing
            rows = type(listing).rows

            class Deadly(type(listing)):
                def rows(self, start, stop):
                    for index, image in enumerate(rows(self, start, stop)):
                        if index == 3 and not marker.exists():
                            marker.write_text(f"{number} {os.getpid()}")
                            os._exit(1)
                        yield image

            listing.__class__ = Deadly
            try:
                return super().encode(number)
            finally:
                listing.__class__ = Deadly.__mro__[1]

    return DyingWorker


def test_a_worker_that_dies(exported_bundle, photos, content, tmp_path, monkeypatch):
    """Another one does its shard anew: every file is the one that a single process writes, and nothing else is left."""
    (photos / "02.png").write_bytes(b"no picture")
    encode_dataset(exported_bundle, photos, tmp_path / "local", OPTIONS)
    marker = tmp_path / "died"
    monkeypatch.setattr(ray_executor, "ShardWorker", dying_worker(marker))
    seen = []
    done = encode_dataset(
        exported_bundle, photos, tmp_path / "ray", ON_RAY, advance=lambda *counts: seen.append(counts)
    )
    number, pid = marker.read_text().split()
    assert int(number) in range(3)
    assert int(pid) != os.getpid()
    assert seen[0] == (0, 11)
    assert seen[-1] == (11, 11)
    assert (done.index.rows, done.index.num_failed) == (10, 1)
    found, expected = content(tmp_path / "ray"), content(tmp_path / "local")
    assert list(found) == list(expected)
    assert found == expected
    assert ray.is_initialized()  # a cluster of others keeps running


def test_an_error_of_a_worker(exported_bundle, photos, tmp_path):
    """It comes as what it is, and what was finished stays."""
    (photos / "02.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"02\.png: not a picture"):
        encode_dataset(exported_bundle, photos, tmp_path / "out", replace(ON_RAY, on_error="stop"))
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_worker_by_itself(job, photos):
    """It opens the bundle once, records each shard, and hands an error on as a result."""
    worker = ShardWorker(ray.put(job))
    first = worker({"shard": [1]})
    runtime = worker._runtime
    assert first["error"] == [""]
    assert first == worker({"shard": [1]})
    assert runtime is worker._runtime
    (photos / "inner" / "06.png").write_bytes(b"no picture")
    last = worker({"shard": [2]})
    assert last["error"] == ["ImageError"]
    assert last["record"] == [""]
    runtime.close()


def test_a_shard_that_kills_every_worker(job):
    """It is given up after some attempts, with advice."""
    worker = ShardWorker(ray.put(job))
    for _ in range(ray_executor._MAX_ATTEMPTS):
        ray_executor.count_attempt(job.output, 0)
    outcome = worker({"shard": [0]})
    worker._runtime.close()
    assert outcome["error"] == ["BackendError"]
    assert "4 workers died" in outcome["message"][0]


@pytest.mark.parametrize("what", ["bundle", "images", "output"])
def test_a_worker_that_does_not_see_what_it_needs(job, tmp_path, what):
    """It says what is missing, and on which machine."""
    elsewhere = tmp_path / "elsewhere"
    if what == "bundle":
        job = replace(job, bundle=elsewhere)
    elif what == "output":
        elsewhere.mkdir()
        job = replace(job, output=elsewhere)
    else:
        job.listing.path = elsewhere
    outcome = ShardWorker(ray.put(job))({"shard": [0]})
    assert outcome["error"] == ["InputError"]
    assert "a file system that all machines of the cluster share" in outcome["message"][0]
    assert os.uname().nodename in outcome["message"][0]


def test_the_choice_is_made_in_a_worker(exported_bundle):
    """The graph that is chosen is what a worker can run; its refusal comes as what it is."""
    with RayExecutor(ON_RAY) as executor:
        assert executor.threads == 1
        assert executor.choose(exported_bundle, ON_RAY) == choose_model(exported_bundle, OPTIONS)
        with pytest.raises(BackendError, match="unknown backend 'abacus'"):
            executor.choose(exported_bundle, replace(ON_RAY, backend="abacus"))


def test_cores_are_shared():
    """Without a number, the workers share the cores of the cluster, and each has one at least."""
    with RayExecutor(replace(ON_RAY, threads=None)) as executor:
        assert executor.threads == 1
    with RayExecutor(replace(ON_RAY, threads=None, workers=1)) as executor:
        assert executor.threads == 2
    with RayExecutor(replace(ON_RAY, threads=None, workers=5)) as executor:
        assert executor.threads == 1


def test_errors_keep_their_class():
    """What a worker raised is raised as that; a name that is no error of this package as its base."""
    assert type(ray_executor._error("InputError", "text")) is InputError
    assert type(ray_executor._error("__all__", "text")).__name__ == "PargoExportError"
