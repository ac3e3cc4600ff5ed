"""Models of other tools for `quantization_cpu.py`: made once, by `quantize_peer.py`, and kept."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray

from pargo_calibration import open_source
from pargo_export import Bundle
from pargo_export.bundle import Calibration, Variant, recipe_sha256
from pargo_export.quantization.images import ImageStream

__all__ = ["PEERS", "Peers"]

# Suffix of the model, and how many calibration images a tool gets unless told otherwise. ONNX Runtime and ModelOpt keep
# the activations of all images in memory: at full size a few take 9 GB.
PEERS = {"ort-defaults": (".onnx", 4), "ort-u8": (".onnx", 4), "nncf": (".xml", 64), "modelopt": (".onnx", 4)}
_MOST_IMAGES = 128


class Peers:
    """Makes and finds the models of the other tools.

    Args:
        bundle: Where the float graph is from.
        base: Its float32 variant.
        calibration: Whose images are used.
        arguments: `data`, `work`, `python` and `images` of the command line.
    """

    def __init__(
        self, bundle: Bundle, base: Variant, calibration: Calibration, arguments: argparse.Namespace
    ) -> None:
        self._bundle, self._base, self._calibration = bundle, base, calibration
        self._data: Path = arguments.data
        self._work: Path = arguments.work
        self._pythons = dict(item.split("=", 1) for item in arguments.python)
        self._images = {key: int(value) for key, value in (item.split("=", 1) for item in arguments.images)}

    def prepare(self, peer: str) -> tuple[Path | None, dict[str, Any]]:
        """Return the model of a peer and how it was made; `None` and an error if it cannot be made.

        `float` is the bundle's float32 graph with its functions inlined, for tools that know none.
        """
        graph = self._float_graph()
        if peer == "float":
            return graph, {}
        suffix, count = PEERS[peer]
        folder = self._work / peer
        out, note = folder / f"{peer}{suffix}", folder / "record.json"
        num_images = self._images.get(peer, count)
        made_from = [self._identity, self._calibration.dataset_sha256, num_images]
        if note.is_file():
            kept: dict[str, Any] = json.loads(note.read_text("utf-8"))
            if kept["made_from"] == made_from:
                return out, kept["record"]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        script = Path(__file__).with_name("quantize_peer.py")
        command = [
            self._pythons.get(peer, sys.executable),
            str(script),
            peer,
            str(graph),
            str(self._pixels()),
            str(out),
        ]
        command += ["--images", str(num_images)]
        print(f"quantizing with {peer}", file=sys.stderr, flush=True)
        log = self._work / f"{peer}-quantize.log"
        with log.open("w") as stream:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stream, text=True, check=False)
        if done.returncode:
            last = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()][-1:]
            return None, {"error": f"not quantized: {last[0] if last else f'status {done.returncode}'}"}
        record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        note.write_text(json.dumps({"made_from": made_from, "record": record}))
        return out, record

    @property
    def _identity(self) -> str:
        files = self._bundle.manifest.files
        return recipe_sha256(
            {"files": [files[name].sha256 for name in self._bundle.manifest.files_of(self._base.graph)]}
        )

    def _float_graph(self) -> Path:
        out = self._work / "float" / "float.onnx"
        note = out.with_name("identity")
        if not note.is_file() or note.read_text("utf-8") != self._identity:
            shutil.rmtree(out.parent, ignore_errors=True)
            out.parent.mkdir(parents=True)
            for name in self._bundle.manifest.files_of(self._base.graph):
                if name != self._base.graph:  # external data
                    shutil.copy(self._bundle.file(name), out.parent)
            model = onnx.load(self._bundle.file(self._base.graph), load_external_data=False)
            onnx.save(onnx.inliner.inline_local_functions(model), out)
            note.write_text(self._identity)
        return out

    def _pixels(self) -> Path:
        """Prepare the images that the bundle was calibrated on, by their hashes."""
        path = self._work / f"calibration-{self._calibration.dataset_sha256[:12]}.npy"
        if not path.is_file():
            table = json.loads(self._bundle.check(self._calibration.table).read_text("utf-8"))
            wanted = {item["sha256"] for item in table["images"][:_MOST_IMAGES]}
            spec = self._calibration.preprocessing
            stream = ImageStream(
                open_source(self._data), spec, self._calibration.seed, self._calibration.shard
            )
            found: list[NDArray[np.float32]] = []
            for picture in stream:
                if picture.sha256 in wanted:
                    found.append(picture.values(spec))
                if len(found) == len(wanted):
                    break
            if len(found) < len(wanted):
                raise SystemExit(
                    f"--data has {len(found)} of the {len(wanted)} images that the bundle was calibrated on; hand the same data"
                )
            np.save(path, np.concatenate(found))
        return path
