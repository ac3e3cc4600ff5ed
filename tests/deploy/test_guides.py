"""The guides and the README: every command in them is one that the programs take."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from pargo_export.cli.main import cli
from pargo_export.device.jetson import JETPACKS

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = (
    "tensorrt.md",
    "jetson.md",
    "handover.md",
    "estimate.md",
    "benchmarking.md",
    "report.md",
    "../README.md",
)


def commands_of(name: str) -> list[str]:
    """Return the indented lines of a guide, and the inline ones that begin with the program's name."""
    text = (DOCS / name).read_text("utf-8")
    lines = re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines()
    indented = [line.strip() for line in lines if line.startswith("    ")]
    inline = re.findall(r"`(pargo-export [^`]+ [^`]*)`", text)
    return [line for line in (*indented, *inline) if line.startswith("pargo-export ")]


@pytest.mark.parametrize(
    ("guide", "command"), [(name, line) for name in GUIDES for line in commands_of(name)]
)
def test_commands_of_the_guides_are_taken(guide, command):
    """By the parser of the command line itself, with all their options and arguments."""
    _, name, *arguments = shlex.split(command, comments=True)
    context = click.Context(cli)
    found = cli.get_command(context, name)
    assert found is not None, f"{guide}: {command}"
    found.make_context(name, arguments)


@pytest.mark.parametrize("guide", GUIDES[:2])
def test_there_are_commands_to_check(guide):
    """The pattern finds them."""
    assert len(commands_of(guide)) >= 8


@pytest.mark.parametrize("guide", GUIDES[:2])
def test_python_of_the_guides_is_valid_and_uses_public_names(guide):
    """Every block parses, and imports only what the package exports."""
    import pargo_export

    blocks = re.findall(r"```python\n(.*?)```", (DOCS / guide).read_text("utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "pargo_export":
                assert {alias.name for alias in node.names} <= set(pargo_export.__all__)


def test_every_known_jetpack_is_in_the_table():
    """With its TensorRT and its CUDA."""
    rows = [line for line in (DOCS / "jetson.md").read_text("utf-8").splitlines() if line.startswith("| 3")]
    for item in JETPACKS:
        release, version = item.l4t, item.version.removesuffix(" EA")
        fitting = [
            row
            for row in rows
            if re.search(rf"{re.escape(release)}|{re.escape(release.rpartition('.')[0])}\.x", row)
        ]
        assert len(fitting) == 1, item
        assert version in fitting[0], item
        assert f"| {item.tensorrt} | {item.cuda} |" in fitting[0], item


def test_links_between_the_guides_lead_somewhere():
    """Files and headings that are named exist."""
    for name in GUIDES[:2]:
        for target in re.findall(r"\]\(([^)]+)\)", (DOCS / name).read_text("utf-8")):
            if target.startswith("http"):
                continue
            file, _, anchor = target.partition("#")
            path = DOCS / (file or name)
            assert path.is_file(), target
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
            assert not anchor or anchor in anchors, target
