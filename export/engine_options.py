"""What may be asked of TensorRT's builder, and the one place where it is set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hamr_edge.engine_record import TENSORRT_RTX
from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.tensorrt_library import flavour_of

HARDWARE_COMPATIBILITY = ("none", "ampere-plus", "same-compute-capability")
_LEVELS = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}
_AMPERE = "8.0"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of a build; no option changes a type: precision is in the ONNX."""

    opt_batch: int | None = None
    """The batch that the engine is tuned for; 8, or the largest batch if that is less, when None."""
    workspace_mib: int | None = None
    """Most scratch memory, in MiB; chosen by what is free when None."""
    optimization_level: int | None = None
    """0 builds fastest, 5 runs fastest; the library's own, 3, when None."""
    tf32: bool = False
    """Let float32 products round to TF32, 10 bits of mantissa. Otherwise float32 is float32."""
    version_compatible: bool = False
    """The plan runs on later versions of TensorRT too."""
    hardware_compatibility: str = "none"
    """One of ``HARDWARE_COMPATIBILITY``."""
    dla_core: int | None = None
    """Deep-learning accelerator of a Jetson that takes what it can; the GPU takes the rest."""

    def __post_init__(self) -> None:
        for name in ("opt_batch", "workspace_mib"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise InputError(f"optimization_level must be in 0..5, got {self.optimization_level}")
        if self.hardware_compatibility not in HARDWARE_COMPATIBILITY:
            known = ", ".join(HARDWARE_COMPATIBILITY)
            raise InputError(f"hardware_compatibility must be of {known}, got {self.hardware_compatibility}")
        if self.dla_core is not None and self.dla_core < 0:
            raise InputError(f"dla_core must be at least 0, got {self.dla_core}")

    @property
    def workspace_bytes(self) -> int | None:
        """Most scratch memory, in bytes."""
        return None if self.workspace_mib is None else self.workspace_mib * _MIB

    def words(self) -> tuple[str, ...]:
        """The command-line words that ask for these options again; defaults are left out."""
        valued = {
            "--opt-batch": self.opt_batch,
            "--workspace": self.workspace_mib,
            "--optimization-level": self.optimization_level,
            "--hardware-compatible": None if self.hardware_compatibility == "none" else self.hardware_compatibility,
            "--dla-core": self.dla_core,
        }
        words = [word for flag, value in valued.items() if value is not None for word in (flag, str(value))]
        switches = {"--tf32": self.tf32, "--version-compatible": self.version_compatible}
        return (*words, *(flag for flag, given in switches.items() if given))


DEFAULTS = EngineOptions()


def apply_options(trt: Any, builder: Any, builder_config: Any, options: EngineOptions) -> None:
    """Set the options on a builder's configuration.

    Raises:
        UnavailableError: This TensorRT, or this device, does not have what is asked for.
    """
    if options.workspace_bytes is not None:
        builder_config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        builder_config.builder_optimization_level = options.optimization_level
    # Set by default, where it would take 13 bits from a float32 artifact unasked.
    if options.tf32:
        builder_config.set_flag(trt.BuilderFlag.TF32)
    else:
        builder_config.clear_flag(trt.BuilderFlag.TF32)
    if options.version_compatible:
        builder_config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatibility != "none":
        level = _hardware_level(trt, options.hardware_compatibility)
        builder_config.hardware_compatibility_level = level
        # TensorRT for RTX lets it be set, and stays as it was.
        if builder_config.hardware_compatibility_level != level:
            raise _lacking(trt, f"--hardware-compatible {options.hardware_compatibility}")
    if options.dla_core is not None:
        _use_dla(trt, builder, builder_config, options.dla_core)


def apply_parser_options(trt: Any, parser: Any, options: EngineOptions) -> None:
    """Set what the parser must know: for a DLA, newer versions write the network so that more of it fits."""
    if options.dla_core is not None and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)


def runs_on(trt: Any, options: EngineOptions, compute_capability: str | None) -> str:
    """The GPUs that may run the plan, as :class:`hamr_edge.engine_record.EngineRecord` says it.

    Args:
        trt: The bindings.
        options: Of the build.
        compute_capability: Of the GPU it is built on; None without one.
    """
    # NVIDIA's documentation of TensorRT for RTX ("CPU-Only AOT"): 8.0 and later, unless another target is named.
    if flavour_of(trt) == TENSORRT_RTX or options.hardware_compatibility == "ampere-plus" or compute_capability is None:
        return f"{_AMPERE}+"
    return compute_capability


def _hardware_level(trt: Any, name: str) -> Any:
    level = _LEVELS[name]
    if not hasattr(trt.HardwareCompatibilityLevel, level):
        raise _lacking(trt, f"--hardware-compatible {name}")
    return getattr(trt.HardwareCompatibilityLevel, level)


def _lacking(trt: Any, option: str) -> UnavailableError:
    return UnavailableError(f"{option} is not in {trt.__name__} {trt.__version__}; leave it out, or build with another")


def _use_dla(trt: Any, builder: Any, builder_config: Any, core: int) -> None:
    found = builder.num_DLA_cores
    if core >= found:
        raise UnavailableError(
            f"--dla-core {core} was asked for, but TensorRT {trt.__version__} sees {found} DLA cores here; leave it out"
        )
    builder_config.default_device_type = trt.DeviceType.DLA
    builder_config.DLA_core = core
    if builder_config.DLA_core != core:
        raise _lacking(trt, f"--dla-core {core}")
    builder_config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
