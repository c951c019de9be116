"""What only these tests need."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragbot.packaged import Packaged
from tests.test_encoder import tiny_encoder, tiny_pack
from tests.test_packaged import packed


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real encoder of two small random layers: fast, and useless for anything else."""
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    """The folder that `packaged` is installed in, for a process that is to see it."""
    return tmp_path / "site"


@pytest.fixture
def packaged(site_packages: Path, monkeypatch: pytest.MonkeyPatch) -> Packaged:
    """A small encoder in a package that is really installed, in a folder of ours."""
    monkeypatch.syspath_prepend(str(site_packages))
    return packed(site_packages, "tinypack", "encoder", {"tinypack": tiny_pack()})
