"""From what a language model wrote to an answer."""

from __future__ import annotations

__all__ = ["clean_answer"]


def clean_answer(text: str) -> str:
    r"""Return the answer in a decoded text, step by step as the official evaluation does.

    Cut at `</s>`; drop `<s>`; keep what follows the last `[/INST]`; cut at `###`; newlines and tabs become spaces.
    Source: `eval/eval_mme_finetuning.py`.

    >>> clean_answer("<s> [INST] Is it red? [/INST] Yes\n###Human: no</s></s>")
    'Yes'
    """
    text = text.split("</s>", maxsplit=1)[0]
    text = text.replace("<s>", "")
    text = text.rsplit("[/INST]", maxsplit=1)[-1].strip()
    text = text.split("###", maxsplit=1)[0].strip()
    return text.replace("\n", " ").replace("\t", " ")
