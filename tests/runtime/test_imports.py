"""What a device needs: no framework, and a light import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pargo_export

PACKAGES = Path(pargo_export.__file__).parent.parent
HEAVY = (
    "onnx",
    "onnx_ir",
    "onnxscript",
    "pargo_kernels",
    "scipy",
    "skimage",
    "torch",
    "transformers",
    "triton",
)

BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(f"{{name}} is not installed", name=name)
sys.meta_path.insert(0, Blocker())
"""

ENCODE = f"""
import sys
from pargo_export.runtime import Runtime, describe_provenance, write_tokens
bundle, photo, out = sys.argv[1:]
with Runtime.open(bundle) as runtime:
    tokens = runtime.encode([photo, photo])
    runtime.submit(photo).result()
    write_tokens(out, {{"visual_tokens": tokens}}, describe_provenance(runtime, [photo, photo]))
print(tokens.shape, *sorted({set(HEAVY)} & set(sys.modules)))
"""


def _python(code, *arguments):
    environment = os.environ | {"PYTHONPATH": str(PACKAGES)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("prelude", ["", BLOCKER], ids=["installed", "not installed"])
def test_encoding_needs_no_framework(bundle_path, photos, tmp_path, prelude):
    """Opening, encoding and writing load none of the export's packages, and work where they are missing."""
    out = tmp_path / "tokens.safetensors"
    assert _python(prelude + ENCODE, bundle_path, photos[0], out) == "(2, 22, 80)"
    assert out.stat().st_size > 2 * 22 * 80 * 4


def test_import_loads_no_backend():
    """The backend is imported when a bundle is opened."""
    heavy = {*HEAVY, "onnxruntime", "openvino"}
    assert _python(f"import sys, pargo_export.runtime; print(*sorted({heavy} & set(sys.modules)))") == ""
