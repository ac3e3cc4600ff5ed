"""From visual tokens to answers: the language model behind the projector.

NumPy at its surface. PyTorch, transformers and peft are imported by one backend (`transformers`), ONNX Runtime and
tokenizers by the other (`onnxruntime`), each when a model is opened.
"""

from __future__ import annotations

from pargo_export.llm.answers import clean_answer
from pargo_export.llm.chat import Chat
from pargo_export.llm.language_model import LanguageModel
from pargo_export.llm.opening import open_language_model
from pargo_export.llm.prompts import (
    CHAT_TEMPLATE,
    IMAGE_PLACEHOLDER,
    MME_TEMPLATE,
    PLAIN_TEMPLATE,
    TEMPLATES,
    check_template,
    fill_template,
    read_template,
)
from pargo_export.llm.settings import GREEDY, OFFICIAL, GenerationSettings
from pargo_export.llm.splicing import splice

__all__ = [
    "CHAT_TEMPLATE",
    "GREEDY",
    "IMAGE_PLACEHOLDER",
    "MME_TEMPLATE",
    "OFFICIAL",
    "PLAIN_TEMPLATE",
    "TEMPLATES",
    "Chat",
    "GenerationSettings",
    "LanguageModel",
    "check_template",
    "clean_answer",
    "fill_template",
    "open_language_model",
    "read_template",
    "splice",
]
