from __future__ import annotations

from pathlib import Path

from pargo_export.cli.main import COMMANDS
from pargo_export.cli.reference import command_reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"


def test_document_has_not_drifted():
    """docs/cli.md says what the commands say."""
    assert DOCUMENT.read_text("utf-8") == command_reference(), (
        "run `python -m pargo_export.cli.reference > docs/cli.md`"
    )


def test_every_command_has_a_section():
    """Each command stands there with its arguments, and every option has a description."""
    text = command_reference()
    for name in COMMANDS:
        assert f"\n## {name}\n" in text or f"\n## {name} " in text  # a group has sections of its own commands
    assert "pargo-export run BUNDLE IMAGES... [OPTIONS]" in text
    assert not [line for line in text.splitlines() if line.endswith("`:")]
