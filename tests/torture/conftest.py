"""What only the long tests need: they are left out unless `-m` asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_encoder import tiny_encoder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "torture" in str(config.getoption("-m")):
        return
    left_out = [item for item in items if item.get_closest_marker("torture")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real encoder of two small random layers: fast, and useless for anything else."""
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))
