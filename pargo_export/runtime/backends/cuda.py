"""CUDA graphs of library GEMMs and the fused kernels of `pargo_kernels`, on an NVIDIA GPU."""

from __future__ import annotations

import importlib
import importlib.util

from pargo_export.bundle import Bundle, Variant
from pargo_export.config import ModelConfig
from pargo_export.device.cuda_driver import find_compute_capability, find_driver_obstacle
from pargo_export.runtime.backends.backend import Backend
from pargo_export.runtime.backends.graph_files import check_graph
from pargo_export.runtime.backends.messages import last_line
from pargo_export.runtime.cuda.support import find_tower_refusal, find_variant_refusal
from pargo_export.runtime.runner import Runner, RunnerOptions

__all__ = ["CUDA"]

_INSTALL = "pip install 'pargo-export[cuda]'"
_ON_THE_CPU = "on a CPU use the backend 'onnxruntime' or 'openvino'"
_PACKAGES = ("torch", "triton", "onnx_ir")
_LOWEST = (8, 0)  # of the kernels: Ampere
_LOWEST_FP8 = (8, 9)


def _open(bundle: Bundle, variant: Variant, options: RunnerOptions) -> Runner:
    from pargo_export.runtime.cuda.runner import CudaRunner

    path = check_graph(bundle, variant, verify=options.verify)
    return CudaRunner(path, bundle.manifest, variant, options)


def _find_obstacle() -> str | None:
    if obstacle := find_driver_obstacle():
        return f"{obstacle}; {_ON_THE_CPU}"
    capability = find_compute_capability()
    if capability is not None and capability < _LOWEST:
        return (
            f"the GPU has compute capability {_dotted(capability)}, the kernels need {_dotted(_LOWEST)}; use the "
            "backend 'onnxruntime-cuda'"
        )
    missing = [name for name in _PACKAGES if not _is_installed(name)]
    if missing:
        return f"{', '.join(missing)} not installed: {_INSTALL}"
    return _find_torch_obstacle()


def _find_torch_obstacle() -> str | None:
    try:
        torch = importlib.import_module("torch")  # a second, but only where there is a GPU for it
    except (ImportError, OSError) as error:  # its libraries are missing or do not load
        return f"torch is installed but cannot be imported ({last_line(error)}); install it again: {_INSTALL}"
    if torch.version.cuda is None:
        return (
            f"the installed torch {torch.__version__} is built without CUDA: install one that is "
            "(https://pytorch.org/get-started/locally)"
        )
    if not torch.cuda.is_available():
        return (
            f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, cannot use the GPU; check that the "
            f"driver is new enough (nvidia-smi); {_ON_THE_CPU}"
        )
    return None


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # an import hook refuses it
        return False


def _find_variant_obstacle(variant: Variant) -> str | None:
    capability = find_compute_capability() if variant.precision == "fp8" else None
    if capability is not None and capability < _LOWEST_FP8:
        return (
            f"FP8 products need compute capability {_dotted(_LOWEST_FP8)} (Ada, Hopper, Blackwell), this GPU has "
            f"{_dotted(capability)}; use a float16 or int8 variant"
        )
    return find_variant_refusal(variant)


def _find_model_obstacle(variant: Variant, model: ModelConfig) -> str | None:
    return find_tower_refusal(variant.component, model.vision)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


CUDA = Backend(
    name="cuda",
    device="CUDA GPU",
    precisions=("float16", "bfloat16", "fp8", "int8"),
    unsupported={
        "float32": "tensor cores multiply halves; export with --precision fp16, or use the backend 'onnxruntime-cuda' "
        "or a CPU",
        "int8_weight_only": "it has no product of 8-bit weights with float activations; use a float16 or int8 variant",
        "nvfp4": "it has no NVFP4 matrix product",
    },
    targets=("cuda", "rtx", "thor", "orin"),
    find_obstacle=_find_obstacle,
    find_variant_obstacle=_find_variant_obstacle,
    find_model_obstacle=_find_model_obstacle,
    open=_open,
)
