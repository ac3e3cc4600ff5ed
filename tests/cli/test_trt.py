from __future__ import annotations

import json
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cli.test_console import ENVIRONMENT, PROGRAM
from click.testing import CliRunner
from rich.console import Console

from pargo_export.bundle import BatchProfile, Bundle, EngineTiming
from pargo_export.cli.engine import render_result
from pargo_export.deploy import CheckpointOptions, DeployOptions, deploy_engine
from pargo_export.engine.options import EngineOptions
from pargo_export.errors import EngineError
from pargo_export.trt import find_obstacle
from pargo_export.trt.rebuild import rebuild_command

needs_rtx = pytest.mark.skipif(find_obstacle("rtx") is not None, reason="TensorRT for RTX is not installed")


@pytest.fixture
def calls(monkeypatch):
    """Replace the library by something that keeps its arguments and stops there; return them."""
    found = []

    def deploy(*arguments, **options):
        found.append((*arguments, options))
        raise EngineError("stopped here")

    monkeypatch.setattr("pargo_export.deploy_engine", deploy)
    return found


def test_defaults_are_those_of_the_library(run, calls):
    """A bundle alone leaves everything to the library."""
    result = run("trt", "somewhere")
    assert (result.exit_code, result.stderr) == (1, "error: stopped here\n")
    ((source, options, others),) = calls
    assert source == Path("somewhere")
    assert options == DeployOptions()
    assert (others["output"], others["force"]) == (None, False)


@pytest.mark.parametrize("word", ["int8", "int8-weight-only", "fp8", "fp16", "bf16", "fp32"])
def test_precisions(run, calls, word):
    """One flag each."""
    run("trt", "somewhere", f"--{word}")
    assert calls[0][1] == DeployOptions(precision=word)


def test_options_reach_the_library(run, calls):
    """Every option arrives in its field, in the words of the library."""
    run(
        *(
            "trt",
            "model.pt",
            "-o",
            "bundle",
            "--int8",
            "--target",
            "rtx:sm86,89",
            "--flavor",
            "rtx",
            "--force",
        ),
        *("--calibration-data", "random", "--allow-random", "--calibration", "mine", "--base", "fp32"),
        *("--min-batch", 1, "--opt-batch", 2, "--max-batch", 4, "--workspace", "1.5G", "--no-timing-cache"),
        *(
            "--optimization-level",
            5,
            "--profiling",
            "--plugin",
            "a.so",
            "--plugin",
            "b.so",
            "--min-share",
            0.5,
        ),
        *("--keep", "fastest", "--allow-below", "--config", "tiny", "--vision-checkpoint", "eva.pt"),
        *("--tiles", "2x3", "--preprocess", "resize", "--name", "mine", "--threads", 2),
    )
    ((source, options, others),) = calls
    assert (source, others["output"], others["force"]) == (Path("model.pt"), Path("bundle"), True)
    assert options == DeployOptions(
        precision="int8",
        target="rtx:sm86,89",
        flavor="rtx",
        min_batch=1,
        opt_batch=2,
        max_batch=4,
        calibration_data="random",
        calibration="mine",
        allow_random=True,
        base="fp32",
        keep="fastest",
        allow_below=True,
        threads=2,
        engine=EngineOptions(
            workspace_bytes=3 << 29,
            timing_cache=False,
            optimization_level=5,
            profiling=True,
            plugins="auto",
            plugin_libraries=(Path("a.so"), Path("b.so")),
            min_share=0.5,
            name="mine",
        ),
        checkpoint=CheckpointOptions(
            config="tiny", vision_checkpoint=Path("eva.pt"), tiles=(2, 3), preprocess="resize"
        ),
    )


@pytest.mark.parametrize(("word", "layer"), [("-1", -1), ("last", "last")])
def test_a_vision_model_reaches_the_library(run, calls, word, layer):
    """Directory and layer; pictures are prepared as it says, unless another mode is named."""
    run("trt", "projector.safetensors", "-o", "bundle", "--vision-model", "clip", "--vision-layer", word)
    assert calls[0][1].checkpoint == CheckpointOptions(vision_model=Path("clip"), vision_layer=layer)
    assert calls[0][1].checkpoint.preprocess == "auto"


