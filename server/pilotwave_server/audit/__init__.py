"""The audit log: one line for each thing that an operator, a publisher or the server changed."""

from __future__ import annotations

from pilotwave_server.audit.service import record

__all__ = ["record"]
