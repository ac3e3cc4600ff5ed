"""The parameter list of a PTX kernel, reordered."""

from __future__ import annotations

import pytest

from pargo_kernels.ptx_parameters import declared_parameters, reorder_parameters

PTX = """.version 8.7
.visible .entry other(
	.param .u64 other_param_0
)
{ ret; }
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u32 kernel_param_1,
	.param .u64 .ptr .global .align 1 kernel_param_2
)
.reqntid 128
{
	ld.param.b64 %rd1, [kernel_param_0];
	ld.param.b32 %r1, [kernel_param_1];
	ret;
}
"""


def test_declarations_are_read_in_order() -> None:
    """One entry for each parameter of the named kernel."""
    assert declared_parameters(PTX, "kernel") == [
        ".u64 .ptr .global .align 1 kernel_param_0",
        ".u32 kernel_param_1",
        ".u64 .ptr .global .align 1 kernel_param_2",
    ]


def test_only_the_declaration_changes() -> None:
    """The body and the other kernel stay as they are."""
    result = reorder_parameters(PTX, "kernel", (1, 0))
    assert declared_parameters(result, "kernel") == [
        ".u32 kernel_param_1",
        ".u64 .ptr .global .align 1 kernel_param_0",
    ]
    assert result.split(".reqntid")[1] == PTX.split(".reqntid")[1]
    assert declared_parameters(result, "other") == [".u64 other_param_0"]


def test_parameter_that_is_read_cannot_be_dropped() -> None:
    """A kernel that reads scratch memory would read what nobody passes."""
    with pytest.raises(ValueError, match="kernel reads its parameter 1"):
        reorder_parameters(PTX, "kernel", (0, 2))


@pytest.mark.parametrize("order", [(0, 1, 3), (0, 0, 1)])
def test_wrong_positions_are_refused(order: tuple[int, ...]) -> None:
    """Positions exist and are named once."""
    with pytest.raises(ValueError, match="kernel has 3 parameters"):
        reorder_parameters(PTX, "kernel", order)


def test_missing_kernel_is_named() -> None:
    """PTX of another kernel is refused."""
    with pytest.raises(ValueError, match="no kernel 'third'"):
        declared_parameters(PTX, "third")
