"""What a release of Jetson Linux stands for: its JetPack, and the TensorRT and CUDA that come with it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JETPACKS", "JetPack", "find_jetpack"]


@dataclass(frozen=True)
class JetPack:
    """A release of JetPack.

    Attributes:
        version: For example `"6.2"`.
        l4t: The release of Jetson Linux (L4T) under it, `"36.4.3"`.
        tensorrt: The TensorRT that comes with it, as far as it is known to the digit, `"10.3"`.
        cuda: The CUDA that comes with it, `"12.6"`.
        source: Where this was read.
    """

    version: str
    l4t: str
    tensorrt: str
    cuda: str
    source: str


# Releases to L4T: the table of jetson_stats (jtop/core/jetson_variables.py) and NVIDIA's JetPack archive.
_L4T = "jetson_stats, developer.nvidia.com/embedded/jetpack-archive"
_JETPACK_6 = f"{_L4T}; docs.pytorch.org/TensorRT/getting_started/jetpack.html"
_JETPACK_7 = f"{_L4T}; documentation of TensorRT-Edge-LLM"
_JETPACK_7_2 = "github.com/OE4T/meta-tegra, pull request 2224"

# JetPack 6.0 and before came with TensorRT 8, which this package does not support.
JETPACKS: tuple[JetPack, ...] = (
    JetPack("6.1", "36.4.0", "10.3", "12.6", _JETPACK_6),
    JetPack("6.2", "36.4.3", "10.3", "12.6", _JETPACK_6),
    JetPack("6.2.1", "36.4.4", "10.3", "12.6", _JETPACK_6),
    JetPack("6.2.1", "36.4.7", "10.3", "12.6", _JETPACK_6),
    JetPack("6.2.2", "36.5.0", "10.3", "12.6", _JETPACK_6),
    JetPack("7.0", "38.2.0", "10.13.3", "13.0", _JETPACK_7),
    JetPack("7.0", "38.2.1", "10.13.3", "13.0", _JETPACK_7),
    JetPack("7.1", "38.4.0", "10.13.3", "13.0", _JETPACK_7),
    JetPack("7.2 EA", "39.0.0", "10.16", "13.2", _JETPACK_7_2),
    JetPack("7.2", "39.2.0", "10.16", "13.2", _JETPACK_7_2),
)


def find_jetpack(l4t: str) -> JetPack | None:
    """Return the JetPack of a release of Jetson Linux; `None` if this version does not know the release."""
    return next((item for item in JETPACKS if item.l4t == l4t), None)
