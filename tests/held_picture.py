"""A picture that holds up whoever reads it: what is submitted behind it waits."""

from __future__ import annotations

import io
import threading

WAIT_S = 60  # far more than anything here takes; reached only by a deadlock


class HeldPicture(io.BytesIO):
    """A file object of a picture that is not read before `release`.

    Attributes:
        entered: Set when somebody reads it.
        num_reads: How often it was begun to be read.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.entered = threading.Event()
        self.num_reads = 0
        self._go = threading.Event()

    def seek(self, *arguments: int) -> int:
        """Wait until it is released."""
        if not self.entered.is_set():
            self.num_reads += 1
            self.entered.set()
            assert self._go.wait(WAIT_S)
        return super().seek(*arguments)

    def release(self) -> None:
        """Let it be read."""
        self._go.set()
