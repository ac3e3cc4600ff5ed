"""Shared libraries with plugins: what loads, what is refused and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from pargo_export.errors import EngineError
from pargo_export.trt import load_tensorrt
from pargo_export.trt.plugins_library import CreatorName, load_library, registered_creators

pytest.importorskip("tensorrt_rtx")


def test_library_without_creators_is_refused(compile_library):
    """A real library that has nothing to do with TensorRT gets a clear answer."""
    path = compile_library("libplain.so", 'extern "C" int answer() { return 42; }')
    with pytest.raises(
        EngineError, match=r"contains no plugin creator: .* no function getCreators; name a library"
    ):
        load_library(load_tensorrt("rtx"), path)


def test_refusal_by_tensorrt_is_passed_on(compile_library):
    """What TensorRT says about a library that it does not take is in the message."""
    empty = """#include <cstdint>
extern "C" void setLoggerFinder(void*) {}
extern "C" void* const* getCreators(int32_t& count) { count = 0; return nullptr; }
"""
    path = compile_library("libempty.so", empty)
    with pytest.raises(
        EngineError, match=r"refuses the plugin library .*libempty\.so \(.*No creator returned"
    ):
        load_library(load_tensorrt("rtx"), path)


def test_file_that_is_no_library_is_refused(tmp_path: Path):
    """A text file does not load."""
    path = tmp_path / "libtext.so"
    path.write_text("no library")
    with pytest.raises(
        EngineError, match=r"does not load \(.*\); it must be built for this machine and for TensorRT"
    ):
        load_library(load_tensorrt("rtx"), path)


def test_missing_file_is_refused(tmp_path: Path):
    """A file that is not there is named."""
    with pytest.raises(EngineError, match=r"nowhere\.so cannot be read \(No such file or directory\)"):
        load_library(load_tensorrt("rtx"), tmp_path / "nowhere.so")


def test_other_hash_is_refused_before_anything_is_loaded(compile_library, tmp_path: Path):
    """A library with another hash than expected does not run: it would leave a file when it is loaded."""
    trace = tmp_path / "trace"
    text = f"""#include <cstdio>
static struct Trace {{ Trace() {{ std::fclose(std::fopen("{trace}", "w")); }} }} leave;
"""
    path = compile_library("libtrace.so", text)
    with pytest.raises(EngineError, match=r"has sha256 \w+, expected 0{64}"):
        load_library(load_tensorrt("rtx"), path, expected_sha256="0" * 64)
    assert not trace.exists()
    with pytest.raises(EngineError, match="contains no plugin creator"):
        load_library(load_tensorrt("rtx"), path)
    assert trace.exists()


def test_registry_lists_what_tensorrt_brings():
    """Names, namespaces and versions are read, and made readable."""
    creators = registered_creators(load_tensorrt("rtx"))
    assert CreatorName("ROIAlign_TRT", "", "2") in creators
    assert str(CreatorName("Attention", "pargo", "1")) == "pargo::Attention"
