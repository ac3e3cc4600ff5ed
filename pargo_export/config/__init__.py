"""Typed, immutable descriptions of a ParGo visual front-end.

The letters used for shapes everywhere in this package:

    B batch    T tiles    N image tokens    C channels
    Q query tokens = P partial + G global
    H heads    D head dim    W partial window = N / P
"""

from __future__ import annotations

from pargo_export.config.model import ModelConfig
from pargo_export.config.projector import ProjectorConfig, ProjectorKind
from pargo_export.config.record import Record
from pargo_export.config.tower import TowerConfig, VisionConfig, VitActivation, VitConfig, VitKind

__all__ = [
    "ModelConfig",
    "ProjectorConfig",
    "ProjectorKind",
    "Record",
    "TowerConfig",
    "VisionConfig",
    "VitActivation",
    "VitConfig",
    "VitKind",
]
