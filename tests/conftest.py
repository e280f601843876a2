"""What tests of several folders share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_cache() -> Path:
    """Where `make setup` has put the embedded models, for tests marked `models`."""
    return Path(os.environ.get("TRACKBED_CACHE") or Path.home() / ".cache" / "trackbed") / "models"
