"""What this machine is, what is installed on it, and what of pargo-export it can run.

::

    from pargo_export.doctor import diagnose

    diagnosis = diagnose()
    print([ability.name for ability in diagnosis.abilities if ability.ok])

Looks only: nothing is installed, configured or written, and no CUDA context is made.
"""

from __future__ import annotations

from pargo_export.device.gpu import Driver, Gpu
from pargo_export.device.machine import Cpu, Jetson, Machine
from pargo_export.doctor.abilities import Ability, PrecisionSupport
from pargo_export.doctor.diagnosis import Diagnosis, diagnose
from pargo_export.doctor.tensorrt import TensorRTState

__all__ = [
    "Ability",
    "Cpu",
    "Diagnosis",
    "Driver",
    "Gpu",
    "Jetson",
    "Machine",
    "PrecisionSupport",
    "TensorRTState",
    "diagnose",
]
