from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.export.engine_flags import engine_config, engine_flags
from hamr_edge.export.engine_options import (
    HARDWARE_COMPATIBILITY,
    EngineOptions,
    apply_options,
    apply_parser_options,
    runs_on,
)
from hamr_edge.tensorrt_library import collecting_logger
from tests.nvidia_builder import nvidia_builder

OPTIONS = st.builds(
    EngineOptions,
    opt_batch=st.none() | st.integers(1, 64),
    workspace_mib=st.none() | st.integers(1, 1 << 20),
    optimization_level=st.none() | st.integers(0, 5),
    tf32=st.booleans(),
    version_compatible=st.booleans(),
    hardware_compatibility=st.sampled_from(HARDWARE_COMPATIBILITY),
    dla_core=st.none() | st.integers(0, 1),
)


def _config(trt: Any) -> Any:
    """A builder, its configuration, and the logger: the library writes to it without keeping it."""
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    return builder, builder.create_builder_config(), logger


@given(OPTIONS)
def test_the_words_give_the_options_again(options: EngineOptions) -> None:
    import click

    read: list[EngineOptions] = []

    @click.command()
    @engine_flags
    def command(**flags: Any) -> None:
        read.append(engine_config(flags, None, 0).options)

    result = CliRunner().invoke(command, list(options.words()))
    assert result.exit_code == 0, result.output
    assert read == [options]


def test_defaults_need_no_words() -> None:
    assert EngineOptions().words() == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"opt_batch": 0}, "opt_batch must be at least 1, got 0"),
        ({"workspace_mib": 0}, "workspace_mib must be at least 1, got 0"),
        ({"optimization_level": 6}, r"optimization_level must be in 0\.\.5, got 6"),
        ({"hardware_compatibility": "all"}, "must be of none, ampere-plus, same-compute-capability, got all"),
        ({"dla_core": -1}, "dla_core must be at least 0, got -1"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineOptions(**wrong)


def test_the_builder_is_asked_for_what_was_chosen() -> None:
    trt = nvidia_builder()
    builder, config, _logger = _config(trt)
    options = EngineOptions(workspace_mib=3, optimization_level=5, tf32=True, version_compatible=True)
    apply_options(trt, builder, config, options)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 3 << 20
    assert config.builder_optimization_level == 5
    assert config.get_flag(trt.BuilderFlag.TF32)
    assert config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def test_what_the_library_silently_leaves_is_told() -> None:
    trt = nvidia_builder()
    builder, config, _logger = _config(trt)
    with pytest.raises(UnavailableError, match="--hardware-compatible ampere-plus is not in tensorrt_rtx_bindings 1"):
        apply_options(trt, builder, config, EngineOptions(hardware_compatibility="ampere-plus"))
    with pytest.raises(UnavailableError, match="--dla-core 1 is not in tensorrt_rtx_bindings 1"):
        apply_options(trt, SimpleNamespace(num_DLA_cores=2), config, EngineOptions(dla_core=1))


def test_float32_is_float32_unless_tf32_is_asked_for() -> None:
    trt = nvidia_builder()
    builder, config, _logger = _config(trt)
    assert config.get_flag(trt.BuilderFlag.TF32), "the library's own default"
    apply_options(trt, builder, config, EngineOptions())
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert not config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def test_a_dla_core_that_is_not_there_is_an_error() -> None:
    trt = nvidia_builder()
    builder, config, _logger = _config(trt)
    with pytest.raises(UnavailableError, match=r"--dla-core 1 was asked for, but TensorRT .* sees 0 DLA cores here"):
        apply_options(trt, builder, config, EngineOptions(dla_core=1))


def test_a_dla_takes_what_it_can() -> None:
    """No DLA is at hand, and TensorRT for RTX takes no core: the real names, set on a configuration that keeps them."""
    trt = nvidia_builder()
    flags = []
    config = SimpleNamespace(set_flag=flags.append, clear_flag=lambda flag: None)
    apply_options(trt, SimpleNamespace(num_DLA_cores=2), config, EngineOptions(dla_core=1))
    assert (config.default_device_type, config.DLA_core) == (trt.DeviceType.DLA, 1)
    assert flags == [trt.BuilderFlag.GPU_FALLBACK]


def test_the_parser_is_told_of_a_dla_where_it_can_be() -> None:
    trt = nvidia_builder()
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    apply_parser_options(trt, parser, EngineOptions())
    assert not parser.get_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    apply_parser_options(trt, parser, EngineOptions(dla_core=0))
    assert parser.get_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    # TensorRT 10.3 has no such flag.
    apply_parser_options(SimpleNamespace(OnnxParserFlag=object()), None, EngineOptions(dla_core=0))


def test_what_a_version_lacks_is_told() -> None:
    trt = SimpleNamespace(
        __name__="tensorrt",
        __version__="10.3.0",
        BuilderFlag=SimpleNamespace(TF32="TF32"),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="AMPERE_PLUS"),
    )
    config = SimpleNamespace(clear_flag=lambda flag: None)
    apply_options(trt, None, config, EngineOptions(hardware_compatibility="ampere-plus"))
    assert config.hardware_compatibility_level == "AMPERE_PLUS"
    with pytest.raises(UnavailableError, match=r"same-compute-capability is not in tensorrt 10\.3\.0; leave it out"):
        apply_options(trt, None, config, EngineOptions(hardware_compatibility="same-compute-capability"))


def test_which_gpus_may_run_it() -> None:
    enterprise, rtx = SimpleNamespace(__name__="tensorrt"), SimpleNamespace(__name__="tensorrt_rtx")
    assert runs_on(enterprise, EngineOptions(), "8.7") == "8.7"
    assert runs_on(enterprise, EngineOptions(hardware_compatibility="same-compute-capability"), "8.7") == "8.7"
    assert runs_on(enterprise, EngineOptions(hardware_compatibility="ampere-plus"), "8.9") == "8.0+"
    assert runs_on(rtx, EngineOptions(), "8.9") == "8.0+"
    assert runs_on(rtx, EngineOptions(), None) == "8.0+"
