"""Timing caches against a builder's configuration that keeps one as TensorRT does; TensorRT for RTX has none."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hamr_edge.export.engine_builder import build_engine
from hamr_edge.export.timing_cache import TimingCache, default_timing_cache, timing_cache_file
from tests.nvidia_builder import nvidia_builder

ENTERPRISE: Any = SimpleNamespace(__name__="tensorrt", __version__="10.3.0")


class BuilderConfig:
    """Takes caches that begin with its device's name, and adds what it measures."""

    def __init__(self, device: bytes = b"Orin") -> None:
        self.logger = SimpleNamespace(errors=[])
        self._device = device
        self._cache: bytes | None = None

    def create_timing_cache(self, content: bytes) -> bytes | None:
        if content and b":" not in content:
            self.logger.errors.append("cannot read the timing cache")
            return None
        return content or self._device + b":"

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        if not cache.startswith(self._device):
            self.logger.errors.append("the timing cache is of another device")
            return False
        self._cache = cache + b" measured"
        return True

    def get_timing_cache(self) -> Any:
        return self._cache and SimpleNamespace(serialize=lambda: self._cache)


def _use(path: Path, config: BuilderConfig) -> TimingCache:
    return TimingCache(ENTERPRISE, config, config.logger, path)


def test_what_one_build_measured_serves_the_next(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.cache"
    first = _use(path, BuilderConfig())
    assert first.state == "new"
    assert not path.exists(), "nothing is kept before the build is done"
    first.save()
    assert path.read_bytes() == b"Orin: measured"
    second = _use(path, BuilderConfig())
    assert second.state == "reused"
    second.save()
    assert path.read_bytes() == b"Orin: measured measured"
    assert [file.name for file in path.parent.iterdir()] == ["file.cache"]


@pytest.mark.parametrize(
    ("content", "words"), [(b"damaged", "cannot read the timing cache"), (b"Xavier: x", "is of another device")]
)
def test_a_cache_that_is_refused_is_made_anew(
    content: bytes, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file.cache"
    path.write_bytes(content)
    config = BuilderConfig()
    cache = _use(path, config)
    assert cache.state == "new"
    assert words in caplog.text
    assert config.logger.errors == [], "its words are no part of a later error"
    assert path.read_bytes() == content, "kept until the build is done"
    cache.save()
    assert path.read_bytes() == b"Orin: measured"


def test_a_cache_that_cannot_be_kept_harms_no_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = _use(tmp_path / "file" / "in a file.cache", BuilderConfig())
    cache.save()
    assert "is not kept" in caplog.text


def test_a_cache_that_cannot_be_read_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file.cache"
    path.mkdir()
    cache = _use(path, BuilderConfig())
    assert cache.state == "new"
    assert "is not read: " in caplog.text
    cache.save()
    assert "is not kept: " in caplog.text
    assert path.is_dir()


@pytest.mark.parametrize("given", [None, SimpleNamespace(serialize=lambda: None)])
def test_a_cache_that_is_not_given_back_is_told(given: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = BuilderConfig()
    config.get_timing_cache = lambda: given  # type: ignore[method-assign]
    _use(tmp_path / "file.cache", config).save()
    assert "TensorRT does not give it back" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_library_without_caches_builds_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = BuilderConfig()
    config.create_timing_cache = lambda content: None  # type: ignore[method-assign]
    cache = _use(tmp_path / "file.cache", config)
    cache.save()
    assert cache.state == "none"
    assert "no timing cache" in caplog.text
    assert not list(tmp_path.iterdir())


def test_each_gpu_and_version_has_its_own_file(tmp_path: Path) -> None:
    name = timing_cache_file(tmp_path, ENTERPRISE, "8.7", "Orin NX/16 GB").name
    assert name == "tensorrt-10.3.0-sm8.7-Orin_NX_16_GB.cache"
    newer = SimpleNamespace(__name__="tensorrt", __version__="10.13.3")
    others = [(ENTERPRISE, "8.9", "Orin NX/16 GB"), (newer, "8.7", "Orin NX/16 GB"), (ENTERPRISE, "8.7", "Orin Nano")]
    assert len({name, *(timing_cache_file(tmp_path, *other).name for other in others)}) == 4


def test_tensorrt_for_rtx_is_given_none(tmp_path: Path, tiny_artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its timing caches are deprecated and do nothing; a device that only names itself is enough to ask for one."""
    caplog.set_level(logging.DEBUG)
    trt = nvidia_builder()
    config = BuilderConfig()
    cache = TimingCache(trt, config, config.logger, tmp_path / "file.cache")
    assert cache.state == "none"
    assert build_engine(trt, tiny_artifact, 8, timing_cache=tmp_path).details["timing_cache"] == "none"
    assert not list(tmp_path.iterdir())


def test_the_default_is_among_the_users_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_timing_cache() == tmp_path / "hamr-edge" / "timing"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_timing_cache() == Path.home() / ".cache" / "hamr-edge" / "timing"
