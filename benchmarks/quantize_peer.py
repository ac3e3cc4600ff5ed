"""Quantize a float32 ONNX file with another tool, for `quantization_cpu.py` to compare with.

Needs the tool and NumPy, not this package, so that a tool whose dependencies clash runs in an environment of its own.
Pixels come as `[N, 3, H, W]` float32 in an `.npy` file. Prints one JSON line: seconds, peak memory, version, images.

    python benchmarks/quantize_peer.py nncf float.onnx pixels.npy nncf.xml --images 16
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def quantize_onnxruntime(graph: Path, pixels: Array, out: Path, **options: Any) -> str:
    """`quantize_static`, with its defaults but for `options`."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    name = onnx.load(graph, load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._items: Iterator[dict[str, Array]] = iter({name: item[None]} for item in pixels)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._items, None)

    quantize_static(graph, out, Reader(), use_external_data_format=True, **options)
    return f"onnxruntime {onnxruntime.__version__}"


def quantize_onnxruntime_u8(graph: Path, pixels: Array, out: Path) -> str:
    """As its documentation advises for x86 with VNNI: unsigned activations, weights per channel, products only."""
    from onnxruntime.quantization import QuantType

    return quantize_onnxruntime(
        graph,
        pixels,
        out,
        activation_type=QuantType.QUInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul"],
    )


def quantize_nncf(graph: Path, pixels: Array, out: Path) -> str:
    """Post-training quantization for transformers: `preset=MIXED`, `model_type=TRANSFORMER`."""
    import nncf
    import openvino

    quantized = nncf.quantize(
        openvino.Core().read_model(graph),
        nncf.Dataset([item[None] for item in pixels]),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(pixels),
    )
    openvino.save_model(quantized, out, compress_to_fp16=False)
    return f"nncf {nncf.__version__}, openvino {openvino.__version__.partition('-')[0]}"


def quantize_modelopt(graph: Path, pixels: Array, out: Path) -> str:
    """INT8 with its default calibration (entropy), on the CPU."""
    import modelopt
    import onnx
    from modelopt.onnx.quantization import quantize

    model = onnx.load(graph, load_external_data=False)
    feed = model.graph.input[0]
    sizes = "x".join(str(size) for size in (1, *pixels.shape[1:]))
    quantize(
        str(graph),
        quantize_mode="int8",
        calibration_data={feed.name: pixels},
        calibration_shapes=f"{feed.name}:{sizes}",
        calibration_eps=["cpu"],
        use_external_data_format=True,
        output_path=str(out),
    )
    return f"nvidia-modelopt {modelopt.__version__}"


TOOLS: dict[str, Callable[[Path, Array, Path], str]] = {
    "ort-defaults": quantize_onnxruntime,
    "ort-u8": quantize_onnxruntime_u8,
    "nncf": quantize_nncf,
    "modelopt": quantize_modelopt,
}


def main() -> None:
    """Quantize, print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("graph", type=Path)
    parser.add_argument("pixels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=4)
    arguments = parser.parse_args()
    pixels = np.load(arguments.pixels)[: arguments.images]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the tools print is not the answer
    start = time.perf_counter()
    version = TOOLS[arguments.tool](arguments.graph, pixels, arguments.out)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text("utf-8")
    peak_kib = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])
    record = {
        "tool": version,
        "images": len(pixels),
        "seconds": round(seconds, 1),
        "peak_rss_mb": round(peak_kib * 1024 / 1e6, 1),
    }
    answers.write(json.dumps(record) + "\n")
    answers.close()


if __name__ == "__main__":
    sys.exit(main())
