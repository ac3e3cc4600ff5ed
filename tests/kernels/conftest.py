"""Triton's interpreter without work that has no effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import triton
import triton.language as tl


@pytest.fixture(autouse=True, scope="session")
def _patch_the_language_once_a_launch() -> Iterator[None]:
    """Keep the interpreter from preparing `triton.language` anew at every call of one kernel by another.

    It does so for the launch already, and until the end of it; doing it again changes nothing but takes a
    third of the time of a launch.
    """
    from triton.runtime import interpreter

    prepare = interpreter._patch_lang

    def prepare_unless_done(function: Any) -> Any:
        seen = [module for module in function.__globals__.values() if module is tl or module is tl.core]
        if seen and not any(tl.core.is_builtin(module.load) for module in seen):
            return interpreter._LangPatchScope()  # with nothing to restore
        return prepare(function)

    with pytest.MonkeyPatch.context() as patch:
        if triton.knobs.runtime.interpret:
            patch.setattr(interpreter, "_patch_lang", prepare_unless_done)
        yield
