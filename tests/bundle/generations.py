"""Bundles whose every file says to which commit it belongs."""

from __future__ import annotations

from pathlib import Path

from bundle.samples import files_below, make_manifest

from pargo_export.bundle import Bundle, BundleTransaction

# Each generation overwrites two files and has one of its own, in a directory of its own.
COMMON = ("onnx/fp32.onnx", "onnx/fp32.onnx.data")


def content_of(generation: int, name: str, size_bytes: int) -> bytes:
    """Content that differs between generations in every block."""
    line = f"{generation} {name}\n".encode()
    return (line * (size_bytes // len(line) + 1))[:size_bytes]


def names_of(generation: int) -> tuple[str, ...]:
    """Files of a generation."""
    return (*COMMON, f"engines/{generation}/a.engine")


def commit(path: Path, generation: int, size_bytes: int) -> None:
    """Commit a generation, writing in pieces as an exporter does."""
    with BundleTransaction(path) as transaction:
        write(transaction, generation, size_bytes)


def commit_next(path: Path, size_bytes: int) -> None:
    """Commit the generation after the one that is there."""
    with BundleTransaction(path) as transaction:
        write(
            transaction,
            1 + int(transaction.previous.tools["generation"] if transaction.previous else 0),
            size_bytes,
        )


def write(transaction: BundleTransaction, generation: int, size_bytes: int) -> None:
    """Stage, record and commit the files of a generation."""
    files = {}
    for name in names_of(generation):
        with transaction.stage(name).open("wb") as file:
            content = content_of(generation, name, size_bytes)
            for start in range(0, size_bytes, 65536):
                file.write(content[start : start + 65536])
        files[name] = transaction.record(name, stage="test")
    transaction.commit(make_manifest(files, tools={"generation": str(generation)}))


def generation_of(path: Path, size_bytes: int) -> int:
    """Open the bundle and return its generation; 0 without a bundle. Anything inconsistent is an error."""
    if not Bundle.exists(path):
        return 0
    bundle = Bundle.open(path)
    problems = [check.reason for check in bundle.verify() if not check.ok]
    assert not problems, problems
    generation = int(bundle.manifest.tools["generation"])
    expected = {name: content_of(generation, name, size_bytes) for name in names_of(generation)}
    found = {
        name: content for name, content in files_below(path).items() if not name.startswith(".transaction/")
    }
    assert found.pop("manifest.json") == bundle.manifest.to_json()
    assert found == expected, (sorted(found), sorted(expected))
    return generation
