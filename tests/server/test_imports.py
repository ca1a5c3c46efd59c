"""Imports of a server: the collector rests meanwhile, and works afterwards in any case."""

from __future__ import annotations

import gc
import importlib

import pytest

from pilotwave_server.imports import uncollected


def test_the_collector_works_again_after_an_import_that_failed() -> None:
    with pytest.raises(ModuleNotFoundError), uncollected():
        importlib.import_module("pilotwave_server.nothing_of_that_name")
    assert gc.isenabled()


def test_the_collector_rests_meanwhile() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
