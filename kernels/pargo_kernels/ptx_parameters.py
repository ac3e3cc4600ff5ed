"""Put the parameters of a PTX kernel into another order, and drop those that it never reads.

A TensorRT engine that carries a kernel passes inputs, then numbers, then outputs, and nothing more. Triton's
order is that of the Python function, with two scratch pointers at the end. The body of a PTX kernel names its
parameters, so only their declaration has to change.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["declared_parameters", "reorder_parameters"]


def declared_parameters(ptx: str, entry: str) -> list[str]:
    """Return the declarations of a kernel's parameters, without `.param`, in order.

    Raises:
        ValueError: There is no such kernel.
    """
    return [" ".join(declaration.split()) for declaration in _parameter_list(ptx, entry)[1]]


def reorder_parameters(ptx: str, entry: str, order: Sequence[int]) -> str:
    """Return the PTX with only the parameters `order`, in that order.

    Args:
        ptx: PTX with one kernel of that name.
        entry: Name of the kernel.
        order: Today's positions of the parameters to keep.

    Raises:
        ValueError: There is no such kernel or position, or the kernel reads a parameter that is dropped.
    """
    (start, end), declarations = _parameter_list(ptx, entry)
    if not all(0 <= position < len(declarations) for position in order) or len(set(order)) != len(order):
        raise ValueError(f"{entry} has {len(declarations)} parameters, cannot take {list(order)} of them")
    for position, declaration in enumerate(declarations):
        name = declaration.split()[-1]
        if position not in order and re.search(rf"\b{re.escape(name)}\b", ptx[end:]):
            raise ValueError(
                f"{entry} reads its parameter {position} ({declaration}), which TensorRT would not pass; compile a "
                "kernel without scratch memory"
            )
    kept = ",\n".join(f"\t.param {declarations[position]}" for position in order)
    return f"{ptx[:start]}\n{kept}\n{ptx[end:]}"


def _parameter_list(ptx: str, entry: str) -> tuple[tuple[int, int], list[str]]:
    """Where the text between the kernel's parentheses is, and the declarations in it."""
    found = re.search(rf"\.entry\s+{re.escape(entry)}\s*\(([^)]*)\)", ptx)
    if not found:
        raise ValueError(
            f"no kernel {entry!r} in the PTX ({len(ptx)} characters); pass the PTX that belongs to it"
        )
    declarations = [part.strip() for part in found[1].split(",")]
    return found.span(1), [part.removeprefix(".param").strip() for part in declarations if part]
