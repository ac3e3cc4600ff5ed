"""Turn errors of the file system into errors that say how to mend them."""

from __future__ import annotations

import errno
from pathlib import Path

from pargo_export.errors import BundleError

__all__ = ["is_out_of_space", "storage_error"]

_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_WRONG_KIND = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR)


def is_out_of_space(error: OSError) -> bool:
    """Whether a disk, a quota or a file-size limit is exhausted."""
    return error.errno in _OUT_OF_SPACE


def storage_error(error: OSError, root: Path, *, action: str, outcome: str) -> BundleError:
    """Describe `error`.

    Args:
        error: What the operating system said.
        root: The bundle.
        action: What was being done, for example `"commit"`.
        outcome: In which state the bundle is now, as a sentence.
    """
    if is_out_of_space(error):
        mend = "free space there, or raise the quota or file-size limit, or choose another directory"
    elif error.errno in _NOT_WRITABLE:
        mend = "get write access, or choose another directory"
    elif error.errno in _WRONG_KIND:
        mend = (
            "a file is where a directory is needed, or the reverse: move it away, or choose another directory"
        )
    else:
        mend = "check the directory and its disk"
    return BundleError(f"bundle {root}: cannot {action}: {error}; {mend}. {outcome}")
