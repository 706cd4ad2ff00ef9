"""An artifact as a model of NVIDIA Triton Inference Server: ``NAME/config.pbtxt`` and ``NAME/VERSION/model.onnx``."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamr_edge.atomic import make_folder, replace_file, temporary_name
from hamr_edge.errors import ArtifactError, GateError, InputError
from hamr_edge.export.config_faults import ConfigFault, raise_faults
from hamr_edge.export.triton_config import (
    CONFIG_NAME,
    find_graph_faults,
    find_interface_faults,
    find_serving_faults,
    format_config,
    parse_config,
    read_config,
    require_schema,
    runs_on,
    stamp_config,
)
from hamr_edge.sidecar import Sidecar, external_data_path, load_sidecar, sidecar_path

DEFAULT_QUEUE_DELAY_US = 5000


@dataclass(frozen=True, slots=True)
class WrittenModel:
    """A model in a repository."""

    folder: Path
    version: int
    max_batch_size: int
    """As ``config.pbtxt`` has it."""
    is_new: bool = True
    """False where the newest version is this artifact already."""
    keeps_config: bool = False
    """True where ``config.pbtxt`` stays as somebody edited it, but for the stamp of its artifact."""


def write_repository(
    artifact: Path, folder: Path, *, name: str | None = None, queue_delay_us: int = DEFAULT_QUEUE_DELAY_US
) -> WrittenModel:
    """Put an artifact into a model repository, whole or not at all.

    A model that is there already gets the artifact as its next version, if both take and give the same; Triton serves
    the newest. Its ``config.pbtxt`` may have been edited and stays so. The sidecar lies beside the model, so
    ``hamr-edge bench NAME/1/model.onnx`` works too.

    Args:
        artifact: ``.onnx`` or ``.engine`` in the crops form, with its sidecar.
        folder: The repository; made if it is not there.
        name: Of the model; the artifact's name without its suffix when None.
        queue_delay_us: How long Triton lets a request wait for others, in microseconds; of a new model.

    Raises:
        InputError: Not such an artifact, a name that Triton would not take, or another model of that name.
        ArtifactError: The sidecar is missing or wrong.
        GateError: The configuration is not what Triton's schema or the graph says; nothing is published.
        UnavailableError: ``tritonclient``, which has the schema, is not installed.
    """
    require_schema()
    artifact = Path(artifact)
    sidecar = load_sidecar(artifact)
    check_artifact(artifact, sidecar)
    name = choose_name(artifact) if name is None else name
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise InputError(f"a model's name is of letters, digits, - and _; got {name!r}")
    if queue_delay_us < 0:
        raise InputError(f"queue_delay_us must be at least 0, got {queue_delay_us}")
    model = folder / name
    fresh = format_config(artifact, sidecar, name, queue_delay_us)
    old = text = fresh
    if model.exists():
        if not (model / CONFIG_NAME).is_file():
            raise InputError(f"{model} is there already and has no {CONFIG_NAME}; move it away")
        old = read_config(model)
        text = stamp_config(old, sidecar)
    config = parse_config(text, model / CONFIG_NAME)
    _check_config(config, artifact, sidecar, model)
    versions = _versions(model) if model.exists() else []
    keeps_config = text != fresh
    if versions and _is_version(config, model / str(versions[-1]), sidecar):
        if text != old:  # a version that was newer has been taken away
            replace_file(model / CONFIG_NAME, lambda path: path.write_text(text, encoding="utf-8"))
        return WrittenModel(model, versions[-1], config.max_batch_size, False, keeps_config)
    version = max(versions, default=0) + 1
    _check_served(config, version, model)
    _publish(artifact, model, version, text, config)
    return WrittenModel(model, version, config.max_batch_size, True, keeps_config)


def find_model_faults(folder: Path) -> list[ConfigFault]:
    """Hold a model of a repository against its artifact: every field that Triton would take amiss.

    Args:
        folder: The model's, with ``config.pbtxt``; perhaps edited by hand. Triton knows it by the folder's name.

    Returns:
        The faults, against the newest version that Triton would serve.

    Raises:
        InputError: ``config.pbtxt`` is not there, or not UTF-8.
        UnavailableError: ``tritonclient``, which has the schema, is not installed.
    """
    try:
        return _find_faults(Path(folder))
    except GateError as error:
        return [ConfigFault("schema", str(error))]
    except ArtifactError as error:
        return [ConfigFault("artifact", str(error))]


def check_model(folder: Path) -> None:
    """Pass where :func:`find_model_faults` finds no error.

    Raises:
        GateError: Triton's schema does not read the configuration, or a field contradicts the artifact.
        ArtifactError: There is no model, or no sidecar beside it.
    """
    raise_faults(_find_faults(Path(folder)), Path(folder) / CONFIG_NAME)


def check_artifact(artifact: Path, sidecar: Sidecar) -> None:
    """Raise InputError unless Triton can serve an artifact."""
    if artifact.suffix not in (".onnx", ".engine"):
        raise InputError(f"Triton runs .onnx and .engine artifacts; {artifact} is neither")
    if sidecar.form != "crops":
        raise InputError(
            f"{artifact} is in the {sidecar.form} form, whose requests Triton cannot put into one batch; export "
            "--form crops for it"
        )
    if artifact.suffix == ".onnx" and sidecar.precision == "int8":
        raise InputError(
            f"{artifact} is Q/DQ for TensorRT, and slow on ONNX Runtime: give Triton its engine (--format engine), or "
            "int8-cpu for a server without GPU"
        )


def choose_name(artifact: Path) -> str:
    """The model's name, after its artifact.

    Raises:
        InputError: The artifact's name has letters that a model's name cannot have.
    """
    name = re.sub(r"[^\w-]", "_", artifact.stem)
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise InputError(
            f"a model's name in Triton is of letters a to z, digits, - and _, and would be {name!r} here; rename "
            f"{artifact.name} and its sidecar {sidecar_path(artifact).name}"
        )
    return name


def _find_faults(folder: Path) -> list[ConfigFault]:
    require_schema()
    config = parse_config(read_config(folder), folder / CONFIG_NAME)
    versions = _versions(folder)
    if not versions:
        raise ArtifactError(f"{folder} holds no model.onnx or model.plan in a folder named by a number")
    served = _served(config, versions)
    version = folder / str((served or versions)[-1])
    faults = [*_policy_faults(config, versions), *_file_faults(config, version)]
    artifact = _artifact_of(config, version)
    sidecar = load_sidecar(artifact)
    faults += find_interface_faults(config, artifact, sidecar, folder.absolute().name)  # '.' has none
    faults += find_serving_faults(config, sidecar, folder)
    if artifact.suffix == ".onnx":
        faults += find_graph_faults(artifact, sidecar)
    return faults


def _check_config(config: Any, artifact: Path, sidecar: Sidecar, model: Path) -> None:
    """Hold a configuration against the artifact that is to be served with it."""
    faults = list(find_interface_faults(config, artifact, sidecar, model.name))
    if model.exists() and faults:
        raise InputError(
            f"{model} is there already, and is another model: {'; '.join(fault.message for fault in faults)}; its "
            "clients may send what this artifact does not take; give another name, or move it away"
        )
    faults += find_serving_faults(config, sidecar, model)
    if artifact.suffix == ".onnx":
        faults += find_graph_faults(artifact, sidecar)
    raise_faults(faults, model / CONFIG_NAME)


def _check_served(config: Any, version: int, model: Path) -> None:
    """Raise InputError where Triton would leave a new version out."""
    if _served(config, [version]) != [version]:
        raise InputError(
            f"version_policy in {model / CONFIG_NAME} would not serve version {version}, which this artifact becomes; "
            "name it there first, or take version_policy out"
        )


def _publish(artifact: Path, model: Path, version: int, text: str, config: Any) -> None:
    """Copy an artifact into a hidden folder, look at the copy, and rename."""
    was_there = model.parent.is_dir()
    make_folder(model.parent, "repository")
    making = temporary_name(model.parent / f"{model.name}-{version}")
    try:
        made = making / str(version)
        made.mkdir(parents=True)
        (making / CONFIG_NAME).write_text(text, encoding="utf-8")
        target = made / (config.default_model_filename or runs_on(artifact)[2])
        shutil.copyfile(artifact, target)
        shutil.copyfile(sidecar_path(artifact), sidecar_path(target))
        if external_data_path(artifact).is_file():  # the graph knows it by its name
            shutil.copyfile(external_data_path(artifact), made / external_data_path(artifact).name)
        raise_faults(_file_faults(config, made), model / CONFIG_NAME)
        try:
            load_sidecar(target)
        except ArtifactError as error:
            message = str(error).replace(str(making), str(model))
            raise ArtifactError(f"{artifact} could not be copied whole: {message}") from error
        if model.exists():
            made.rename(model / str(version))
            replace_file(model / CONFIG_NAME, lambda path: path.write_text(text, encoding="utf-8"))
        else:
            making.rename(model)
    finally:
        shutil.rmtree(making, ignore_errors=True)
        if not was_there:
            with suppress(OSError):  # only an empty folder goes
                model.parent.rmdir()


def _versions(model: Path) -> list[int]:
    """What Triton takes for a version: it ignores other names, and those that begin with 0."""
    return sorted(int(path.name) for path in model.iterdir() if re.fullmatch("[1-9][0-9]*", path.name))


def _served(config: Any, versions: list[int]) -> list[int]:
    """Those of some versions that Triton would load; of those that "latest" counts, the newest is one."""
    policy = config.version_policy
    if policy.HasField("specific"):
        return [version for version in versions if version in policy.specific.versions]
    return versions if not policy.HasField("latest") or policy.latest.num_versions else []


def _policy_faults(config: Any, versions: list[int]) -> list[ConfigFault]:
    policy = config.version_policy
    absent = sorted(set(policy.specific.versions) - set(versions))
    if absent or not _served(config, versions):
        what = f"names {absent}, which are not there" if absent else "serves no version"
        return [ConfigFault("version_policy", f"version_policy {what}; there are {versions}")]
    return []


def _file_faults(config: Any, version: Path) -> list[ConfigFault]:
    """Files that a configuration names and a version does not have."""
    files = {"default_model_filename": config.default_model_filename}
    files |= {f"cc_model_filenames {key!r}": file for key, file in config.cc_model_filenames.items()}
    return [
        ConfigFault(field.split()[0], f"{field} is {file!r}, which is not in version {version.name}")
        for field, file in files.items()
        if file and not (version / file).is_file()
    ]


def _artifact_of(config: Any, version: Path) -> Path:
    """The file of a version that Triton loads.

    Raises:
        ArtifactError: There is none.
    """
    wanted = (config.default_model_filename, "model.onnx", "model.plan")
    artifact = next((version / file for file in wanted if file and (version / file).is_file()), None)
    if artifact is None:
        raise ArtifactError(f"{version.parent} holds no model.onnx or model.plan in a folder named by a number")
    return artifact


def _is_version(config: Any, version: Path, sidecar: Sidecar) -> bool:
    """Whether a version holds the same artifact; a damaged one does not."""
    try:
        there = load_sidecar(_artifact_of(config, version))
    except ArtifactError:
        return False
    hashes = [(one.artifact_sha256, one.external_data_sha256) for one in (there, sidecar)]
    return hashes[0] == hashes[1]
