"""What tests of several folders share."""

import gc
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.postgres_server import PACKAGE, Server, running_server
from trackbed.apps.settings import load_settings

# A busy machine makes any example slow, and no property is about time.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Where `make setup` has put the embedded models, for tests marked `models`."""
    return load_settings().models


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of the tests' own, in which each test names its own indexes."""
    for package in ("psycopg", PACKAGE):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it is in the extra 'dev'")
    with running_server() as server:
        yield server


@pytest.fixture(autouse=True)
def collects_only_its_own() -> Iterator[None]:
    """What other tests have left in memory is not gone through while this one is measured."""
    gc.freeze()
    yield
    gc.unfreeze()
