"""What only these tests need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_encoder import tiny_encoder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real encoder of two small random layers: fast, and useless for anything else."""
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))
