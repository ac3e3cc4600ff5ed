"""PyTorch as a baseline: the reference eager, or through `torch.compile` as it comes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pargo_export.bench.baseline import Baseline, first_line
from pargo_export.bench.baseline_reference import load_reference
from pargo_export.bench.records import Subject
from pargo_export.bundle import Bundle
from pargo_export.device.cores import count_usable_cores
from pargo_export.errors import BackendError
from pargo_export.runtime.runner import Array, StageTimes

__all__ = ["TorchBaseline"]


class TorchBaseline(Baseline):
    """The reference in inference mode, without autocast. It sets the threads of PyTorch for the whole process.

    On a GPU weights and activations are float16, softmax statistics float32; input and result cross as float32 from and
    to ordinary memory, cast on the GPU. Compiled, every batch size gets a program of its own (`dynamic=False`), which
    suits `torch.compile` best, in its first run.

    Args:
        bundle: The bundle that it is compared with.
        checkpoint: What that was made from.
        threads: CPU threads; `None`: every physical core.
        is_compiled: Use `torch.compile`, mode default.

    Raises:
        BackendError: It cannot be compiled, or memory is short.
        CheckpointError: The checkpoint cannot be read, or the bundle was made from another one.
    """

    def __init__(
        self, bundle: Bundle, checkpoint: Path, threads: int | None, *, is_compiled: bool = False
    ) -> None:
        super().__init__(bundle)
        threads = threads or count_usable_cores()
        torch.set_num_threads(threads)
        self.has_stages = torch.cuda.is_available()
        self._device = torch.device("cuda" if self.has_stages else "cpu")
        self._dtype = torch.float16 if self.has_stages else torch.float32
        how = "torch.compile (mode default, dynamic=False)" if is_compiled else "eager"
        where = "" if self.has_stages else f", {threads} thread(s)"
        precision = str(self._dtype).removeprefix("torch.")
        self.facts = Subject(
            name="torch-compile" if is_compiled else "torch",
            kind="torch-compile" if is_compiled else "torch",
            is_baseline=True,
            bundle=str(bundle.path),
            precision=precision,
            backend="torch",
            device=torch.cuda.get_device_name(self._device) if self.has_stages else "CPU",
            description=f"PyTorch {torch.__version__}, {how}, official architecture in {precision}, no autocast{where}",
        )
        module = load_reference(bundle, checkpoint, self._dtype).to(self._device)
        self._model: Callable[[Tensor], Tensor] | None = module
        if is_compiled:
            self._model = torch.compile(module, dynamic=False)
            self._compile()
        else:
            self._warm_up()

    def run(self, batch: Array) -> Array:
        """Compute visual tokens of normalised pixels, float32 `[B, 3, H, W]`."""
        return self._run(batch)

    def run_stages(self, batch: Array) -> tuple[Array, StageTimes]:
        """Compute as `run` does, with events in the stream; on a GPU only."""
        if not self.has_stages:
            return super().run_stages(batch)
        events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        for event in events:  # PyTorch makes an event when it is first recorded: not between two that count
            event.record()
        unused = iter(events)
        tokens = self._run(batch, lambda: next(unused).record())
        torch.cuda.synchronize(self._device)
        times = [float(first.elapsed_time(second)) for first, second in itertools.pairwise(events)]
        return tokens, StageTimes(*times)

    def close(self) -> None:
        """Free the model."""
        self._model = None
        if self.has_stages:
            torch.cuda.empty_cache()

    def _run(self, batch: Array, mark: Callable[[], object] = lambda: None) -> Array:
        """Copy in, compute, copy out; `mark` is called before and after each of the three."""
        if self._model is None:
            raise BackendError(f"{self.facts.name} is closed; open it again")
        try:
            with torch.inference_mode():
                mark()
                pixels = torch.from_numpy(batch).to(self._device)
                mark()
                tokens = self._model(pixels.to(self._dtype)).float()
                mark()
                result: Array = tokens.cpu().numpy()
                mark()
        except RuntimeError as error:  # what the library raises, out of memory included
            raise BackendError(
                f"{self.facts.description} failed on float32{list(batch.shape)}: {first_line(error)}; if memory ran "
                "out, use a smaller batch size"
            ) from error
        return result

    def _compile(self) -> None:
        """Run once: a compiler that is missing shows in the first run.

        Raises:
            BackendError: It cannot be compiled.
        """
        try:
            self._warm_up()
        except Exception as error:  # dynamo, inductor and the compilers share no base
            reason: Any = error.__cause__ if isinstance(error, BackendError) else error
            reason = getattr(reason, "inner_exception", reason)  # what dynamo wraps says more
            raise BackendError(
                f"torch.compile failed: {first_line(reason)}; it needs a C++ compiler (apt-get install g++, or CXX), "
                "on a GPU also a C compiler and Triton: install them, or leave the baseline torch-compile out"
            ) from error
