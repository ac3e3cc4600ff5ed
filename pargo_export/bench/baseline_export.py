"""The plain export of a checkpoint to ONNX, in a process of its own, whose memory is gone when it ends.

    python -m pargo_export.bench.baseline_export BUNDLE CHECKPOINT

As PyTorch's own instructions have it: `torch.onnx.export` with a dynamic batch, nothing rewritten before or after. The
file is kept in the cache directory of the user and hashed before it is used again.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pargo_export.errors
from pargo_export.bench.baseline import first_line, largest_batch
from pargo_export.bundle import Bundle, recipe_sha256, sha256_file
from pargo_export.device.cache import cache_directory
from pargo_export.errors import ExportError, PargoExportError

__all__ = ["ExportedReference", "find_or_export"]

_GRAPH = "model.onnx"
_RECORD = "sha256.json"


@dataclass(frozen=True)
class ExportedReference:
    """A plain export.

    Attributes:
        path: The `.onnx` file; weights may lie beside it.
        sha256: Hash of all its files together.
    """

    path: Path
    sha256: str


def find_or_export(bundle: Bundle, checkpoint: Path) -> ExportedReference:
    """Compare the checkpoint with the bundle and export it, unless that was done before, in a process of its own.

    At full size it takes a minute or more and 2 GB of memory, and keeps 1.3 GB in `XDG_CACHE_HOME`.

    Raises:
        CheckpointError: The checkpoint cannot be read, or the bundle was made from another one.
        ExportError: PyTorch cannot export the model, or the cache directory cannot be written.
    """
    command = [sys.executable, "-m", __name__, str(bundle.path), str(checkpoint)]
    its_input, ours = os.pipe()  # it ends when this process does, however that ends
    try:
        done = subprocess.run(
            command, stdin=its_input, capture_output=True, text=True, errors="replace", check=False
        )
    finally:
        os.close(its_input)
        os.close(ours)
    answer = _read_answer(done.stdout)
    if "error" in answer:
        kind = getattr(pargo_export.errors, answer["kind"], ExportError)
        raise kind(answer["error"])
    if "path" not in answer:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ExportError(
            f"the plain export of {checkpoint} ended with status {done.returncode}: {lines[-1] if lines else 'it said nothing'}; "
            "it needs about twice the memory of the weights"
        )
    return ExportedReference(Path(answer["path"]), answer["sha256"])


def _read_answer(output: str) -> dict[str, Any]:
    """Return the last line as JSON; libraries may have written before it, or it was never written."""
    with contextlib.suppress(json.JSONDecodeError, IndexError):
        answer = json.loads(output.splitlines()[-1])
        if isinstance(answer, dict):
            return answer
    return {}


def _export(bundle: Bundle, checkpoint: Path) -> ExportedReference:
    """Do it in this process."""
    import torch

    from pargo_export.bench.baseline_reference import load_reference

    importlib.import_module("onnxscript")
    model = load_reference(bundle, checkpoint)
    max_batch = largest_batch(bundle)
    name = f"{bundle.manifest.source.sha256[:16]}-torch{torch.__version__}-batch{max_batch}"
    folder = cache_directory("baselines") / name
    found = _read_kept(folder)
    if found is not None:
        return found
    height, width = bundle.manifest.model.input_size
    example = torch.zeros(min(2, max_batch), 3, height, width)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=max_batch)},) if max_batch > 1 else None
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as work:
        made = Path(work) / "made"
        made.mkdir()
        try:
            torch.onnx.export(
                model, (example,), made / _GRAPH, dynamo=True, dynamic_shapes=dynamic, verbose=False
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"PyTorch could not export the model: {first_line(error)}") from error
        hashes = {path.name: sha256_file(path) for path in sorted(made.iterdir())}
        (made / _RECORD).write_text(json.dumps(hashes), "utf-8")
        try:
            _replace(folder, made, Path(work) / "old")
        except OSError:  # another process may have put its own there
            found = _read_kept(folder)
            if found is None:
                raise
            return found
    return ExportedReference(folder / _GRAPH, recipe_sha256(hashes))


def _read_kept(folder: Path) -> ExportedReference | None:
    """Return what was exported before; `None` if there is nothing, or it was changed since."""
    try:
        hashes: dict[str, str] = json.loads((folder / _RECORD).read_text("utf-8"))
        intact = all(sha256_file(folder / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError):
        return None
    return ExportedReference(folder / _GRAPH, recipe_sha256(hashes)) if intact else None


def _replace(folder: Path, made: Path, old: Path) -> None:
    """Put a finished export in its place; what was there goes."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    made.rename(folder)


def _answer() -> dict[str, Any]:
    """Export what the command line names; an error becomes an answer."""
    try:
        exported = _export(Bundle.open(sys.argv[1]), Path(sys.argv[2]))
    except PargoExportError as error:
        return {"kind": type(error).__name__, "error": str(error)}
    except ImportError as error:
        return {
            "kind": "MissingDependencyError",
            "error": f"{error.name} is needed to export the checkpoint: pip install 'pargo-export[export]' ({error})",
        }
    except OSError as error:
        return {"kind": "ExportError", "error": f"the export cannot be kept: {error}; set XDG_CACHE_HOME"}
    return {"path": str(exported.path), "sha256": exported.sha256}


def _leave_with_parent() -> None:
    """Wait until the input ends, then leave as after a signal, so that nothing unfinished stays in the cache."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Export, and tell the process that started this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    print(json.dumps(_answer()))  # noqa: T201 - that process reads it


if __name__ == "__main__":
    main()
