"""Host and device arrays in, visual tokens out, by CUDA graphs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pargo_export.bundle import Manifest, Variant
from pargo_export.errors import BackendError, InputError
from pargo_export.runtime.cuda.graphs import Slot, as_backend_error
from pargo_export.runtime.cuda.host_memory import HostResults
from pargo_export.runtime.cuda.loading import load_program
from pargo_export.runtime.cuda.memory import estimate_need
from pargo_export.runtime.cuda.options import ProgramOptions
from pargo_export.runtime.runner import Array, Runner, RunnerOptions, StageTimes
from pargo_export.runtime.slots import SlotPool, batch_sizes
from pargo_export.signature import Signature

__all__ = ["CudaRunner"]


class CudaRunner(Runner):
    """A variant on one GPU. Kernels are compiled and graphs captured when it is opened, not in the first run.

    Triton keeps compiled kernels in `TRITON_CACHE_DIR`, by default `~/.triton/cache`.

    Args:
        path: The `.onnx` file of the variant.
        manifest: Of the bundle.
        variant: The variant.
        options: Streams.
        program: How to compute it.

    Raises:
        BackendError: The variant cannot run here, memory is short, or CUDA fails.
    """

    takes_device_arrays = True
    times_stages = True

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        variant: Variant,
        options: RunnerOptions | None = None,
        program: ProgramOptions | None = None,
    ) -> None:
        streams = (options or RunnerOptions()).streams
        try:
            self._device = torch.device("cuda", torch.cuda.current_device())
            gpu = torch.cuda.get_device_name(self._device)
        except RuntimeError as error:
            raise as_backend_error(error, "opening the GPU") from error
        self._input, self._output = variant.signature.inputs[0], variant.signature.outputs[0]
        self._max_batch = variant.max_batch
        self.normalizes = variant.component != "projector" and variant.input == "float"
        accepted = [torch.uint8 if self._input.dtype == "uint8" else torch.float32]
        if self.normalizes:
            accepted.append(torch.uint8)
        self._dtypes = tuple(accepted)
        self._signatures = {dtype: _with_input_dtype(variant.signature, dtype) for dtype in self._dtypes}
        count = f", {streams} streams" if streams > 1 else ""
        super().__init__(
            variant.signature,
            f"CUDA graphs, PyTorch {torch.__version__}, on {gpu}{count}",
        )
        self._results = HostResults()
        try:
            self._slots = SlotPool(self._make_slots(path, manifest, variant, streams, program))
        except BackendError:
            raise
        except Exception as error:  # CUDA, the libraries and Triton share no base
            if not _ran_out_of_memory(error):
                raise as_backend_error(error, f"loading variant {variant.name!r}") from error
            error.__traceback__ = error.__context__ = None  # their frames hold what was allocated so far
            need, free = estimate_need(manifest, variant, streams), _free_bytes(self._device)
            raise BackendError(need.explain(variant.name, self._max_batch, free)) from error

    def _make_slots(
        self,
        path: Path,
        manifest: Manifest,
        variant: Variant,
        streams: int,
        options: ProgramOptions | None,
    ) -> list[Slot]:
        program = load_program(path, manifest, variant, device=self._device, options=options)
        slots: list[Slot] = []
        try:
            for _ in range(streams):
                slots.append(  # noqa: PERF401 - those made before one fails hand their streams back
                    Slot(
                        program,
                        tuple(map(int, self._input.shape[1:])),
                        tuple(map(int, self._output.shape[1:])),
                        self._dtypes,
                        batch_sizes(self._max_batch),
                        self._device,
                    )
                )
        except BaseException:
            for slot in slots:
                slot.close()
            raise
        return slots

    def run_on_device(self, values: Any, batch_size: int) -> Any:
        """Compute an array of a GPU without the host.

        Args:
            values: `[B, ...]` or one image; a CUDA tensor of torch or an array that speaks DLPack, with the axes of the
                signature's input; normalised pixels in any float type, uint8 pixels, or image features. NaN is not
                looked for.
            batch_size: Images in one run.

        Returns:
            A torch tensor, float32 `[B, ...]`, on the device of this runner, in order with the current stream.

        Raises:
            BackendError: The runner is closed, or the execution failed.
        """
        with self._running():
            tensor = values if isinstance(values, Tensor) else from_dlpack(values)
            tensor = tensor.detach()
            if tensor.ndim == len(self._input.shape) - 1:
                tensor = tensor[None]
            shape = (len(tensor), *map(int, self._output.shape[1:]))
            try:
                tensor = tensor.to(self._device)
                result = torch.empty(shape, dtype=torch.float32, device=self._device)
                for start in range(0, len(tensor), batch_size):
                    rows = slice(start, start + batch_size)
                    with self._slots.borrow() as slot:
                        slot.run_device(tensor[rows], result[rows])
            except RuntimeError as error:
                raise as_backend_error(error, f"running {list(shape)}") from error
        return result

    def _check(self, feed: Mapping[str, Array]) -> None:
        array = feed.get(self._input.name)
        is_uint8 = isinstance(array, np.ndarray) and array.dtype == np.uint8
        signature = self._signatures.get(torch.uint8) if is_uint8 else None
        (signature or self.signature).check_feed(feed)
        if array is not None and len(array) > self._max_batch:
            raise InputError(
                f"{self._input.name}: found {len(array)} images, expected at most {self._max_batch}, the largest "
                "batch that the variant was made for; split them"
            )

    def _execute(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        with self._running_on_slot(feed) as slot:
            return {self._output.name: slot.run_host(feed[self._input.name], self._results)}

    def _execute_stages(self, feed: Mapping[str, Array]) -> tuple[dict[str, Array], StageTimes]:
        with self._running_on_slot(feed) as slot:
            tokens, times = slot.run_stages(feed[self._input.name], self._results)
        return {self._output.name: tokens}, times

    @contextlib.contextmanager
    def _running_on_slot(self, feed: Mapping[str, Array]) -> Iterator[Slot]:
        """Yield a free slot; what CUDA raises there becomes an error with the shape that ran."""
        try:
            with self._slots.borrow() as slot:
                yield slot
        except RuntimeError as error:
            values = feed[self._input.name]
            raise as_backend_error(error, f"running {values.dtype}{list(values.shape)}") from error

    def _release(self) -> None:
        self._slots.clear()
        torch.cuda.empty_cache()


def _with_input_dtype(signature: Signature, dtype: torch.dtype) -> Signature:
    name = "uint8" if dtype == torch.uint8 else "float32"
    spec = signature.inputs[0].model_copy(update={"dtype": name})
    return signature.model_copy(update={"inputs": (spec, *signature.inputs[1:])})


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether that is what failed first: leaving a capture after it raises another error."""
    while error is not None:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _free_bytes(device: torch.device) -> int:
    gc.collect()
    torch.cuda.empty_cache()  # what the failed attempt held is free again
    return int(torch.cuda.mem_get_info(device)[0])
