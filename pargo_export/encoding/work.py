"""One shard: read, decode, encode, write, and record."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pargo_calibration.errors import CalibrationDataError
from pargo_export.bundle import Bundle, atomic_write, sha256_file
from pargo_export.bundle.faults import is_out_of_space
from pargo_export.encoding.listing import FoundImage, Listing, ReadImage
from pargo_export.encoding.options import OnError
from pargo_export.encoding.places import record_path
from pargo_export.encoding.records import FailedImage, Plan, ShardRecord, read_record, to_json
from pargo_export.encoding.shard_files import start_shard
from pargo_export.errors import ImageError, InputError, PargoExportError
from pargo_export.preprocessing import PictureThreads, PreprocessSpec, fit_to_input, load_image
from pargo_export.runtime import Runtime

__all__ = ["Job", "encode_shard", "open_runtime"]

# Batches that wait, decoded, while one is computed.
_AHEAD = 2


@dataclass(frozen=True)
class Job:
    """Everything that a process needs to encode shards.

    Attributes:
        bundle: The bundle, absolute.
        output: The directory of the shards, absolute.
        plan: What is to be made.
        listing: The images.
        on_error: What an unreadable image does.
        threads: CPU threads; `None`: all cores.
    """

    bundle: Path
    output: Path
    plan: Plan
    listing: Listing
    on_error: OnError
    threads: int | None


@dataclass
class _Batch:
    """Images of one run, in the order of the input."""

    num_images: int
    ids: list[str]
    carried: list[dict[str, Any]]
    hashes: list[str]
    failed: list[FailedImage]
    tokens: Future[NDArray[np.float32]] | None = None


def open_runtime(job: Job) -> Runtime:
    """Open what the plan says, and nothing else.

    Raises:
        BackendError: It cannot run here.
        BundleError: There is no valid bundle.
        InputError: The bundle is not the one that was planned with.
    """
    model = job.plan.model
    bundle = Bundle.open(job.bundle)
    variant = bundle.variant(model.variant)
    found = bundle.manifest.graph_sha256(variant.graph)
    if found != model.graph_sha256:
        raise InputError(
            f"{job.bundle}: the graph of {variant.name} has sha256 {found}, planned was {model.graph_sha256}; make the same "
            "bundle visible to every worker"
        )
    return Runtime.open(
        bundle, backend=model.backend, variant=model.variant, engine=model.engine, threads=job.threads
    )


def encode_shard(
    runtime: Runtime, job: Job, number: int, advance: Callable[[int], None] = lambda _: None
) -> ShardRecord:
    """Encode one shard, write it, and then its record, which says that it is whole.

    What was recorded by somebody else in the meantime is not done again.

    Args:
        runtime: What encodes, as `open_runtime` opens it.
        job: What is to be made.
        number: Of the shard.
        advance: Called with the images that were finished since.

    Raises:
        BackendError: The execution failed.
        ImageError: An image cannot be read, and that is to stop everything.
        InputError: Pixels do not fit, tokens do not fit into the stored precision, or the input has changed.
        PargoExportError: A file cannot be written.
    """
    recorded = record_path(job.output, number)
    done = read_record(recorded, ShardRecord)
    if done is not None:
        return done
    plan = job.plan
    start, stop = plan.images_of(number)
    path = job.output / plan.file_of(number)
    failed: list[FailedImage] = []
    content = hashlib.sha256()
    rows = 0

    def write(file: BinaryIO) -> None:
        nonlocal rows
        columns = job.listing.columns() if plan.format == "parquet" else ()
        metadata = {"output": plan.output, "shape": str(list(plan.shape)), "dtype": plan.dtype}
        writer = start_shard(
            file, plan.format, shape=plan.shape, dtype=plan.dtype, columns=columns, metadata=metadata
        )
        try:
            for batch in _encode(runtime, job, start, stop):
                failed.extend(batch.failed)
                if batch.tokens is not None:
                    tokens = _store(batch.tokens.result(), plan.dtype, batch.ids)
                    writer.write(batch.ids, tokens, batch.carried)
                    rows += len(batch.ids)
                    for digest in batch.hashes:
                        content.update(bytes.fromhex(digest))
                advance(batch.num_images)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise

    try:
        atomic_write(path, write)
        record = ShardRecord(
            number=number,
            file=path.name,
            sha256=sha256_file(path),
            size_bytes=path.stat().st_size,
            start=start,
            num_images=stop - start,
            rows=rows,
            failed=tuple(failed),
            images_sha256=content.hexdigest(),
        )
        atomic_write(recorded, to_json(record))
    except OSError as error:
        mend = "free space there" if is_out_of_space(error) else "check that the directory is writable"
        raise PargoExportError(
            f"{path}: cannot be written ({error}); {mend}, then start again: finished shards are kept"
        ) from error
    return record


def _encode(runtime: Runtime, job: Job, start: int, stop: int) -> Iterator[_Batch]:
    """Yield batches whose tokens are computed in the background, those behind decoded meanwhile."""
    spec = runtime.bundle.manifest.preprocessing
    threads = PictureThreads(job.threads)
    under_way: deque[_Batch] = deque()
    rows = job.listing.rows(start, stop)
    try:
        while found := list(islice(rows, job.plan.model.batch_size)):
            batch, pixels = _decode(found, spec, threads, job.on_error)
            if pixels:
                batch.tokens = runtime.submit(np.stack(pixels))
            under_way.append(batch)
            if len(under_way) > _AHEAD:
                yield under_way.popleft()
        while under_way:
            yield under_way.popleft()
    finally:
        for batch in under_way:
            if batch.tokens is not None:
                batch.tokens.cancel()
        threads.close()


def _decode(
    found: list[FoundImage], spec: PreprocessSpec, threads: PictureThreads, on_error: OnError
) -> tuple[_Batch, list[NDArray[Any]]]:
    """Read and decode the images of one run, side by side.

    Returns:
        The batch, without tokens, and the pixels of its images: `[3, H, W]`, uint8 or normalised float32.

    Raises:
        ImageError: An image cannot be read, and that is to stop everything.
    """
    results: list[tuple[ReadImage, NDArray[Any]] | str] = [""] * len(found)

    def decode_one(index: int) -> None:
        try:
            image = found[index].read()
            results[index] = (image, _pixels_of(image, found[index].id, spec))
        except (CalibrationDataError, ImageError) as error:
            if on_error == "stop":
                raise ImageError(f"{error} (--on-error record leaves such images out)") from error
            results[index] = str(error).removeprefix(f"{found[index].id}: ")

    threads.for_each(decode_one, [image.id for image in found])
    batch, pixels = _Batch(len(found), [], [], [], []), []
    for image, result in zip(found, results, strict=True):
        if isinstance(result, str):
            batch.failed.append(FailedImage(id=image.id, reason=result))
        else:
            batch.ids.append(image.id)
            batch.carried.append(dict(result[0].carried))
            batch.hashes.append(result[0].sha256)
            pixels.append(result[1])
    return batch, pixels


def _pixels_of(image: ReadImage, name: str, spec: PreprocessSpec) -> NDArray[Any]:
    if not isinstance(image.content, bytes):
        return image.content
    picture = fit_to_input(load_image(image.content, name=name), spec, name=name)
    return np.asarray(picture).transpose(2, 0, 1)


def _store(tokens: NDArray[np.float32], dtype: str, ids: list[str]) -> NDArray[np.generic]:
    """Convert tokens `[B, Q, C]` to the stored dtype.

    Raises:
        InputError: A value is not finite, or too large for it.
    """
    with np.errstate(over="ignore"):
        stored: NDArray[np.generic] = tokens.astype(dtype)
    if not np.isfinite(stored).all():
        bad = next(index for index, row in enumerate(stored) if not np.isfinite(row).all())
        largest = float(np.abs(tokens[bad]).max())
        raise InputError(
            f"{ids[bad]}: found a token value of magnitude {largest:g}, which {dtype} cannot hold; store them as fp32 "
            "(--precision fp32), or choose another variant if they are not finite there either"
        )
    return stored
