"""Where a run spends its time, and how far it is from what the machine multiplies at best.

ONNX Runtime's own profiler and OpenVINO's performance counters, summed over the operators of a run. The floor is
arithmetic: the operations of the products of the graph, at the rate that one large product of the same kind reaches
on this machine with the same library, measured just before.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import markdown_table
from onnx import TensorProto, helper, numpy_helper

from pargo_export import Bundle
from pargo_export.bundle import Variant
from pargo_export.errors import MissingDependencyError
from pargo_export.runtime.backends.openvino_module import require_openvino

__all__ = ["profile"]

_RUNS = 5
_SHAPE = (577, 1024, 5460)  # the largest product of a tower block: gate and value of the SwiGLU
_INTEGER = {
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QLinearConv",
    "QGemm",
    "MatMulNBits",
    "ConvInteger",
}
_FLOAT = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Conv", "FusedConv"}
_KINDS = {
    "norms": {"LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization"},
    "quantize": {"QuantizeLinear"},
    "dequantize": {"DequantizeLinear"},
    "softmax": {"Softmax"},
    "SiLU, GELU": {"QuickGelu", "BiasGelu", "Gelu", "FastGelu", "Sigmoid", "Erf", "Swish"},
    "add, multiply": {"Add", "Mul", "Sub", "Div", "Sqrt", "Pow", "ReduceMean"},
}

_Table = dict[tuple[str, str], list[float]]  # (kind, operator) -> milliseconds, nodes, GOP of one run


def profile(bundle: Bundle, variants: Mapping[str, Variant], images: Path, threads: int) -> dict[str, Any]:
    """Profile variants of a bundle in both libraries, and print tables.

    Args:
        bundle: The bundle.
        variants: What to profile, by name.
        images: `[N, 3, H, W]` float32 in an `.npy` file.
        threads: CPU threads.
    """
    pixels = np.load(images)[:1]
    rates = measure_rates(threads)
    print(f"one product {_SHAPE}: " + ", ".join(f"{name} {rate:.1f} GOP/s" for name, rate in rates.items()))
    profiles: dict[str, Any] = {}
    for name, variant in variants.items():
        found = _profile_onnxruntime(bundle.file(variant.graph), pixels, threads, rates)
        profiles[f"{name} on onnxruntime"] = found
        _print(f"{name}, ONNX Runtime", found)
        print(f"floor of the products at those rates: {found['floor_ms']} ms of {found['run_ms']} ms")
        try:
            found = _profile_openvino(bundle.file(variant.graph), pixels, threads)
        except MissingDependencyError as error:
            print(error)
        else:
            profiles[f"{name} on openvino"] = found
            _print(f"{name}, OpenVINO", found)
    return {"gop_per_s": rates, "product": list(_SHAPE), "profiles": profiles}


def measure_rates(threads: int) -> dict[str, float]:
    """Measure the operations per second (multiply-add = 2) of one large product, float and integer."""
    rows, inner, columns = _SHAPE
    generator = np.random.default_rng(0)
    operations = 2 * rows * inner * columns
    left = generator.standard_normal((rows, inner), np.float32)
    weight = generator.standard_normal((inner, columns), np.float32)
    integer_left = generator.integers(0, 255, (rows, inner), np.uint8)
    integer_weight = generator.integers(-127, 127, (inner, columns), np.int8)
    rates = {}
    for name, values, constant in (("float32", left, weight), ("uint8 x int8", integer_left, integer_weight)):
        is_float = name == "float32"
        graph = helper.make_graph(
            [helper.make_node("MatMul" if is_float else "MatMulInteger", ["a", "w"], ["y"])],
            "product",
            [
                helper.make_tensor_value_info(
                    "a", TensorProto.FLOAT if is_float else TensorProto.UINT8, values.shape
                )
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT if is_float else TensorProto.INT32, None)],
            [numpy_helper.from_array(constant, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        session = onnxruntime.InferenceSession(model.SerializeToString(), _options(threads))
        seconds = []
        for _ in range(12):
            start = time.perf_counter()
            session.run(None, {"a": values})
            seconds.append(time.perf_counter() - start)
        rates[name] = round(operations / float(np.median(seconds[2:])) / 1e9, 1)
    return rates


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _profile_onnxruntime(
    graph: Path, pixels: Any, threads: int, rates: Mapping[str, float]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        options = _options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: pixels}
        for _ in range(_RUNS + 1):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    nodes = [
        event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    each = len(nodes) // (_RUNS + 1)
    runs = [event["dur"] / 1e3 for event in events if event["name"] == "model_run"][1:]
    tables = []
    for start in range(each, len(nodes), each):  # without the first run, which pays for what is set up late
        table: _Table = defaultdict(lambda: [0.0, 0.0, 0.0])
        for event in nodes[start : start + each]:
            operator = event["args"]["op_name"]
            left, result = (
                _first_shape(event["args"][key]) for key in ("input_type_shape", "output_type_shape")
            )
            row = table[_kind(operator, left), operator]
            for index, amount in enumerate(
                (event["dur"] / 1e3, 1.0, _operations(operator, left, result) / 1e9)
            ):
                row[index] += amount
        tables.append(table)
    rows = _median(tables)
    integer = sum(row[2] for key, row in rows.items() if key[1] in _INTEGER)
    floating = sum(row[2] for key, row in rows.items() if key[1] in _FLOAT)
    return _summarize((*key, *values) for key, values in rows.items()) | {
        "run_ms": round(float(np.median(runs)), 2),
        "gop": {"integer": round(integer, 3), "float": round(floating, 3)},
        "floor_ms": round(1e3 * (integer / rates["uint8 x int8"] + floating / rates["float32"]), 2),
    }


def _profile_openvino(graph: Path, pixels: Any, threads: int) -> dict[str, Any]:
    from pargo_export.runtime.backends.openvino import _read_graph

    openvino = require_openvino()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "PERF_COUNT": True,
    }
    request = openvino.Core().compile_model(_read_graph(graph), "CPU", settings).create_infer_request()
    runs, tables = [], []
    before: dict[str, float] = defaultdict(float)
    for index in range(1, _RUNS + 2):
        start = time.perf_counter()
        request.infer([pixels])
        elapsed = (time.perf_counter() - start) * 1e3
        table: _Table = defaultdict(lambda: [0.0, 0.0, 0.0])
        for item in request.get_profiling_info():
            sum_ms = item.real_time.total_seconds() * 1e3 * index  # it tells the mean over all runs so far
            if sum_ms:
                row = table[item.node_type, item.exec_type]
                row[0] += sum_ms - before[item.node_name]
                row[1] += 1
                before[item.node_name] = sum_ms
        if index > 1:
            runs.append(elapsed)
            tables.append(table)
    rows = _median(tables)
    return _summarize((*key, *values) for key, values in rows.items()) | {
        "run_ms": round(float(np.median(runs)), 2)
    }


def _median(tables: list[_Table]) -> _Table:
    """Return the median of each number over the runs."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return {
        key: list(map(float, np.median([table.get(key, [0.0] * 3) for table in tables], axis=0)))
        for key in keys
    }


