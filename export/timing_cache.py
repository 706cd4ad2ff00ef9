"""What a builder measured, kept for the next build: a file for each GPU and version of TensorRT."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from hamr_edge.atomic import replace_file
from hamr_edge.engine_record import TENSORRT_RTX
from hamr_edge.tensorrt_library import flavour_of, words_of

_log = logging.getLogger(__name__)


def default_timing_cache() -> Path:
    """The folder of timing caches among this user's caches."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "hamr-edge" / "timing"


def timing_cache_file(folder: Path, trt: Any, compute_capability: str, device_name: str) -> Path:
    """The file for a GPU and a version: what another one measured does not hold."""
    key = f"{flavour_of(trt)}-{trt.__version__}-sm{compute_capability}-{device_name}"
    return folder / (re.sub(r"[^A-Za-z0-9.-]+", "_", key) + ".cache")


class TimingCache:
    """The timing cache of one build.

    TensorRT for RTX measures nothing when it builds; making a cache of it, which would be empty, is a deprecation
    warning there. It gets none.

    Args:
        trt: The bindings.
        builder_config: Of the build.
        logger: Its ``errors`` holds the words of the library.
        path: The file; need not exist.
    """

    def __init__(self, trt: Any, builder_config: Any, logger: Any, path: Path) -> None:
        self._builder_config = builder_config
        self._path = path
        self.state = "none"
        """``none``, ``new`` or ``reused``."""
        if flavour_of(trt) == TENSORRT_RTX:
            return
        kept = _read(path)
        if kept and self._attach(kept, logger):
            self.state = "reused"
            return
        if kept:
            _log.warning("%s is not taken and will be made anew: %s", path, words_of(logger))
        logger.errors.clear()
        if self._attach(b"", logger):
            self.state = "new"
        else:
            _log.warning("no timing cache: %s", words_of(logger))
        logger.errors.clear()

    def save(self) -> None:
        """Keep what was measured; without harm where that fails: the engine is built."""
        if self.state == "none":
            return
        timing_cache = self._builder_config.get_timing_cache()
        plain = None if timing_cache is None else timing_cache.serialize()
        if plain is None:
            _log.warning("the timing cache %s is not kept: TensorRT does not give it back", self._path)
            return
        content = bytes(plain)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, lambda part: part.write_bytes(content))
        except OSError as error:
            _log.warning("the timing cache %s is not kept: %s", self._path, error)

    def _attach(self, content: bytes, logger: Any) -> bool:
        logger.errors.clear()
        timing_cache = self._builder_config.create_timing_cache(content)
        return timing_cache is not None and bool(self._builder_config.set_timing_cache(timing_cache, False))


def _read(path: Path) -> bytes:
    """What is in the file; nothing where there is none, or it cannot be read: a cache is never needed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        _log.warning("the timing cache %s is not read: %s", path, error)
        return b""
