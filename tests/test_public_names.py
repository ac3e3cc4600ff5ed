"""Names of `pargo_export` beside those of the single stages."""

from __future__ import annotations

import subprocess
import sys

import pargo_export
from pargo_export import encoding, llm
from pargo_export.evaluation import mme

# What the commands `encode-dataset`, `chat`, `llm` and `eval mme` call.
NAMES = {
    *("EncodeOptions", "EncodedDataset", "EncodedTokens", "encode_dataset", "open_encoded"),
    *("Chat", "GenerationSettings", "open_language_model", "export_language_model"),
    *("MmeEvaluation", "MmeOptions", "describe_chat", "evaluate_mme", "read_mme", "score_only"),
}

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "onnx", "onnxruntime", "pyarrow", "ray", "scipy", "plotly"):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Blocker())
import pargo_export
print(*[getattr(pargo_export, name).__name__ for name in sys.argv[1:]])
"""


def test_names_behind_the_commands():
    """They are public, and the very objects of their packages."""
    assert set(pargo_export.__all__) >= NAMES
    assert set(dir(pargo_export)) >= NAMES
    for package in (encoding, llm, mme):
        for name in NAMES & set(package.__all__):
            assert getattr(pargo_export, name) is getattr(package, name)


def test_names_behind_the_commands_need_no_extra():
    """They can be imported with the dependencies of the package alone; what a call needs is said by the call."""
    names = sorted(NAMES)
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == names
