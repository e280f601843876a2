"""What tests of several folders share."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from trackbed.apps.settings import load_settings

# A busy machine makes any example slow, and no property is about time.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Where `make setup` has put the embedded models, for tests marked `models`."""
    return load_settings().models


@pytest.fixture(autouse=True)
def collects_only_its_own() -> Iterator[None]:
    """What other tests have left in memory is not gone through while this one is measured."""
    gc.freeze()
    yield
    gc.unfreeze()
