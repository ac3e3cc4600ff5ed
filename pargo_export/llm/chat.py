"""Questions about images: a runtime, a language model and a template together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pargo_export.errors import ConfigError, InputError
from pargo_export.llm.answers import clean_answer
from pargo_export.llm.language_model import LanguageModel
from pargo_export.llm.prompts import MME_TEMPLATE, check_template, fill_template
from pargo_export.llm.settings import OFFICIAL, GenerationSettings
from pargo_export.llm.splicing import splice

if TYPE_CHECKING:
    from pargo_export.runtime import Runtime

__all__ = ["Chat"]


class Chat:
    """Answers questions about images.

    ::

        with Runtime.open("bundle") as runtime, open_language_model("llm") as language_model:
            chat = Chat(runtime, language_model)
            chat.ask(["dog.jpg"], ["Is there a dog in the image? Please answer yes or no."])  # ["Yes"]

    Runtime and language model stay the caller's, who closes them.

    Args:
        runtime: Computes visual tokens, with any variant on any backend; `None` if only `answer` is used.
        language_model: Reads them.
        template: Text with `<ImageHere>` and `{}`.
        settings: How answers are generated.

    Raises:
        ConfigError: The template has not one place for image and question each, or the runtime does not compute
            visual tokens of the width that the language model reads.
    """

    def __init__(
        self,
        runtime: Runtime | None,
        language_model: LanguageModel,
        *,
        template: str = MME_TEMPLATE,
        settings: GenerationSettings = OFFICIAL,
    ) -> None:
        self.runtime = runtime
        self.language_model = language_model
        self.template = check_template(template)
        self.settings = settings
        if runtime is not None:
            _check_widths(runtime, language_model)

    def answer(self, visual_tokens: NDArray[np.float32], questions: Sequence[str]) -> list[str]:
        """Answer questions about images that were encoded already, as one batch.

        Args:
            visual_tokens: float32 `[B, Q, C]`, one row a question, or one row for all of them.
            questions: What to ask.

        Returns:
            One answer a question, cleaned as the official evaluation does.

        Raises:
            InputError: A question is empty, or numbers or widths do not fit.
        """
        if not questions:
            return []
        prompts = [fill_template(self.template, question) for question in questions]
        visual_tokens = _rows(visual_tokens, len(questions))
        embeddings, attention_mask = splice(self.language_model, visual_tokens, prompts)
        texts = self.language_model.generate(embeddings, attention_mask, self.settings)
        return [clean_answer(text) for text in texts]

    def ask(self, images: Any, questions: Sequence[str]) -> list[str]:
        """Answer questions about images.

        Args:
            images: What `Runtime.encode` takes: one image a question, or one for all of them.
            questions: What to ask.

        Raises:
            ImageError: A picture cannot be read.
            InputError: As for `answer`, or there is no runtime.
            BackendError: The execution failed.
        """
        for question in questions:
            fill_template(self.template, question)  # refused before anything is computed
        return self.answer(self.encode(images), questions)

    def stream(self, image: Any, question: str) -> Iterator[str]:
        """Answer one question about one image, piece by piece as it is generated; not cleaned.

        Args:
            image: What `Runtime.encode` takes, or visual tokens `[1, Q, C]` of `encode`, float32.
            question: What to ask.

        Raises:
            ConfigError: The settings ask for several beams, of which none is final before the end.
            InputError: As for `answer`, or there are several images.
        """
        if self.settings.num_beams != 1:
            raise ConfigError(
                f"found {self.settings.num_beams} beams, expected greedy search: of several beams none is final before the "
                "end; stream with GREEDY (--greedy), or ask without streaming"
            )
        prompt = fill_template(self.template, question)
        visual_tokens = self._tokens_of(image)
        if len(visual_tokens) != 1:
            raise InputError(f"found {len(visual_tokens)} images, expected one; ask about several with `ask`")
        embeddings, _ = splice(self.language_model, visual_tokens, [prompt])
        return self.language_model.stream(embeddings, self.settings)

    def encode(self, images: Any) -> NDArray[np.float32]:
        """Return the visual tokens of images, float32 `[B, Q, C]`, for any number of questions.

        Raises:
            InputError: There is no runtime.
        """
        if self.runtime is None:
            raise InputError(
                "this chat has no runtime to encode images; open one, or hand visual tokens to `answer`"
            )
        return _as_numpy(self.runtime.encode(images))

    def _tokens_of(self, image: Any) -> NDArray[np.float32]:
        # What `encode` returned; image features for a projector are as wide as the tower, and go through the runtime.
        is_encoded = isinstance(image, np.ndarray) and image.dtype == np.float32 and image.ndim == 3
        if is_encoded and image.shape[2] == self.language_model.hidden_size:
            return image
        return self.encode(image)


def _rows(visual_tokens: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    visual_tokens = _as_numpy(visual_tokens)
    if visual_tokens.ndim == 3 and len(visual_tokens) == 1:
        visual_tokens = np.repeat(visual_tokens, count, axis=0)
    if len(visual_tokens) != count:
        raise InputError(
            f"found {count} questions and {len(visual_tokens)} images; expected one image a question, or one for all"
        )
    return visual_tokens


def _as_numpy(tokens: Any) -> NDArray[np.float32]:
    """Bring tokens that a backend left on a GPU to the host."""
    array = tokens.cpu().numpy() if hasattr(tokens, "cpu") else tokens
    return np.asarray(array, dtype=np.float32)


def _check_widths(runtime: Runtime, language_model: LanguageModel) -> None:
    output = runtime.signature.outputs[0]
    if runtime.variant.component == "encoder":
        raise ConfigError(
            f"variant {runtime.variant.name!r} is an encoder, which computes image features; expected visual tokens: "
            "take a variant of the whole model"
        )
    if output.shape[-1] != language_model.hidden_size:
        raise ConfigError(
            f"the bundle makes visual tokens of width {output.shape[-1]}, but the embeddings of {language_model.name} have "
            f"{language_model.hidden_size}; take the language model that the projector was trained with"
        )
