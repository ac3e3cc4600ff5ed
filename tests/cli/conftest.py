"""Run commands in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pargo_export.cli.main import cli
from pargo_export.model.sample import write_sample


@pytest.fixture
def run(monkeypatch) -> Callable[..., Result]:
    """Return a function that runs a command on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def run_json(run):
    """Return a function that runs a command with --json, expects success and returns the result."""

    def run_and_parse(*arguments):
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        return json.loads(result.stdout)

    return run_and_parse


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """Return a tiny checkpoint that holds a language model as well."""
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.safetensors", llm=True)
