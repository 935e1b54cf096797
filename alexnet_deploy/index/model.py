"""Create an index, and open the runner that computes its vectors."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from alexnet_deploy.choices import ALL_LAYERS, Colour, Device, Precision, Runtime, Scale
from alexnet_deploy.errors import Argument, ArgumentError, IncompatibleFileError, UsageError
from alexnet_deploy.export.fast import check_left_open
from alexnet_deploy.export.opening import open_fast_runner, open_runner_of, with_ranges
from alexnet_deploy.files.output_files import errors_of, make_directory, sync_directory
from alexnet_deploy.importing.known import KnownNetwork, known_networks
from alexnet_deploy.index.ledger import BLOB, JOURNAL_NAME, LEDGER_NAME, NULL, PART_NAME, Ledger
from alexnet_deploy.index.lock import LOCK_NAME, writer_lock
from alexnet_deploy.index.manifest import (
    MANIFEST_NAME,
    Manifest,
    check_space,
    new_manifest,
    vector_space,
    write_manifest,
)
from alexnet_deploy.index.segments import FOLDER_NAME
from alexnet_deploy.index.storage import Storage, is_index, remove_parts
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.layers import own_name
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.capabilities import FilePrecisionError
from alexnet_deploy.weights.names import ModelSource, chosen_model

_NEW = dataclasses.replace(EXACT, scale="scaled")
"""How photographs are decoded for an index that does not say it yet."""

_PLAIN_SUFFIXES = (".onnx", ".safetensors")
_LEFTOVERS = {LOCK_NAME, LEDGER_NAME, JOURNAL_NAME, PART_NAME, f"{PART_NAME}-journal", FOLDER_NAME}
"""What a killed creation may leave behind, besides the temporary files of `atomic_write`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """The runner that a caller requests; None, or "auto", stands for the index's own.

    Attributes:
        model: file or public network; for a new index None is `names.chosen_model()`.
        layer: as for `layers.layer_name`; for a new index None is "fc7".
        precision: for a new index "auto" is the model file's own.
        runtime: as in `RunnerOptions`, and so is device.
        device: see runtime.
        batch_size: images per call at most; None for 32.
        threads: for the network and for decoding; None for all cores.
        decode: how JPEGs are decoded; for a new index None is "scaled".
        colour: what is done of colour profiles; for a new index None is "srgb".
        fast: choose precision and decoding for a new index, see `fast.open_quickest`; an index
            keeps its own.
    """

    model: ModelSource | None = None
    layer: str | None = None
    precision: Precision = "auto"
    runtime: Runtime = "auto"
    device: Device = "auto"
    batch_size: int | None = None
    threads: int | None = None
    decode: Scale | None = None
    colour: Colour | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        """Refuse at once what cannot be had anywhere; raises `UsageError`."""
        if self.layer == ALL_LAYERS:
            raise ArgumentError("layer", self.layer, "one layer, an index is of one")
        _options(self, self.layer or "fc7", self.precision)
        self.decoded_as(EXACT)
        if self.fast:
            check_left_open(Argument("fast", True), self.precision, self.decode)

    def decoded_as(self, own: Decode) -> Decode:
        """Return how to decode, where what is left open is an index's own."""
        return Decode.of(self.decode or own.scale, self.colour or own.colour)


def create_index(
    directory: Path,
    request: ModelRequest,
    photographs: Iterable[Path],
    notify: Callable[[str], None],
) -> Runner:
    """Create an empty index for the model that `request` names; return its runner.

    It exists only once the manifest appears; leftovers of a killed creation are used or replaced.

    Args:
        directory: of the index.
        request: the model.
        photographs: those to come, by which `request.fast` chooses.
        notify: called with lines for a person.

    Raises:
        UsageError: the directory is a file, or contains something else.
        OutputError: it cannot be created.
        IndexLockedError: another process is creating it.
    """
    _check_is_free(directory)
    model = request.model or chosen_model(notify=notify)
    layer = own_name(request.layer or "fc7")
    with ExitStack() as stack:
        options = _options(request, layer, request.precision)
        if request.fast:
            new = open_fast_runner(model, photographs, options, is_kept=True, notify=notify)
        else:
            options = with_ranges(model, options, notify=notify)
            new = open_runner_of(model, options, notify=notify)
        runner = stack.enter_context(new)
        manifest = new_manifest(runner, layer=layer, decode=request.decoded_as(_NEW))
        create_empty(directory, manifest, model)
        stack.pop_all()  # the runner stays open for the caller
    return runner