def test_batches_and_plugins(run, calls):
    """A list of batch sizes, and a mode without a library."""
    run("trt", "somewhere", "--batches", "1, 4,8", "--plugins", "require", "--variant", "bf16")
    options = calls[0][1]
    assert (options.batches, options.variant, options.engine.plugins) == ((1, 4, 8), "bf16", "require")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--int8", "--fp16"), "found --int8 and --fp16; choose one precision"),
        (("--int8", "--variant", "a"), "found --int8 and --variant; a variant has its own precision"),
        (("--target", "cpu"), "found 'cpu', expected auto, cuda, orin, thor, rtx or rtx:sm86,sm89"),
        (("--target", "orin:sm87"), "found 'orin:sm87', expected auto"),
        (("--target", "rtx:"), "found 'rtx:', expected auto"),
        (("--batches", "4,1"), "found '4,1', expected ascending batch sizes such as 1,4,8"),
        (("--batches", "0,1"), "found '0,1', expected ascending batch sizes"),
        (("--batches", "1,x"), "found '1,x', expected ascending batch sizes"),
        (("--workspace", "2T"), "found '2T', expected a size such as 512M or 2G"),
        (("--workspace", "0"), "found '0', expected a size"),
        (("--optimization-level", "6"), "6 is not in the range"),
        (("--max-batch", "0"), "0 is not in the range"),
        (("--vision-model", "a", "--vision-checkpoint", "b"), "are two towers; give one of them"),
        (("--vision-layer", "-2"), "--vision-layer needs --vision-model"),
        (("--vision-model", "a", "--vision-layer", "first"), "found 'first', expected -1, -2, ... or last"),
    ],
)
def test_wrong_options(run, calls, arguments, reason):
    """Status 2, what was found and what is expected; the library is not called."""
    result = run("trt", "somewhere", *arguments)
    assert result.exit_code == 2
    assert reason in " ".join(result.stderr.split())
    assert not calls


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4096", 4096),
        ("512M", 512 << 20),
        ("2g", 2 << 30),
        ("1.5GiB", 3 << 29),
        ("8 MB", 8 << 20),
        ("3K", 3072),
    ],
)
def test_sizes(run, calls, text, expected):
    """Powers of 1024, however they are written."""
    run("trt", "somewhere", "--workspace", text)
    assert calls[0][1].engine.workspace_bytes == expected


@pytest.fixture
def prepared(quantized, tmp_path) -> Path:
    """Return a copy of `quantized`, in a directory with a long name."""
    return Path(
        shutil.copytree(quantized, tmp_path / "a-bundle-whose-name-is-longer-than-a-terminal-is-wide-by-far")
    )


def test_for_another_device(run, run_json, prepared):
    """Status 0: the bundle is prepared, and the command stands there in one line, however long it is."""
    arguments = ("trt", prepared, "--int8", "--target", "orin", "--batches", "1,4")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    *lines, command = result.stdout.splitlines()
    assert lines[0].startswith("✓ int8-cuda prepared, to be built on the device:")
    assert lines[-1] == "Copy the bundle to the device and run there, beside it:"
    assert command == f"  pargo-export trt {prepared.name} --int8 --target orin --batches 1,4"
    text = " ".join(result.stdout.split())
    assert "TensorRT has no cross build: an engine for orin is built on one (compute capability 8.7)" in text
    assert "variant int8-cuda was made for cuda, it serves orin as well" in text
    values = run_json(*arguments)
    assert (values["status"], values["engine"], values["command"]) == ("prepared", None, command.strip())
    assert values["steps"][-1]["action"] == "prepare"
    assert values["reuses"][0] == "variant int8-cuda"


def test_dry_run(run, run_json, prepared):
    """The steps, and nothing is done."""
    before = (prepared / "manifest.json").read_bytes()
    arguments = ("trt", prepared, "--int8-weight-only", "--target", "orin", "--dry-run")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "  quantize   int8-weight-only-orin: the best float graph to int8_weight_only" in result.stdout
    steps = run_json(*arguments)["steps"]
    assert [step["action"] for step in steps] == ["quantize", "quantize", "prepare"]
    assert steps[0]["precision"] == "int8_weight_only"
    assert (prepared / "manifest.json").read_bytes() == before


def test_trtexec(run, run_json, prepared):
    """One line for each engine, to be copied; a graph that is not there yet is an error."""
    arguments = (
        "trt",
        prepared,
        "--variant",
        "bf16",
        "--target",
        "thor",
        "--workspace",
        "1G",
        "--show-trtexec",
    )
    result = run(*arguments)
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"trtexec --onnx={prepared}/onnx/bf16.onnx ")
    assert "--memPoolSize=workspace:1024" in line
    assert run_json(*arguments)["commands"] == [line]
    assert Bundle.open(prepared).manifest.engines == {}
    missing = run("trt", prepared, "--int8-weight-only", "--target", "orin", "--show-trtexec")
    assert missing.exit_code == 1
    assert "quantize int8-weight-only-orin" in missing.stderr


