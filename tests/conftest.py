"""Fixtures that several folders of tests use."""

from __future__ import annotations

import pytest
import torch
from golden_cases import CASES, PARGO_CASES, QUERY_CASES, GoldenCase, golden_case


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Compute on one thread: the models are small, and the order of sums stays the same."""
    torch.set_num_threads(1)


@pytest.fixture(params=CASES)
def any_case(request: pytest.FixtureRequest) -> GoldenCase:
    """Every golden case in turn."""
    return golden_case(request.param)


@pytest.fixture(params=QUERY_CASES)
def query_case(request: pytest.FixtureRequest) -> GoldenCase:
    """Every golden case with query layers in turn."""
    return golden_case(request.param)


@pytest.fixture(params=PARGO_CASES)
def pargo_case(request: pytest.FixtureRequest) -> GoldenCase:
    """Every golden case with partial tokens in turn."""
    return golden_case(request.param)
