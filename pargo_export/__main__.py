"""`python -m pargo_export` is the command `pargo-export`."""

from __future__ import annotations

from pargo_export.cli.main import main

main()