def _first_shape(shapes: list[dict[str, list[int]]]) -> list[int]:
    return next(iter(shapes[0].values())) if shapes else []


def _kind(operator: str, left: list[int]) -> str:
    if operator in _INTEGER:
        return "integer products"
    if operator in _FLOAT:  # only attention has heads, a fourth axis; a patch convolution has four as well
        return "attention products" if len(left) > 3 and "Conv" not in operator else "float products"
    return next(
        (kind for kind, operators in _KINDS.items() if operator in operators), "shapes, copies, other"
    )


def _operations(operator: str, left: list[int], result: list[int]) -> float:
    """Operations of a product, from the shapes that the profiler saw; it does not list prepacked weights."""
    if operator not in _INTEGER | _FLOAT or not left or not result:
        return 0.0
    columns = result[1] if "Conv" in operator else result[-1]  # patches do not overlap: a pixel is read once
    return 2.0 * float(np.prod(left)) * columns


def _summarize(rows: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    rows = sorted(rows, key=lambda row: -row[2])
    total = sum(row[2] for row in rows)
    kinds: dict[str, float] = defaultdict(float)
    for row in rows:
        kinds[row[0]] += row[2]
    return {
        "operators_ms": round(total, 2),
        "share": {
            kind: round(value / total, 4) for kind, value in sorted(kinds.items(), key=lambda item: -item[1])
        },
        "operators": [
            {
                "kind": kind,
                "operator": operator,
                "ms": round(elapsed, 3),
                "nodes": round(count),
                "share": round(elapsed / total, 4),
            }
            | ({"gop": round(gop, 3), "gop_per_s": round(1e3 * gop / elapsed, 1)} if gop else {})
            for kind, operator, elapsed, count, gop in rows
        ],
    }


def _print(title: str, found: dict[str, Any]) -> None:
    print(f"\n{title}: {found['run_ms']} ms a run, {found['operators_ms']} ms in operators\n")
    print(
        markdown_table(
            ["kind", "operator", "nodes", "ms", "share", "GOP/s"],
            (
                [
                    row["kind"],
                    row["operator"],
                    row["nodes"],
                    row["ms"],
                    f"{row['share']:.1%}",
                    row.get("gop_per_s", ""),
                ]
                for row in found["operators"][:16]
            ),
        )
    )
    print("\n" + ", ".join(f"{kind} {share:.1%}" for kind, share in list(found["share"].items())[:10]) + "\n")
