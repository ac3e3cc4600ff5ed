"""What a file that cannot be read looks like, so that an error can say it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["describe_content"]

_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive (what torch.save writes)"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x80", "a pickle (an old torch.save, or pickle.dump)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"<", "a web page or XML: the download went wrong"),
)


def describe_content(path: Path) -> str:
    """Return what `path` seems to hold, with its size, as the "found" half of an error message."""
    size = path.stat().st_size
    if not size:
        return "an empty file"
    with path.open("rb") as stream:
        head = stream.read(64)
    kind = next((text for signature, text in _SIGNATURES if head.startswith(signature)), None)
    if kind is None and head[8:9] == b"{":
        kind = "a safetensors file"
    if kind is None and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        kind = f"text that starts with {head[:24].decode('ascii')!r}"
    return f"{kind or 'unknown content'} ({size} bytes)"
