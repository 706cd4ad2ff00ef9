"""The parts of a network that are quantised, measured and given back as one: stem, stages, attention, heads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from hamr_edge.calibration.graph_index import GraphIndex
from hamr_edge.calibration.sites import Site, find_sites
from hamr_edge.errors import InputError

_HAMR = (
    (re.compile(r"network\.backbone\.conv1\."), "stem", "product"),
    (re.compile(r"network\.backbone\.layer(\d)\."), r"stage \1", "product"),
    (re.compile(r"network\.spatial\."), "SAM", "gate"),
    (re.compile(r"network\.(stage_)?channel\."), "CAM", "gate"),
    (re.compile(r"project$"), "embedding layer", "embedding"),
)
"""Names of weights, of their block, and the role that goes without saying."""
_PART_WISE = "reduce"


@dataclass(frozen=True, slots=True)
class Block:
    """Sites that are treated alike."""

    name: str
    sites: tuple[str, ...]
    """Names of the sites."""
    quantised: bool
    """Whether it is quantised where nothing speaks against it: gates and the embedding layer are not."""
    weights: int
    """Number of its weights."""


def find_blocks(model: onnx.ModelProto, level_sizes: tuple[int, ...] = ()) -> tuple[Block, ...]:
    """The blocks of a network, in graph order.

    Args:
        model: A float32 network, batch normalisation folded. HAMR's blocks go by the names of its weights; another
            network's by the first two words of its weights' names.
        level_sizes: Parts of each level, see :func:`level_sizes_of`.

    Returns:
        Blocks of different names; every site is in one of them.

    Raises:
        InputError: The network's parts are not those of ``level_sizes``.
    """
    index = GraphIndex(model)
    found = {site.name: site for site in find_sites(model)}  # a weight that several nodes share is one site
    members: dict[str, list[Site]] = {}
    for site in found.values():
        members.setdefault(_block_name(site, index, level_sizes), []).append(site)
    return tuple(
        Block(
            name,
            tuple(site.name for site in sites),
            sites[0].role == "product",
            sum(_weights(site, index) for site in sites),
        )
        for name, sites in members.items()
    )


def level_sizes_of(network: Mapping[str, Any]) -> tuple[int, ...]:
    """Parts of each level of a HAMR network (paper, equation 3), from its settings as the sidecar has them."""
    stripes = int(network.get("stripes", 1))
    return tuple(range(1, stripes + 1)) if network.get("partition", "mgo") == "mgo" else (stripes,)


def _weights(site: Site, index: GraphIndex) -> int:
    shape = index.constants[site.weight].dims
    return int(np.prod(shape if site.part is None else shape[1:]))


def _block_name(site: Site, index: GraphIndex, level_sizes: tuple[int, ...]) -> str:
    if site.weight == _PART_WISE and site.part is not None and level_sizes:
        parts = index.constants[site.weight].dims[0]
        if parts != sum(level_sizes):
            raise InputError(f"the network has {parts} parts, its settings have {sum(level_sizes)}; export it again")
        level = int(np.searchsorted(np.cumsum(level_sizes), site.part, side="right"))
        return f"heads, level {level + 1}"
    for pattern, name, role in _HAMR:
        found = pattern.match(site.weight)
        if found:
            return found.expand(name) if site.role == role else f"{found.expand(name)} ({site.role})"
    words = ".".join(site.weight.split(".")[:2])
    return words if site.role == "product" else f"{words} ({site.role})"