def create_empty(directory: Path, manifest: Manifest, model: ModelSource) -> None:
    """Create an index without photographs, unless another process has been faster.

    Args:
        directory: of the index.
        manifest: of the index; that of another process may say something else.
        model: to be remembered.

    Raises:
        UsageError, OutputError, IndexLockedError: as `create_index`.
    """
    _check_is_free(directory)
    make_directory(directory)
    with writer_lock(directory):
        if not is_index(directory):
            _fill(directory, manifest, model)


def _fill(directory: Path, manifest: Manifest, model: ModelSource) -> None:
    """Create the files of an index in a locked directory, the manifest last."""
    remove_parts(directory)
    with errors_of(directory):
        (directory / FOLDER_NAME).mkdir(exist_ok=True)
    if not (directory / LEDGER_NAME).exists():
        Ledger.create(directory)
    with Ledger.open(directory) as ledger:
        if ledger.one("SELECT 1 FROM photographs LIMIT 1") is not None:
            raise IncompatibleFileError(
                f"index {directory}: its {MANIFEST_NAME} is missing, but its photographs are in "
                f"{LEDGER_NAME}; restore the file from a copy, or name another directory"
            )
        _remember_model(ledger, model)
    write_manifest(manifest, directory)
    sync_directory(directory)


def open_model_of(index: Storage, request: ModelRequest, notify: Callable[[str], None]) -> Runner:
    """Open the runner that computes the index's vectors.

    Args:
        index: its manifest gives layer and precision, its ledger the model's path or name.
        request: its values must agree with these.
        notify: as for `opening.open_runner_of`.

    Raises:
        IncompatibleFileError: `request` is for another vector space, or the model has changed.
    """
    check_request(index, request)
    check_is_own(index)
    model = request.model or _own_model(index)
    space = index.manifest.space
    options = dataclasses.replace(
        _options(request, space.layer, space.precision), ranges=space.ranges
    )
    try:
        runner = open_runner_of(model, options, notify=notify)
    except FilePrecisionError as error:  # which tells of an option, but the index asked for it
        raise IncompatibleFileError(
            f"index {index.directory}: its precision is {space.precision}, in which {model} does "
            "not run; give the index's own ",
            Argument("model"),
        ) from error
    try:
        check_model(index, runner, model)
    except BaseException:
        runner.close()
        raise
    return runner


def check_is_own(index: Storage) -> None:
    """Refuse to make a vector of a photograph for an index of a foreign space.

    Raises:
        UsageError: saying what can be searched for.
    """
    space = index.manifest.space
    if space.is_foreign:
        raise UsageError(
            f"index {index.directory}: its vectors were imported, made by {space.made_by}, and no "
            "network here makes such vectors of photographs; search it for a vector of "
            f"{space.dimension:,} numbers or for what was imported, or index photographs into "
            "another ",
            Argument("directory"),
        )


def _own_model(index: Storage) -> ModelSource:
    """Return the model that an index names, if it may be opened for that alone.

    A stranger may have made the index. A plan of TensorRT is a program, and what lies in the
    index's directory came with it; weights that are nothing but numbers do no harm, and are
    compared with the manifest. So are public networks, which are the user's own.

    Raises:
        UsageError: the caller has to name it.
    """
    recorded = _recorded_model(index.ledger)
    if recorded is None:
        return bundled_checkpoint()
    if isinstance(recorded, KnownNetwork):
        return recorded
    if not os.path.exists(recorded):
        return chosen_model()
    reason = None
    if recorded.suffix not in _PLAIN_SUFFIXES:
        reason = f"only {' and '.join(_PLAIN_SUFFIXES)} files are opened because an index says so"
    elif Path(os.path.realpath(index.directory)) in Path(os.path.realpath(recorded)).parents:
        reason = "a file inside the index is not opened because the index says so"
    if reason is not None:
        raise UsageError(
            f"index {index.directory}: its model is {recorded}, and {reason}; if you trust that "
            "file, name it with ",
            Argument("model"),
        )
    return recorded


