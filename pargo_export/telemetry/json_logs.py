"""Log records as lines of JSON."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

__all__ = ["JsonFormatter"]

# Whatever else a record has came by `extra`. The last three are set by formatters, or by newer Pythons.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}
_OWN = frozenset({"time", "level", "logger", "message", "thread", "exception", "stack"})


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object in one line, with every field that was handed by `extra`.

    ::

        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.getLogger("pargo_export").addHandler(handler)

    Fields: `time` (ISO 8601, UTC), `level`, `logger`, `message`, `thread`; `exception` and `stack`, the text of
    tracebacks, where there are any. An extra field of such a name gets an underscore behind it. Values that JSON does
    not know, NaN among them, are written as text: a line is always valid JSON.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "thread": record.threadName,
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                fields[f"{name}_" if name in _OWN else name] = value
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return json.dumps({name: _as_json(value) for name, value in fields.items()})


def _as_json(value: object) -> object:
    """Return a value that JSON knows: itself, or its text."""
    if value is None or isinstance(value, (str, int)):
        return value
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # NaN, a container that holds itself, any other class
        return str(value)
    return value
