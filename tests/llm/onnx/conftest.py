"""The tiny Llama with adapters, exported once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from made_once import made_once
from safetensors.torch import save_file

from pargo_export.cli.main import cli
from pargo_export.llm import LanguageModel, open_language_model
from pargo_export.llm.onnx import OnnxLanguageModel, export_language_model, open_onnx_language_model

LORA_ALPHA = 8.0


@pytest.fixture(scope="session")
def adapters(tmp_path_factory) -> Path:
    """Return a ParGo checkpoint with LoRA adapters of the tiny Llama."""
    generator = torch.Generator().manual_seed(4)
    prefix = "llm_model.base_model.model.model.layers"
    tensors = {}
    for layer in range(2):
        module = f"{prefix}.{layer}.self_attn.q_proj"
        tensors[f"{module}.lora_A.default.weight"] = 0.2 * torch.randn(4, 80, generator=generator)
        tensors[f"{module}.lora_B.default.weight"] = 0.2 * torch.randn(80, 4, generator=generator)
    path = tmp_path_factory.mktemp("adapters") / "adapters.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="session")
def exported(tmp_path_factory, llama_directory, adapters) -> Path:
    """Return the directory of the exported language model; do not write to it."""

    def make(directory: Path) -> None:
        export_language_model(llama_directory, directory / "llm", adapters=adapters, lora_alpha=LORA_ALPHA)

    return made_once(tmp_path_factory, "exported-llm", make) / "llm"


@pytest.fixture(scope="session")
def onnx_model(exported) -> Iterator[OnnxLanguageModel]:
    """Return the exported language model, opened."""
    with open_onnx_language_model(exported, threads=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def reference(llama_directory, adapters) -> Iterator[LanguageModel]:
    """Return the same language model, run by transformers."""
    with open_language_model(llama_directory, adapters=adapters, lora_alpha=LORA_ALPHA) as opened:
        yield opened


@pytest.fixture
def run_cli(monkeypatch) -> Callable[..., Result]:
    """Return a function that runs a command on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def translated(exported, monkeypatch):
    """Let an export take the graph that was translated already, which is what takes long."""
    import onnx_ir

    from pargo_export.llm.onnx import translate

    model = onnx_ir.external_data.load_to_model(onnx_ir.load(exported / "decoder.onnx"))
    monkeypatch.setattr(translate, "translate", lambda *_: model)
    return model
