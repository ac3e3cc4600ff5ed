"""TensorRT for RTX's own judgement of an engine: asked for real where that needs no GPU, else read from a fake."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pargo_export.trt import Log, TensorRT, load_tensorrt
from pargo_export.trt.validity import find_invalidity

FLAGS = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "MALFORMED_ENGINE": 32}


def _answering(validity, flags):
    """Return a TensorRT whose runtime gives this answer."""
    runtime = SimpleNamespace(get_engine_validity=lambda _engine: (validity, flags))
    module = SimpleNamespace(
        __version__="1.7.1.116",
        ILogger=object,
        Runtime=lambda _logger: runtime,
        EngineValidity=SimpleNamespace(VALID=0, SUBOPTIMAL=1, INVALID=2),
        EngineInvalidityDiagnostics=SimpleNamespace(__members__=FLAGS),
    )
    return TensorRT("rtx", module, Log("test"))


def test_what_is_no_engine():
    """The real module finds it out from the header, without a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    reason = find_invalidity(load_tensorrt("rtx"), b"\0" * 128)
    assert reason.endswith("cannot load it: it is not a serialized engine")


def test_the_flags_are_those_of_the_module():
    """Every diagnosis of the real module has its sentence."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    for name, flag in trt.EngineInvalidityDiagnostics.__members__.items():
        assert name not in find_invalidity(_answering(2, int(flag)), b"")
        assert int(flag) == FLAGS.get(name, int(flag))


@pytest.mark.parametrize("validity", [0, 1])
def test_an_engine_that_would_be_loaded(validity):
    """Valid is valid, also where it runs slower than it could."""
    assert find_invalidity(_answering(validity, 0), b"") is None


def test_every_reason_is_given():
    """The answer is a set of flags."""
    reason = find_invalidity(_answering(2, 1 | 2), b"")
    assert reason == (
        "TensorRT for RTX 1.7.1.116 cannot load it: it was built by another version; it was not built for the compute "
        "capability of this GPU"
    )


def test_a_runtime_that_cannot_tell():
    """TensorRT has no such question, nor RTX 1.0: nothing is claimed."""
    module = SimpleNamespace(__version__="10.3.0", ILogger=object, Runtime=lambda _logger: object())
    assert find_invalidity(TensorRT("tensorrt", module, Log("test")), b"") is None
