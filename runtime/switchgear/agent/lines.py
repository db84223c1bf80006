"""What handlers log goes with their task's progress, beside wherever else the process logs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

from switchgear.agent.reports import REPORTS

_OWN = "switchgear"


class Lines(logging.Handler):
    """Hands each record that is logged within a handler to the reports of its task."""

    def emit(self, record: logging.LogRecord) -> None:
        """Take the record; the runtime's own lines are not the handler's."""
        reports = REPORTS.get()
        if reports is None or record.name.partition(".")[0] == _OWN:
            return
        try:
            reports.line(record.levelname.lower(), record.getMessage())
        except Exception:  # noqa: BLE001  # as every handler of logging does
            self.handleError(record)


@contextlib.contextmanager
def collected() -> Generator[None]:
    """As long as this is entered, what handlers log is collected."""
    handler = Lines()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