@needs_rtx
def test_an_engine_for_people_and_machines(run, prepared):
    """What was built, from what, what is in it; 80 columns; the same as JSON."""
    arguments = ("trt", prepared, "--fp32", "--target", "rtx:sm89", "--opt-batch", 2, "--name", "mine")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first.startswith("✓ mine built, not run here:")
    assert max(map(len, lines)) <= 80
    engine = Bundle.open(prepared).manifest.engines["mine"]
    text = " ".join(result.stdout.split())
    for fact in (
        f"built with TensorRT for RTX {engine.tensorrt_version}, for compute capability 8.9",
        "batches 1-2-4 (smallest-optimal-largest)",
        "100.0% of the work of the linears in float32",
        "agreement not measured: it was not run",
        "the engine is built and not run: no GPU that it is for is in this machine",
    ):
        assert fact in text, fact
    again = json.loads(run(*arguments, "--json").stdout)
    assert again["engine"] == engine.model_dump(mode="json")
    assert [step["reused"] for step in again["steps"]] == [True]
    self_made = rebuild_command(engine, Bundle.open(prepared).variant("fp32"), engine.device, prepared)
    rebuilt = CliRunner().invoke(*_command(self_made))
    assert json.loads(rebuilt.stdout)["steps"][0]["reused"] is True
    _show_what_was_measured(prepared, engine)


def _command(line):
    """Return program and arguments of a command line, with --json."""
    from pargo_export.cli.main import cli

    program, *arguments = line.split()
    assert program == "pargo-export"
    return cli, [*arguments, "--json"]


def _show_what_was_measured(path, engine):
    """Agreement, time and what was dropped stand in the output, where there are any."""
    bundle = Bundle.open(path)
    measured = engine.model_copy(
        update={
            "evidence": bundle.variant("fp32").evidence,
            "timing": EngineTiming(batch=1, median_ms=1.25, num_runs=50),
            "profiles": (BatchProfile(min_batch=1, opt_batch=1, max_batch=1),),
        }
    )
    options = DeployOptions(
        precision="fp32", target="rtx:sm89", engine=EngineOptions(name="mine"), opt_batch=2
    )
    result = deploy_engine(path, options)
    console = Console(width=80)
    with console.capture() as captured:
        for part in render_result(replace(result, status="verified", engine=measured, dropped="int8-rtx")):
            console.print(part)
    text = " ".join(captured.get().split())
    for fact in (
        "✓ mine built and verified on this device",
        "dropped int8-rtx, the slower one",
        "agreement passed, max abs",
        "time 1.25 ms at batch 1, median of 50",
    ):
        assert fact in text, fact


@needs_rtx
def test_interrupt_during_the_build(exported_bundle, tmp_path):
    """Ctrl-C while TensorRT builds: status 130, one line, and the bundle as it was."""
    path = Path(shutil.copytree(exported_bundle, tmp_path / "bundle"))
    before = sorted((str(file), file.read_bytes()) for file in path.rglob("*") if file.is_file())
    process = subprocess.Popen(
        # A shell that started the tests in the background has Ctrl-C ignored, and children inherit that.
        [
            *("env", "--default-signal=INT", *PROGRAM, "trt", str(path)),
            *("--variant", "bf16", "--target", "rtx:sm86,sm89,sm120", "-v"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    for line in process.stderr:
        if "building the engine with TensorRT for RTX" in line:  # a tenth of it is done
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == ""
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors
    assert sorted((str(file), file.read_bytes()) for file in path.rglob("*") if file.is_file()) == before


def test_without_the_packages_of_a_device(tmp_path):
    """Where onnx is not installed, the error says which extra brings it."""
    blocker = tmp_path / "sitecustomize.py"
    blocker.write_text("import sys\nsys.modules['onnx_ir'] = None\n")
    environment = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}:{ENVIRONMENT['PYTHONPATH']}"}
    done = subprocess.run(
        [*PROGRAM, "trt", "somewhere"], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "onnx_ir: pip install 'pargo-export[quantize]'" in done.stderr
