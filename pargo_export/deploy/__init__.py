"""From whatever stands there, a checkpoint or a bundle, to a TensorRT engine that was checked on the device.

`plan.py` says which steps that takes, as data; `deployment.py` does them. Nothing here needs PyTorch unless the plan
exports a checkpoint, so that the same code runs on a Jetson.
"""

from __future__ import annotations

from pargo_export.deploy.deployment import DeployResult, deploy_engine
from pargo_export.deploy.facts import MachineFacts, find_facts
from pargo_export.deploy.options import CheckpointOptions, DeployOptions
from pargo_export.deploy.plan import Plan, make_plan
from pargo_export.deploy.steps import Step
from pargo_export.deploy.target import Target

__all__ = [
    "CheckpointOptions",
    "DeployOptions",
    "DeployResult",
    "MachineFacts",
    "Plan",
    "Step",
    "Target",
    "deploy_engine",
    "find_facts",
    "make_plan",
]
