"""Which tensors' ranges have to be measured before a network can be quantised."""

from __future__ import annotations

import onnx

from hamr_edge.calibration.quantize_cpu import integer_tensors
from hamr_edge.calibration.residual import find_residual_sums
from hamr_edge.calibration.sites import find_sites


def tensors_to_calibrate(model: onnx.ModelProto) -> tuple[str, ...]:
    """The tensors that either flavour may quantise at any site, in alphabetical order."""
    sites = find_sites(model)
    wanted = {site.activation for site in sites}
    wanted |= {found.identity for found in find_residual_sums(model)}
    wanted |= set(integer_tensors(model, {site.name for site in sites}).values())
    return tuple(sorted(wanted))