def check_model(index: Storage, runner: Runner, model: ModelSource | None) -> None:
    """Reject a runner whose vectors are not in the index's space.

    Args:
        index: the index.
        runner: opened for its layer.
        model: the runner's, for the message.

    Raises:
        IncompatibleFileError: naming the difference.
    """
    space = index.manifest.space
    if runner.identity != space.identity:
        raise IncompatibleFileError(
            f"index {index.directory}: made by "
            f"{_recorded_model(index.ledger) or 'the bundled checkpoint'}, identity "
            f"{space.identity[:16]}..., but {model or chosen_model()} has "
            f"{runner.identity[:16]}...; vectors of the two cannot be compared: give the "
            "index's own ",
            Argument("model"),
            ", or name another ",
            Argument("directory"),
        )
    own = vector_space(
        runner.spec,
        identity=space.identity,
        layer=space.layer,
        precision=space.precision,
        decode=space.decode,
        ranges=space.ranges,
    )
    check_space(index.directory, space, {name: getattr(own, name) for name in own.__slots__})


def check_request(index: Storage, request: ModelRequest) -> None:
    """Reject a layer, a precision or a way of decoding that is not the index's.

    Raises:
        IncompatibleFileError: naming the difference.
    """
    layer = request.layer and own_name(request.layer)
    asked = {"layer": layer, "precision": request.precision}
    stated = {name: value for name, value in asked.items() if value not in (None, "auto")}
    space = index.manifest.space
    decode = request.decoded_as(space.decode)
    check_space(index.directory, space, {**stated, "decode": decode})


def remember_model(index: Storage, model: ModelSource) -> None:
    """Record the path or the name of the index's model for later runs."""
    _remember_model(index.ledger, model)


def _remember_model(ledger: Ledger, model: ModelSource) -> None:
    if isinstance(model, KnownNetwork):
        recorded: str | None = model.name
    else:
        path = os.path.realpath(model)
        recorded = None if path == os.path.realpath(bundled_checkpoint()) else path
    with ledger.transaction():
        ledger.execute("UPDATE settings SET model = ?", (recorded and os.fsencode(recorded),))


def _recorded_model(ledger: Ledger) -> ModelSource | None:
    """Return the recorded path or network; None for the bundled checkpoint."""
    (recorded,) = ledger.one("SELECT model FROM settings", kinds=(BLOB | NULL,))
    if recorded is None:
        return None
    text = os.fsdecode(recorded)
    if text in known_networks():
        return known_networks()[text]
    if not text.startswith("/") or "\0" in text:
        raise ledger.damaged(f"the model {recorded!r} is no absolute path and no public network")
    return Path(text)


def _options(request: ModelRequest, layer: str, precision: str) -> RunnerOptions:
    return RunnerOptions(
        runtime=request.runtime,
        device=request.device,
        precision=cast(Precision, precision),  # RunnerOptions rejects others
        batch_size=32 if request.batch_size is None else request.batch_size,
        exact_batch=request.batch_size is not None,
        threads=request.threads,
        outputs=(layer,),
    )


def _is_part(name: str) -> bool:
    return name.startswith(".alexnet-deploy-") and name.endswith(".part")


def _check_is_free(directory: Path) -> None:
    """Reject a directory that contains anything but leftovers of a killed creation."""
    with errors_of(directory):
        if directory.exists() and not directory.is_dir():
            raise UsageError(f"index {directory}: is a file, expected a directory")
        names = sorted(os.listdir(directory)) if directory.exists() else []
    others = [name for name in names if name not in _LEFTOVERS and not _is_part(name)]
    if others and MANIFEST_NAME not in names:
        raise UsageError(
            f"index {directory}: is not an index, contains other files ({', '.join(others[:3])}); "
            "name a new or an empty ",
            Argument("directory"),
        )
