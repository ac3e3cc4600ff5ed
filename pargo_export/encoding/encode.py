"""Encode a data set: plan, skip what is there, encode the rest, and write the index."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pargo_export.bundle import Bundle, atomic_write, sha256_file
from pargo_export.encoding.choose import Chosen
from pargo_export.encoding.listing import Listing, open_entries
from pargo_export.encoding.local import Executor, LocalExecutor
from pargo_export.encoding.options import DTYPES, EncodeOptions
from pargo_export.encoding.parquet_listing import open_parquet
from pargo_export.encoding.places import (
    forget_shards,
    plan_path,
    record_path,
    remove_all,
    remove_leftovers,
    remove_work,
    require_own,
    work_directory,
    writing,
)
from pargo_export.encoding.records import (
    INDEX_NAME,
    EncodedIndex,
    Plan,
    ShardRecord,
    find_differences,
    read_record,
    to_json,
)
from pargo_export.encoding.shard_files import check_columns, require_format
from pargo_export.encoding.work import Job
from pargo_export.errors import ImageError, InputError, PargoExportError

__all__ = ["EncodedDataset", "encode_dataset"]

_LOGGER = logging.getLogger("pargo_export.encoding")


@dataclass(frozen=True)
class EncodedDataset:
    """What `encode_dataset` made.

    Attributes:
        path: The directory.
        index: What lies in it.
        num_encoded: Images that this call looked at; those of shards that were there already do not count.
        num_kept: Shards that were there already.
        seconds: Time that encoding took, opening the graph included.
    """

    path: Path
    index: EncodedIndex
    num_encoded: int
    num_kept: int
    seconds: float


def encode_dataset(
    bundle: str | os.PathLike[str] | Bundle,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: EncodeOptions | None = None,
    *,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> EncodedDataset:
    """Compute the visual tokens of every image of a data set, and write them as shards.

    Which image belongs to which shard is settled before the first one is read, and a shard appears under its name only
    when it is whole. So the files are the same whatever encodes them, in one go or after interruptions: called again,
    it checks the shards that are there by their hashes, and goes on with the others.

    Args:
        bundle: The bundle, or its directory.
        source: A folder of images, a manifest (`.jsonl`, `.json`), Parquet, WebDataset `.tar` shards, or pixels.
        output: Directory of the shards and of `index.json`; on a cluster, on a file system that all machines share.
        options: What to encode, how to store it, and where it runs.
        force: Throw away what was encoded into this directory before.
        progress: Called with a short text before each step.
        advance: Called with the images that are finished, and with all of them.

    Raises:
        BackendError: Nothing can run the bundle, the execution failed, or Ray did.
        BundleError: There is no valid bundle, or no such variant.
        ConfigError: An option is out of range.
        ImageError: An image cannot be read, and `on_error` is `"stop"`; or none of them can.
        InputError: There are no images, a column is missing, `output` holds something else or was made from another
            bundle, input or with other options, or tokens do not fit into the stored precision.
        MissingDependencyError: PyArrow or Ray is needed, and not installed.
        PargoExportError: A file cannot be written.
    """
    options = options or EncodeOptions()
    require_format(options.format)
    root = Path(os.path.abspath(bundle.path if isinstance(bundle, Bundle) else bundle))  # noqa: PTH100  keeps links
    target = Path(os.path.abspath(output))  # noqa: PTH100
    progress("looking for images")
    listing = _list(source, options)
    with ExitStack() as stack:
        stack.enter_context(writing(target))
        require_own(target)
        began = time.perf_counter()
        progress("starting ray workers" if options.executor == "ray" else "choosing the graph")
        executor = stack.enter_context(_start(options))
        plan = _plan(listing, executor.choose(root, options), options)
        job = Job(root, target, plan, listing, options.on_error, executor.threads)
        progress("checking what is there")
        kept = _prepare(target, plan, force=force)
        _check_failures(kept, options)
        records = _run(executor, job, kept, progress, advance)
        index = _finish(target, plan, records)
    fresh = [record for record in records if record.number not in {item.number for item in kept}]
    return EncodedDataset(
        path=Path(output),
        index=index,
        num_encoded=sum(record.num_images for record in fresh),
        num_kept=len(kept),
        seconds=time.perf_counter() - began,
    )


def _list(source: str | os.PathLike[str], options: EncodeOptions) -> Listing:
    location = os.fspath(source)
    path = Path(os.path.abspath(location))  # noqa: PTH100
    named = {"id column": options.id_column, "image column": options.image_column}
    found = open_entries(path, location, options.carry, named)
    if found is not None:
        return found
    listing = open_parquet(
        path,
        location,
        id_column=options.id_column,
        image_column=options.image_column,
        carry=options.carry,
    )
    if options.format == "safetensors":
        check_columns(listing.columns())
    return listing


def _start(options: EncodeOptions) -> Executor:
    if options.executor == "local":
        return LocalExecutor(options.threads)
    from pargo_export.encoding.ray_executor import RayExecutor

    return RayExecutor(options)


def _plan(listing: Listing, chosen: Chosen, options: EncodeOptions) -> Plan:
    return Plan(
        input=listing.described,
        model=chosen.model,
        output=chosen.output,
        shape=chosen.shape,
        dtype=DTYPES[options.precision],
        format=options.format,
        shard_size=options.shard_size,
    )


def _prepare(output: Path, plan: Plan, *, force: bool) -> list[ShardRecord]:
    """Write the plan, and return the records of the shards that are there and whole; everything else is removed.

    Raises:
        InputError: What is there was made otherwise.
        PargoExportError: The directory cannot be written.
    """
    try:
        if force:
            remove_all(output)
        remove_leftovers(output)
        index = read_record(output / INDEX_NAME, EncodedIndex)
        before = read_record(plan_path(output), Plan) if index is None else index.plan
        if before is not None:
            differences = find_differences(before, plan)
            if differences:
                raise InputError(
                    f"{output} was encoded otherwise; {'; '.join(differences)}: choose another directory, or throw away "
                    "what is there (--force)"
                )
        found = list(index.shards) if index is not None else _recorded(output, plan)
        kept = [record for record in found if _is_whole(output, plan, record)]
        if index is not None and len(kept) == plan.num_shards:
            remove_work(output)
            return kept
        work_directory(output).mkdir(exist_ok=True)
        atomic_write(plan_path(output), to_json(plan))
        forget_shards(output, set(range(plan.num_shards)) - {record.number for record in kept})
        for record in kept:
            atomic_write(record_path(output, record.number), to_json(record))
        (output / INDEX_NAME).unlink(missing_ok=True)  # last: until here it alone says what is whole
    except OSError as error:
        raise PargoExportError(
            f"{output}: cannot be written ({error}); get write access, or choose another directory"
        ) from error
    return kept


def _recorded(output: Path, plan: Plan) -> list[ShardRecord]:
    found = (read_record(record_path(output, number), ShardRecord) for number in range(plan.num_shards))
    return [record for record in found if record is not None]


def _is_whole(output: Path, plan: Plan, record: ShardRecord) -> bool:
    """Whether a shard is the one that was recorded; its file is hashed."""
    path = output / record.file
    if record.file != plan.file_of(record.number) or not path.is_file():
        return False
    return path.stat().st_size == record.size_bytes and sha256_file(path) == record.sha256


def _check_failures(kept: Sequence[ShardRecord], options: EncodeOptions) -> None:
    """Refuse images that an earlier call left out, if they are to stop everything."""
    failed = [image for record in kept for image in record.failed]
    if failed and options.on_error == "stop":
        raise ImageError(
            f"{failed[0].id}: {failed[0].reason} ({len(failed)} images were left out before; --on-error record accepts that, "
            "--force begins anew)"
        )


def _run(
    executor: Executor,
    job: Job,
    kept: Sequence[ShardRecord],
    progress: Callable[[str], None],
    advance: Callable[[int, int], None],
) -> list[ShardRecord]:
    """Encode the shards that are missing, and return the records of all of them, in order."""
    total = job.plan.input.num_images
    there = done = sum(record.num_images for record in kept)
    records = {record.number: record for record in kept}
    missing = [number for number in range(job.plan.num_shards) if number not in records]
    if not missing:
        return [records[number] for number in sorted(records)]
    progress(f"encoding {total - there} images with {job.plan.model.variant} on {job.plan.model.backend}")
    began = time.perf_counter()

    def count(images: int) -> None:
        nonlocal done
        done += images
        advance(done, total)

    advance(done, total)
    for record in executor.run(job, missing, count):
        records[record.number] = record
        rate = (done - there) / (time.perf_counter() - began)
        left = (total - done) / rate if rate else float("inf")
        _LOGGER.info(
            "%s: shard %d of %d, %.1f images/s, %.0f s left",
            record.file,
            len(records),
            job.plan.num_shards,
            rate,
            left,
            extra={
                "pargo_event": "shard_written",
                "pargo_path": record.file,
                "pargo_num_images": record.num_images,
            },
        )
    return [records[number] for number in sorted(records)]


def _finish(output: Path, plan: Plan, records: Sequence[ShardRecord]) -> EncodedIndex:
    """Write the index, and remove what was needed until then."""
    written = read_record(output / INDEX_NAME, EncodedIndex)
    if written is not None:
        return written
    rows = sum(record.rows for record in records)
    failed = [image for record in records for image in record.failed]
    if not rows:
        raise ImageError(
            f"none of the {plan.input.num_images} images can be read; the first, {failed[0].id}: {failed[0].reason}"
        )
    index = EncodedIndex(plan=plan, rows=rows, num_failed=len(failed), shards=tuple(records))
    try:
        remove_leftovers(output)  # of workers that died
        atomic_write(output / INDEX_NAME, to_json(index))
        remove_work(output)
    except OSError as error:
        raise PargoExportError(
            f"{output / INDEX_NAME}: cannot be written ({error}); free space there, then start again: the shards are kept"
        ) from error
    return index
