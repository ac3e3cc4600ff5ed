"""A causal language model of transformers, computed by PyTorch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Self

from pargo_export.errors import BackendError, ConfigError
from pargo_export.llm.settings import GenerationSettings
from pargo_export.llm.tokenizer import open_tokenizer
from pargo_export.llm.transformers_config import quiet_transformers, read_values
from pargo_export.llm.transformers_loading import load_language_model

__all__ = ["TransformersLanguageModel", "open_transformers_language_model"]


def open_transformers_language_model(
    directory: Path,
    *,
    adapters: str | Path | None = None,
    lora_alpha: float | None = None,
    merge_adapters: bool = True,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    trust_remote_code: bool = False,
) -> TransformersLanguageModel:
    """Open a directory of transformers; arguments and errors are those of `open_language_model`."""
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # PyTorch asserts that it was built with CUDA
        raise BackendError(
            f"device: PyTorch cannot use {device!r} here: {str(error).splitlines()[0]}; expected cpu, cuda, cuda:1"
        ) from error
    model = load_language_model(
        directory,
        adapters=adapters,
        lora_alpha=lora_alpha,
        merge_adapters=merge_adapters,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )
    model_type = read_values(directory)["model_type"]
    with quiet_transformers():
        tokenizer = open_tokenizer(directory, model_type=model_type, trust_remote_code=trust_remote_code)
    return TransformersLanguageModel(model.to(where), tokenizer, name=directory.name, threads=threads)


class TransformersLanguageModel:
    """A loaded model with its tokenizer; see `LanguageModel`.

    Args:
        model: A causal language model of transformers; its generation settings are replaced by those asked for.
        tokenizer: With `encode`, `decode` and the ids of special tokens.
        name: For messages.
        threads: CPU threads of PyTorch during a call; by default what PyTorch has. PyTorch has one number for the
            process: it is set during a call and put back.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, threads: int | None = None) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._threads = threads
        table = model.get_input_embeddings()
        self.hidden_size: int = int(table.weight.shape[1])
        self.bos_token_id: int | None = tokenizer.bos_token_id
        self._end_ids = _end_ids(model, tokenizer)
        pad = tokenizer.pad_token_id
        self._pad_id = int(pad) if pad is not None else min(self._end_ids, default=0)
        self._model: Any = model

    def __repr__(self) -> str:
        return f"TransformersLanguageModel({self.name!r}, hidden_size={self.hidden_size})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def model(self) -> Any:
        """The model of transformers.

        Raises:
            BackendError: It was closed.
        """
        if self._model is None:
            raise BackendError(f"the language model {self.name} is closed; open it again")
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self._tokenizer

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a sequence."""
        return self._end_ids

    def close(self) -> None:
        """Let go of the model; again does nothing."""
        self._model = None

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text, without special tokens."""
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=False)]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens up to, without, the first that ends the sequence; special tokens are shown."""
        ids = [int(token) for token in token_ids]
        end = next((place for place, token in enumerate(ids) if token in self._end_ids), len(ids))
        return str(self._tokenizer.decode(ids[:end], skip_special_tokens=False))

    def embed(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the input embeddings of tokens, float32 `[L, C]`."""
        table = self.model.get_input_embeddings()
        with torch.inference_mode():
            ids = torch.tensor(list(token_ids), dtype=torch.int64, device=table.weight.device)
            embedded: NDArray[np.float32] = table(ids).float().cpu().numpy()
            return embedded

    def generate(
        self,
        embeddings: NDArray[np.float32],
        attention_mask: NDArray[np.int64],
        settings: GenerationSettings,
    ) -> list[str]:
        """Continue each sequence, see `LanguageModel`.

        Raises:
            BackendError: The execution failed, or the model is closed.
        """
        return [self.decode(row) for row in self._generate(embeddings, attention_mask, settings).tolist()]

    def stream(self, embeddings: NDArray[np.float32], settings: GenerationSettings) -> Iterator[str]:
        """Continue one sequence `[1, L, C]` and yield its text word by word; together they are that of `generate`.

        A thread generates; it ends when the iterator does, also if that is closed early.

        Raises:
            ConfigError: `settings` ask for several beams.
            BackendError: The execution failed.
        """
        if settings.num_beams != 1:
            raise ConfigError(f"found {settings.num_beams} beams, expected greedy search, to stream")
        self.model  # noqa: B018 - refuses a closed model at the call, not at the first piece
        return self._stream(embeddings, settings)

    def _stream(self, embeddings: NDArray[np.float32], settings: GenerationSettings) -> Iterator[str]:
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(
            self, skip_prompt=True
        )  # of a tokenizer it uses `decode`, ours cuts at the end
        stopped = threading.Event()
        errors: list[Exception] = []

        def generate() -> None:
            mask = np.ones(embeddings.shape[:2], np.int64)
            try:
                self._generate(
                    embeddings, mask, settings, streamer=streamer, stopping_criteria=[_StopOn(stopped)]
                )
            except Exception as error:  # noqa: BLE001 - raised by the thread that asked
                errors.append(error)
                streamer.on_finalized_text("", stream_end=True)

        thread = threading.Thread(target=generate, name="pargo-llm-stream", daemon=True)
        thread.start()
        try:
            for text in streamer:
                if text:
                    yield text
        finally:
            stopped.set()
            thread.join()
        if errors:
            raise errors[0]

    def _generate(
        self,
        embeddings: NDArray[np.float32],
        attention_mask: NDArray[np.int64],
        settings: GenerationSettings,
        **options: Any,
    ) -> torch.Tensor:
        """Return the new tokens, int64 `[B, L]`."""
        model = self.model
        weight = model.get_input_embeddings().weight
        try:
            with torch.inference_mode(), self._thread_limit(), quiet_transformers():
                output: torch.Tensor = model.generate(
                    inputs_embeds=torch.as_tensor(embeddings).to(weight.device, weight.dtype),
                    attention_mask=torch.as_tensor(attention_mask).to(weight.device),
                    generation_config=self._generation_config(settings),
                    logits_processor=_processors(settings),
                    **options,
                )
                return output.cpu()
        except RuntimeError as error:  # out of memory, a device that failed
            raise BackendError(f"the language model {self.name} failed: {error}") from error

    def _generation_config(self, settings: GenerationSettings) -> Any:
        from transformers import GenerationConfig

        beams = {"num_beams": settings.num_beams, "length_penalty": settings.length_penalty}
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=settings.min_new_tokens,
            bos_token_id=self.bos_token_id,
            eos_token_id=sorted(self._end_ids) or None,
            pad_token_id=self._pad_id,
            **(beams if settings.num_beams > 1 else {}),
        )

    @contextlib.contextmanager
    def _thread_limit(self) -> Iterator[None]:
        before = torch.get_num_threads()
        if self._threads is None or self._threads == before:
            yield
            return
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _processors(settings: GenerationSettings) -> list[Any]:
    """Return the penalty as a processor of its own.

    `generate` of transformers 5 takes generated tokens for a prompt if there are only embeddings, and leaves out as many
    of them as the sequence has padding: answers would depend on the batch.
    """
    from transformers import RepetitionPenaltyLogitsProcessor

    if settings.repetition_penalty == 1:
        return []
    return [RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)]


class _StopOn:
    """A stopping criterion of transformers: every sequence ends when an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._event.is_set(), dtype=torch.bool, device=input_ids.device)


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a sequence, and clear the defaults that would mix with the settings asked for."""
    from transformers import GenerationConfig

    own = getattr(model.generation_config, "eos_token_id", None)
    if own is None:
        own = tokenizer.eos_token_id
    model.generation_config = GenerationConfig()
    ids = [] if own is None else own if isinstance(own, (list, tuple)) else [own]
    return frozenset(int(token) for token in ids)
