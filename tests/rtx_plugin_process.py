"""Parse and build a graph with TensorRT-RTX and the plugins, in a process of its own; prints what happened as JSON.

A process of its own: the kernels must be compiled for real while the other tests interpret them, and the parser
loads the library by a name that has to be on the path when the process starts.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import onnx
import tensorrt_rtx as trt

from pargo_kernels import trt_plugin, trt_quick_plugin


class _Log(trt.ILogger):
    """Keeps errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


def main() -> None:
    """Run scenarios on a graph: `rtx_plugin_process.py GRAPH SCENARIO...`, options of a scenario joined by commas.

    Options: `register` the plugins, in the namespace `pargo` (else in the empty one), `override` functions by
    plugins, `mark` the nodes with the namespace, `strip` the functions' bodies, `here`: compile for the GPU of
    this machine and not for 8.9, `build` an engine.
    """
    graph, *scenarios = sys.argv[1:]
    results = [_run(onnx.load(graph), set(filter(None, scenario.split(",")))) for scenario in scenarios]
    sys.stdout.write(json.dumps(results))


def _run(model: onnx.ModelProto, options: set[str]) -> dict[str, Any]:
    unknown = options - {"register", "pargo", "override", "mark", "strip", "here", "build"}
    assert not unknown, unknown
    if "mark" in options:
        trt_quick_plugin.mark_nodes(model)
    if "strip" in options:
        del model.functions[:]
    creators = []
    if "register" in options:
        namespace = "pargo" if "pargo" in options else ""
        target = None if "here" in options else 89
        creators = trt_plugin.register_plugins(trt, namespace=namespace, compute_capability=target)
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if "override" in options:
        trt_plugin.prefer_plugins(parser, trt)
    parsed = parser.parse(model.SerializeToString())
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    result = {
        "parsed": parsed,
        "layers": len(layers),
        "plugins": [
            [layer.name, list(layer.get_output(0).shape), layer.get_output(0).dtype.name]
            for layer in layers
            if parsed and layer.type == trt.LayerType.PLUGIN_V3
        ],
        "errors": log.errors,
    }
    if "build" in options:
        engine = _build(builder, network)
        result["engine"] = None if engine is None else len(engine)
        names = ("partial_global_kernel", "block_diagonal_kernel")
        result["kernels"] = [name for name in names if engine and f'"name": "{name}"'.encode() in engine]
    del parser, network, builder
    trt_plugin.deregister_plugins(trt, creators)
    return result


def _build(builder: trt.Builder, network: trt.INetworkDefinition) -> bytes | None:
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shapes = [tuple(batch if size < 0 else size for size in tensor.shape) for batch in (1, 2, 4)]
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    engine = builder.build_serialized_network(network, config)
    return None if engine is None else bytes(engine)


if __name__ == "__main__":
    main()
