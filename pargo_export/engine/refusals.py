"""What TensorRT refuses, in words that say where and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pargo_export.bundle import Variant
from pargo_export.engine.ladder import find_rung
from pargo_export.quantization.linears import block_of
from pargo_export.trt import TensorRT

if TYPE_CHECKING:
    from tensorrt import OnnxParser, ParserError

__all__ = ["NodeRefusal", "describe_build_failure", "describe_parser_refusal", "read_parser_errors"]

_NUM_SHOWN = 3
_UNKNOWN_OPERATOR = "Plugin not found"
_STACK_ENTRY = re.compile(r"^(?P<name>.*) \((?P<operator>[^()]*)\)$")

# What the builder says, and what to do; the first that is found counts.
_ADVICE: dict[str, str] = {
    r"HW-specific datatypes": (
        "build for GPUs that have this number format (--target rtx:sm89, say), or choose a variant in another precision"
    ),
    r"within workspace limit|requested size|insufficient (?:memory|workspace)": (
        "allow more workspace (--workspace), or build for a smaller batch (--max-batch)"
    ),
    # Where memory is short tactics are skipped, and what is reported is that none is left.
    r"[Oo]ut ?[Oo]f ?[Mm]emory|MEM_ALLOC_FAILED|[Cc]ould not find any implementation|no implementation": (
        "the device is most likely out of memory: close what else uses it (on a Jetson the desktop, too), build for a "
        "smaller batch (--max-batch) or with less workspace (--workspace), and try again"
    ),
    r"is_decomposable|Attention operation was not supported": (
        "no kernel fits this Attention operator: export the variant with another form, for example pargo-export onnx "
        "CHECKPOINT -o BUNDLE --attention fused"
    ),
    r"driver version is insufficient|no CUDA-capable device|CUDA initialization failure": (
        "there is no GPU that it could use: name the GPUs to build for (--target rtx:sm86,sm89), or build on the device"
    ),
}


@dataclass(frozen=True)
class NodeRefusal:
    """One node that a parser refuses.

    Attributes:
        node: Its name, which begins with its module path; for a node inside a function that of the call.
        operator: Its operator.
        reason: The parser's words.
    """

    node: str
    operator: str
    reason: str

    @property
    def is_unknown(self) -> bool:
        """Whether the parser does not know the operator at all; it then looks for a plugin of that name."""
        return _UNKNOWN_OPERATOR in self.reason

    def __str__(self) -> str:
        where = f"{self.node or 'a node without a name'} ({self.operator}"
        path = self.node.rpartition("/")[0]
        if path:
            where += f", in {block_of(path)}"
        reason = "no such operator, and no plugin of that name" if self.is_unknown else self.reason
        return f"{where}): {reason}"


def read_parser_errors(parser: OnnxParser) -> tuple[NodeRefusal, ...]:
    """Return what a parser refused, each node once, in the order of the graph."""
    found: dict[tuple[str, str], NodeRefusal] = {}
    for index in range(parser.num_errors):
        error: ParserError = parser.get_error(index)
        node, operator = error.node_name(), error.node_operator()
        stack = error.local_function_stack()  # the calls that lead to a node inside a function body
        if stack:
            match = _STACK_ENTRY.match(stack[0])
            node = match["name"] if match else stack[0]
        found.setdefault((node, operator), NodeRefusal(node, operator, error.desc().strip()))
    return tuple(found.values())


def describe_parser_refusal(tensorrt: TensorRT, variant: Variant, refusals: tuple[NodeRefusal, ...]) -> str:
    """Return the message for a graph that the parser does not take, with the mend."""
    if not refusals:
        reason = tensorrt.log.reason("it gives no reason")
        return f"{tensorrt.title} does not parse variant {variant.name!r}: {reason}; copy or export the graph again"
    shown = "; ".join(str(item) for item in refusals[:_NUM_SHOWN])
    more = f" and {len(refusals) - _NUM_SHOWN} further nodes" if len(refusals) > _NUM_SHOWN else ""
    return (
        f"{tensorrt.title} does not take variant {variant.name!r} with attention {variant.attention!r}: {shown}{more}; "
        f"{_mend(tensorrt, variant, refusals)}"
    )


def _mend(tensorrt: TensorRT, variant: Variant, refusals: tuple[NodeRefusal, ...]) -> str:
    operators = {item.operator for item in refusals}
    rung = find_rung(tensorrt.flavor, tensorrt.version)
    if operators & {"QuantizeLinear", "DequantizeLinear"}:
        return "quantize for TensorRT: pargo-export quantize BUNDLE --int8 --target cuda (or orin, thor, rtx)"
    if "Attention" in operators or variant.attention not in rung.forms:
        return (
            f"export the variant with an attention form that this version takes ({', '.join(rung.forms)}): "
            f"pargo-export onnx CHECKPOINT -o BUNDLE --attention structured"
        )
    return "export the variant with attention 'structured', which has plain operators only, or use a newer TensorRT"


def describe_build_failure(tensorrt: TensorRT, variant: Variant, reason: str, settings: str) -> str:
    """Return the message for a build that gave nothing, with the advice that fits what TensorRT said.

    Args:
        tensorrt: What built.
        variant: What was built.
        reason: The last lines of the log.
        settings: The settings that matter, for people.
    """
    advice = next((mend for pattern, mend in _ADVICE.items() if re.search(pattern, reason)), "")
    message = f"{tensorrt.title} built no engine of variant {variant.name!r} ({settings}): {reason}"
    return f"{message}; {advice}" if advice else message
