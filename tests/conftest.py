"""What tests of several folders share."""

from pathlib import Path

import pytest

from trackbed.apps.settings import load_settings


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Where `make setup` has put the embedded models, for tests marked `models`."""
    return load_settings().models
