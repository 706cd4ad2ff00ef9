"""What of a network a Jetson's deep-learning accelerator (DLA) takes; TensorRT gives the rest to the GPU unasked."""

from __future__ import annotations

import logging
from typing import Any

from hamr_edge.errors import InputError

_log = logging.getLogger(__name__)


def count_dla_layers(trt: Any, network: Any, builder_config: Any, max_batch: int) -> int:
    """How many layers can be on the DLA, by the builder's own word; a log line warns where it is none.

    A DLA runs the one shape it was built for, and layers of any other fall back to the GPU (NVIDIA, "DLA Supported
    Layers and Restrictions"). Our engines take every batch from 1 on, so only those of batch 1 have one shape.

    Args:
        trt: The bindings.
        network: Parsed.
        builder_config: With its options and its profile.
        max_batch: Most crops or boxes of a call.

    Raises:
        InputError: The batch is not 1: it would be an engine for the GPU alone.
    """
    if max_batch != 1:
        raise InputError(
            f"a DLA runs one batch size, and this engine would take each from 1 to {max_batch}, all of it on the GPU; "
            "add --batch 1, or leave out --dla-core"
        )
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    count = sum(bool(builder_config.can_run_on_DLA(layer)) for layer in layers)
    if count == 0:
        _log.warning(
            "TensorRT %s says that none of %d layers can run on a DLA, which computes in float16 and int8 alone; "
            "the GPU will do all the work",
            trt.__version__,
            len(layers),
        )
    return count
