"""Engines are taken out of a bundle with what only they need."""

from __future__ import annotations

import pytest
from deploy.engine_records import engine_of

from pargo_export.bundle import Bundle, BundleTransaction, PluginRequirement, sha256_bytes
from pargo_export.deploy.records import drop_engine
from pargo_export.errors import BundleError


def library(name: str) -> PluginRequirement:
    """Return a plugin library."""
    file = f"engines/plugins/{name}"
    digest = sha256_bytes(file.encode())  # every file of these bundles contains its own name
    return PluginRequirement(operators=("a::B",), kind="library", file=file, sha256=digest)


@pytest.fixture
def with_engines(uncalibrated):
    """Return a bundle with the engines `one` and `two`, which share a library; `one` has another of its own."""
    engines = [
        engine_of(
            "fp32",
            name=name,
            plugins=tuple(map(library, libraries)),
            engine_sha256=sha256_bytes(f"engines/{name}.engine".encode()),
            size_bytes=len(f"engines/{name}.engine"),
        )
        for name, libraries in (("one", ("shared.so", "own.so")), ("two", ("shared.so",)))
    ]
    with BundleTransaction(uncalibrated) as transaction:
        files = {}
        for file in {file for engine in engines for file in engine.files}:
            transaction.stage(file).write_text(file)
            files[file] = transaction.record(file, stage="engine")
        transaction.commit(transaction.previous.merged(engines=engines, files=files))
    return uncalibrated


def test_an_engine_and_what_only_it_needs(with_engines):
    """Its file, its sidecar and its own library go; what another engine needs stays."""
    bundle = drop_engine(with_engines, "one")
    assert set(bundle.manifest.engines) == {"two"}
    left = {path.relative_to(with_engines).as_posix() for path in with_engines.glob("engines/**/*.*")}
    assert left == {"engines/two.engine", "engines/two.json", "engines/plugins/shared.so"}
    assert all(check.ok for check in Bundle.open(with_engines).verify())


def test_the_last_engine(with_engines):
    """Nothing of it stays, and the graphs do."""
    drop_engine(with_engines, "two")
    bundle = drop_engine(with_engines, "one")
    assert bundle.manifest.engines == {}
    assert not [path for path in bundle.manifest.files if path.startswith("engines/")]
    assert "fp32" in bundle.manifest.variants


def test_an_engine_that_is_not_there(with_engines):
    """Somebody else was faster."""
    with pytest.raises(BundleError, match="has no engine 'three'; it was removed meanwhile"):
        drop_engine(with_engines, "three")
