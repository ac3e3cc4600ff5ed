"""Which results can be held against each other."""

from __future__ import annotations

import numpy as np
import pytest
from bench_cases import measurement_of, result_of

from pargo_export.bench.comparability import check_comparable, describe_changes
from pargo_export.bench.records import GpuState
from pargo_export.errors import ConfigError

OLD = result_of([measurement_of(np.array([[10.0], [11.0]]))])


def changed(part, **values):
    """Return the result with other values in one of its parts."""
    return OLD.model_copy(update={part: getattr(OLD, part).model_copy(update=values)})


def on(cpu_model):
    """Return the result of another processor."""
    return changed("environment", cpu=OLD.environment.cpu.model_copy(update={"model": cpu_model}))


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (on("Intel Xeon"), "processor: AMD EPYC 7B13, now Intel Xeon"),
        (
            changed(
                "environment",
                gpus=(GpuState(name="NVIDIA H100", compute_capability="9.0", memory_bytes=80 << 30),),
            ),
            "GPU: none, now NVIDIA H100",
        ),
    ],
)
def test_another_device_is_refused_unless_allowed(new, says):
    """The message names both; if it is allowed, the same is a warning."""
    with pytest.raises(ConfigError, match=says):
        check_comparable(OLD, new)
    check_comparable(OLD, new, allow_other_device=True)
    assert describe_changes(OLD, new)[0] == f"other device: {says}"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"num_parameters": 2000}, "parameters: 1000, now 2000"),
        ({"image_size": (56, 28)}, "image size: 28, 28, now 56, 28"),
    ],
)
def test_another_model_is_refused_whatever_is_allowed(values, says):
    """Times of models of different sizes say nothing about each other."""
    with pytest.raises(ConfigError, match=says):
        check_comparable(OLD, changed("bundle", **values), allow_other_device=True)


def test_nothing_changed_is_nothing_told():
    """The same machine, software and bundle make no warning."""
    check_comparable(OLD, OLD)
    assert describe_changes(OLD, OLD) == ()


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (
            changed("environment", packages={"onnxruntime": "1.23.0"}),
            "other software: numpy: 2.2.0, now none; onnxruntime: 1.22.0, now 1.23.0",
        ),
        (changed("environment", driver="580.1"), "other software: driver: none, now 580.1"),
        (
            changed("environment", variables={"OMP_NUM_THREADS": "1"}),
            "other environment variables: OMP_NUM_THREADS: none, now 1",
        ),
        (changed("settings", threads=1), "other settings of the benchmark: threads: 2, now 1"),
        (
            changed("bundle", manifest_sha256="3" * 64),
            "other bundle: manifest: 000000000000, now 333333333333",
        ),
    ],
)
def test_everything_else_is_a_warning(new, says):
    """Versions, variables, settings and the bundle may differ, and are told."""
    check_comparable(OLD, new)
    assert describe_changes(OLD, new) == (says,)


@pytest.mark.parametrize(
    ("warnings", "says"), [(("busy",), "busy"), (("busy", "hot", "late"), "busy (and 2 more)")]
)
def test_warnings_of_the_old_result_are_pointed_to(warnings, says):
    """The first is told, with the number of the others; those of the new one are before the reader anyway."""
    warned = OLD.model_copy(update={"warnings": warnings})
    assert describe_changes(warned, OLD) == (f"the old result has a warning of its own: {says}",)
    assert describe_changes(OLD, warned) == ()
