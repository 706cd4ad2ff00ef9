"""ONNX to a TensorRT plan. The bindings are given as ``trt``: TensorRT 10.3 or later, 11, or TensorRT for RTX.

Precision is what the ONNX says: the network is strongly typed and no flag of the builder changes a type. The bindings
say no by False, None or -1 and tell the reason to the logger only, so each call is checked where it is made. What a
version may lack is asked for with ``hasattr``, and no enum is written as a number: TensorRT 11 counts them anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from hamr_edge.crop_canvas import LARGEST_FRAME_HW, SMALLEST_FRAME_HW
from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.export.build_progress import build_watched
from hamr_edge.export.engine_options import DEFAULTS, EngineOptions, apply_options, apply_parser_options
from hamr_edge.tensorrt_library import collecting_logger, relevant, words_of

FRAME_SIZES_HW = (SMALLEST_FRAME_HW, (1080, 1920), LARGEST_FRAME_HW)
"""Smallest, likeliest and largest frame of an engine in the frame form."""
TYPICAL_BATCH = 8
"""The batch an engine is tuned for if none is named: the people of a usual frame."""

Profile: TypeAlias = Mapping[str, Sequence[tuple[int, ...]]]
"""Three shapes of each input: the smallest, the likeliest, for which the engine is tuned, and the largest."""


@dataclass(frozen=True, slots=True)
class ParsedNetwork:
    """A network and what must live until it is built: the parser owns its weights."""

    logger: Any
    """Its ``errors`` holds the words of the library."""
    builder: Any
    network: Any
    parser: Any


def parse_network(trt: Any, model_path: Path, options: EngineOptions = DEFAULTS) -> ParsedNetwork:
    """Read an ONNX file into a strongly typed network. Weights in a file beside it are found there.

    Args:
        trt: The bindings.
        model_path: The ONNX file, of any size.
        options: Some change how the parser writes the network.

    Raises:
        InputError: The file is not there, is no ONNX, or the parser rejects it: each rejected node is named, with the
            parser's own words.
        UnavailableError: The library gives no builder.
    """
    if not model_path.is_file():
        raise InputError(f"model {model_path} is not a file")
    logger = collecting_logger(trt)
    logger.errors.clear()
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:
        raise UnavailableError(
            f"TensorRT {trt.__version__} makes no builder: {words_of(logger, str(error))}"
        ) from error
    flags = 0
    # Deprecated in TensorRT 11, where every network is strongly typed.
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    if network is None:
        raise UnavailableError(f"TensorRT {trt.__version__} makes no network: {words_of(logger)}")
    parser = trt.OnnxParser(network, logger)
    apply_parser_options(trt, parser, options)
    # A parser that reads from memory cannot find weights that lie beside the file, and takes no more than 2 GB.
    accepted = parser.parse_from_file(str(model_path))
    if not accepted or parser.num_errors:
        raise InputError(f"TensorRT {trt.__version__} rejects {model_path}: {_rejections(parser, logger)}")
    # A file of two bytes is "parsed" as well, into nothing.
    if network.num_outputs == 0 or network.num_inputs == 0:
        raise InputError(f"{model_path} holds no network: an ONNX file with inputs and outputs is expected")
    return ParsedNetwork(logger, builder, network, parser)


def choose_profile(parsed: ParsedNetwork, max_batch: int, opt_batch: int | None = None) -> Profile:
    """Shapes that an engine must take, from the form of the network.

    Crops: ``images`` (N, H, W, 3) with N in 1..max_batch. Frame: ``frame`` (H, W, 3) of :data:`FRAME_SIZES_HW` and
    ``boxes`` (N, 4).

    Args:
        parsed: The network.
        max_batch: Most crops or boxes of a call.
        opt_batch: The number to tune for; by default :data:`TYPICAL_BATCH`, or ``max_batch`` if that is less.

    Raises:
        InputError: A batch is out of range, or the network has neither form.
    """
    opt_batch = min(TYPICAL_BATCH, max_batch) if opt_batch is None else opt_batch
    if not 1 <= opt_batch <= max_batch:
        raise InputError(f"1 <= opt_batch <= max_batch is expected, got {opt_batch} and {max_batch}")
    batches = (1, opt_batch, max_batch)
    network = parsed.network
    shapes = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shapes[tensor.name] = tuple(tensor.shape)
    match shapes:
        case {"images": (-1, int(height), int(width), 3)} if len(shapes) == 1 and height > 0 and width > 0:
            return {"images": [(batch, height, width, 3) for batch in batches]}
        case {"frame": (-1, -1, 3), "boxes": (-1, 4)} if len(shapes) == 2:
            return {"frame": [(*size, 3) for size in FRAME_SIZES_HW], "boxes": [(batch, 4) for batch in batches]}
    found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    raise InputError(
        "inputs images (-1, H, W, 3), or frame (-1, -1, 3) and boxes (-1, 4), are expected, where -1 is any size; "
        f"got {found}; export the network with hamr-edge export"
    )


def configure(trt: Any, parsed: ParsedNetwork, profile: Profile, options: EngineOptions = DEFAULTS) -> Any:
    """A configuration of the builder with its profile and options.

    Raises:
        InputError: The builder refuses the profile, with its words.
        UnavailableError: The library gives no configuration or profile, or lacks an option.
    """
    logger, builder = parsed.logger, parsed.builder
    logger.errors.clear()
    builder_config, optimization_profile = builder.create_builder_config(), builder.create_optimization_profile()
    if builder_config is None or optimization_profile is None:
        raise UnavailableError(f"TensorRT {trt.__version__} makes no configuration or profile: {words_of(logger)}")
    apply_options(trt, builder, builder_config, options)
    for name, shapes in profile.items():
        optimization_profile.set_shape(name, *shapes)
    # set_shape says nothing of a wrong shape; a wrong name is found by the build alone.
    if not optimization_profile or builder_config.add_optimization_profile(optimization_profile) < 0:
        raise InputError(f"TensorRT {trt.__version__} refuses the profile {_words(profile)}: {words_of(logger)}")
    return builder_config


def build_network(
    trt: Any,
    parsed: ParsedNetwork,
    profile: Profile,
    builder_config: Any,
    current: AbstractContextManager[object] | None = None,
    quiet: bool = True,
) -> bytes:
    """Build the plan of a parsed network.

    Args:
        trt: The bindings that parsed it.
        parsed: The network; it may be built again with another configuration.
        profile: What the configuration was made with, for messages.
        builder_config: Of :func:`configure`.
        current: Entered in the thread that builds: the GPU.
        quiet: No progress.

    Returns:
        The plan: what is in an ``.engine`` file.

    Raises:
        InputError: The builder refuses the profile or the network, with its words.
        KeyboardInterrupt: Ctrl-C.
    """
    parsed.logger.errors.clear()
    plan = build_watched(
        trt,
        builder_config,
        lambda: parsed.builder.build_serialized_network(parsed.network, builder_config),
        current,
        quiet,
    )
    if plan is None:
        reason = words_of(parsed.logger)
        raise InputError(f"TensorRT {trt.__version__} builds no engine for the profile {_words(profile)}: {reason}")
    return bytes(plan)


def _rejections(parser: Any, logger: Any) -> str:
    """Every error of a parser, with its node, and what else was logged, such as the name of a missing file."""
    told = []
    for index in range(parser.num_errors):
        parser_error = parser.get_error(index)
        words = " ".join(relevant(parser_error.desc().splitlines()))
        name, operator = parser_error.node_name(), parser_error.node_operator()
        told.append(f"node {name!r} ({operator}): {words}" if parser_error.node() >= 0 else words)
    # The logger says the parser's errors again, with places in NVIDIA's sources and the whole node.
    said = " ".join(told)
    new = [words for words in relevant(logger.errors) if "ModelImporter" not in words]
    new = [words for words in new if words not in said and not any(error in words for error in told)]
    return "; ".join(told + new) or "it gives no reason"


def _words(profile: Profile) -> str:
    return ", ".join(f"{name} {' '.join(map(str, shapes))}" for name, shapes in profile.items())
