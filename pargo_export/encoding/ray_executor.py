"""The executor of many workers: Ray Data hands out shards to actors, each with the bundle open.

The unit of work is a shard. When a worker dies, Ray starts another one and gives it the shard anew; of the dead one
nothing is left but a temporary file. Workers write shards and records by themselves: OUT, the bundle and the images must
lie where every machine of the cluster sees them. Only records travel.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from pargo_export import errors
from pargo_export.device.cores import count_usable_cores
from pargo_export.encoding.choose import Chosen, choose_model
from pargo_export.encoding.options import EncodeOptions
from pargo_export.encoding.places import count_attempt, plan_path
from pargo_export.encoding.records import ShardRecord, to_json
from pargo_export.encoding.work import Job, encode_shard, open_runtime
from pargo_export.errors import BackendError, InputError, PargoExportError
from pargo_export.optional import require
from pargo_export.runtime import Runtime

__all__ = ["RayExecutor", "ShardWorker"]

# How often a shard is begun. Ray Data starts workers anew without end: machines may come and go, but an image that kills
# its worker must not do so for ever.
_MAX_ATTEMPTS = 4
# Only descriptors and records go through the object store; Ray wants 75 MiB at least.
_OBJECT_STORE_BYTES = 128 << 20
# Read when Ray starts: no usage statistics; a worker that asks for no GPU sees none.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
_LOGGERS = ("ray", "ray.data")


class ShardWorker:
    """Encodes shards in a worker; Ray Data makes one for each actor.

    Args:
        job: Reference of the `Job`.
    """

    def __init__(self, job: Any) -> None:
        import ray

        self._job: Job = ray.get(job)
        self._runtime: Runtime | None = None

    def __call__(self, shards: dict[str, Any]) -> dict[str, list[str]]:
        """Encode the shards of a batch, `{"shard": [number]}`; an error of this package is a result as well."""
        outcomes: dict[str, list[str]] = {"record": [], "error": [], "message": []}
        for number in shards["shard"]:
            record, error, message = "", "", ""
            try:
                record = to_json(self.encode(int(number))).decode()
            except PargoExportError as raised:
                error, message = type(raised).__name__, str(raised)
            except OSError as raised:  # of the shared file system
                error, message = PargoExportError.__name__, f"shard {number} on {platform.node()}: {raised}"
            for name, value in zip(outcomes, (record, error, message), strict=True):
                outcomes[name].append(value)
        return outcomes

    def encode(self, number: int) -> ShardRecord:
        """Encode one shard; the bundle is opened for the first one."""
        if self._runtime is None:
            _check_places(self._job)
            self._runtime = open_runtime(self._job)
        if count_attempt(self._job.output, number) > _MAX_ATTEMPTS:
            raise BackendError(
                f"shard {number}: {_MAX_ATTEMPTS} workers died while they encoded it. Finished shards are kept: start again, "
                "with smaller batches or fewer workers on a machine if memory ran out; --executor local shows what else kills it"
            )
        return encode_shard(self._runtime, self._job, number)


class RayExecutor:
    """Encodes in the workers of a Ray cluster: of a running one, or of one that is started for the purpose.

    Args:
        options: `address`, `workers`, `threads` and `gpus` count.

    Attributes:
        threads: CPU threads of one worker.

    Raises:
        MissingDependencyError: Ray is not installed.
    """

    def __init__(self, options: EncodeOptions) -> None:
        self._ray = require("ray", extra="ray", purpose="encode with several workers")
        require("ray.data", extra="ray", purpose="encode with several workers")
        self._options = options
        self._workers = options.workers or 1
        self.threads: int | None = options.threads
        self._is_own = False
        self._levels: dict[str, int] = {}

    def __enter__(self) -> Self:
        """Start Ray, or connect to it, and settle how many workers there are.

        Raises:
            BackendError: There is no such cluster.
        """
        self._levels = {name: logging.getLogger(name).level for name in _LOGGERS}
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            if not self._ray.is_initialized():
                self._start()
            if self._options.workers is None and self._options.address is not None:
                self._workers = max(1, sum(bool(node["Alive"]) for node in self._ray.nodes()))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        if self.threads is None:
            self.threads = max(1, int(self._ray.cluster_resources().get("CPU", 1)) // self._workers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End what was started here; a cluster of others keeps running."""
        if self._is_own:
            self._ray.shutdown()
            self._is_own = False
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

    def choose(self, bundle: Path, options: EncodeOptions) -> Chosen:
        """Choose the graph and its backend in a worker: the machine that calls may have no GPU.

        Raises:
            BackendError: Nothing can run the bundle there, or Ray failed.
            InputError: The worker does not see the bundle.
        """
        if not bundle.exists():
            return choose_model(bundle, options)  # says what is wrong

        def probe() -> Chosen | tuple[str, str]:
            try:
                _check_visible(bundle, "the bundle")
                return choose_model(bundle, options)
            except PargoExportError as raised:
                return type(raised).__name__, str(raised)

        with _failures_of_ray():
            task = self._ray.remote(num_cpus=self.threads, num_gpus=options.gpus)(probe)
            found: Chosen | tuple[str, str] = self._ray.get(task.remote())
        if isinstance(found, tuple):
            raise _error(*found)
        return found

    def run(self, job: Job, shards: Sequence[int], advance: Callable[[int], None]) -> Iterator[ShardRecord]:
        """Encode shards in the workers, and yield the record of each as it comes.

        Raises:
            PargoExportError: What a worker raised, in its own class; `BackendError` if Ray failed.
        """
        with _failures_of_ray():
            outcomes = self._map(job, shards)
        while True:
            with _failures_of_ray():
                outcome = next(outcomes, None)
            if outcome is None:
                return
            if outcome["error"]:
                raise _error(outcome["error"], outcome["message"])
            record = ShardRecord.model_validate_json(outcome["record"])
            advance(record.num_images)
            yield record

    def _map(self, job: Job, shards: Sequence[int]) -> Iterator[dict[str, str]]:
        """Begin to encode shards, each a block of its own."""
        from ray.data import ActorPoolStrategy, DataContext, from_items

        DataContext.get_current().enable_progress_bars = False
        pool = ActorPoolStrategy(size=min(self._workers, len(shards)), max_tasks_in_flight_per_actor=2)
        blocks = from_items([{"shard": number} for number in shards], override_num_blocks=len(shards))
        outcomes = blocks.map_batches(
            ShardWorker,
            fn_constructor_args=(self._ray.put(job),),
            batch_size=1,
            compute=pool,
            num_cpus=self.threads,
            num_gpus=self._options.gpus,
        )
        rows: Iterator[dict[str, str]] = iter(outcomes.iter_rows())
        return rows

    def _start(self) -> None:
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if self._options.address is None:
            cpus = self._workers * (self.threads or max(1, count_usable_cores() // self._workers))
            options |= {
                "num_cpus": cpus,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
            }
        else:
            options["address"] = self._options.address
        with _environment(_QUIET):
            try:
                self._ray.init(**options)
            except Exception as error:  # a bare one where its processes do not start in time
                self._ray.shutdown()  # what was started of it
                where = self._options.address or "this machine"
                raise BackendError(
                    f"Ray cannot be started on, or reached at {where} ({error}); check the address, or leave it out to start "
                    "Ray on this machine"
                ) from error
        self._is_own = True


def _check_places(job: Job) -> None:
    """See that this machine sees what the planning one sees.

    Raises:
        InputError: It does not.
    """
    _check_visible(job.bundle, "the bundle")
    _check_visible(job.listing.path, "the images")
    _check_visible(job.output, "the output")
    plan = plan_path(job.output)
    if not plan.is_file() or plan.read_bytes() != to_json(job.plan):
        raise InputError(
            f"{job.output} on {platform.node()} is not the directory that the plan was written to; put it on a file system "
            "that all machines of the cluster share"
        )


def _check_visible(path: Path, what: str) -> None:
    if not path.exists():
        raise InputError(
            f"{what} {path}: not there on the worker {platform.node()}; put it on a file system that all machines of the "
            "cluster share, under the same path"
        )


def _error(name: str, message: str) -> PargoExportError:
    """Return the error that a worker raised."""
    kind = getattr(errors, name, PargoExportError)
    is_ours = isinstance(kind, type) and issubclass(kind, PargoExportError)
    return kind(message) if is_ours else PargoExportError(message)


@contextlib.contextmanager
def _failures_of_ray() -> Iterator[None]:
    """Turn errors of Ray into one of this package, and silence what it thinks of its own deprecated settings."""
    from ray.exceptions import RayError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except RayError as error:
        text = str(error).strip().splitlines()
        raise BackendError(
            f"the workers of Ray failed ({type(error).__name__}: {text[-1] if text else 'no reason'}); finished shards are "
            "kept: start again"
        ) from error


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
