"""An index from Python: opened to be searched, made and brought up to date, imported, exported."""

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_deploy import arguments
from alexnet_deploy.choices import Ann, Colour, Device, Precision, Runtime, Scale
from alexnet_deploy.index.model import ModelRequest
from alexnet_deploy.index.report import IndexReport
from alexnet_deploy.index.session import Index
from alexnet_deploy.index.update import UpdateOptions, bring_up_to_date
from alexnet_deploy.weights.names import chosen_model

if TYPE_CHECKING:  # they need pyarrow
    from alexnet_deploy.index.exported import ExportReport
    from alexnet_deploy.index.imported import ImportReport


def open_index(
    directory: str | os.PathLike[str] = "alexnet-index",
    *,
    model: str | os.PathLike[str] | None = None,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Index:
    """Open an index to search it; use it in a `with` block, or close it.

    Args:
        directory: of the index.
        model: as for `open_model`; None for the index's own, where it was.
        runtime: library that runs the network; "auto" takes the fastest installed.
        device: "auto" is the GPU where the installed ONNX Runtime can use one, else the CPU.
        precision: arithmetic; "auto" is the index's, and no other is taken.
        batch_size: photographs per call of the network at most; None for 32.
        threads: for the network, decoding and comparing; None for all cores.
        notify: called with lines for a person: what runs, what takes a while.

    Raises:
        UsageError: there is no such index, or an argument is out of its range.
        IncompatibleFileError: it is damaged, or the model asked for has another vector space.
        MissingPackageError: faiss or the runtime is not installed.
        DeviceError: `device` is a GPU, and there is none.
    """
    request = _request(
        model, None, runtime, device, precision, batch_size, threads, None, None, False, notify
    )
    return Index(arguments.path("directory", directory), request, notify=notify)


def update_index(
    directory: str | os.PathLike[str],
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    *,
    model: str | os.PathLike[str] | None = None,
    layer: str | None = None,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: int | None = None,
    threads: int | None = None,
    decode: Scale | None = None,
    colour: Colour | None = None,
    fast: bool = False,
    include_hidden: bool = False,
    retry_failed: bool = False,
    prune: bool = False,
    repair: bool = False,
    exclude: str | Sequence[str] | None = None,
    remove: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    ann: Ann | int | Path = "auto",
    progress: Callable[[int], None] = lambda _: None,
    notify: Callable[[str], None] = lambda _: None,
) -> IndexReport:
    """Index what is new or has changed in folders, and remove what is gone; return the counts.
    `losses` are what is gone and was kept. A run that was stopped is resumed.

    Args:
        directory: of the index; made if it does not exist.
        folders: of photographs; none for all of the index that its user has named here before.
        model: as for `open_index`, and so are the next six; of a new index the default model.
        layer: of a new index, as for `Model.embed`; None for "fc7".
        runtime: see model.
        device: see model.
        precision: see model; of a new index the model's own.
        batch_size: see model.
        threads: see model.
        decode: as for `open_model`; None for the index's, and no other is taken; at first "scaled".
        colour: as for `open_model`; None as for `decode`, but at first "srgb".
        fast: choose precision and decoding of a new index, as `fast_for` of `open_model` does.
        include_hidden: index hidden files too, in these folders and from now on.
        retry_failed: read again what failed in an earlier run.
        prune: remove what is gone, even where it is more than a fifth of a folder.
        repair: check all vectors, and embed again those that are damaged.
        exclude: patterns to leave out from now on, `*.png`, `2019/**/raw`; None as before, () none.
        remove: folders or imported files to take out; without `folders` nothing else is done.
        ann: "compressed", or bits of codes: searches read few vectors; "exact": all; "auto".
        progress: called after each photograph that had to be read, with their number so far.
        notify: as for `open_index`.

    Raises:
        NoPhotographsError, UsageError, IncompatibleFileError, IndexLockedError, OutputError.
    """
    request = _request(
        model, layer, runtime, device, precision, batch_size, threads, decode, colour, fast, notify
    )
    options = _options(include_hidden, retry_failed, prune, repair, exclude, remove, ann)
    path, told = arguments.path("directory", directory), _counting(progress)
    some = list(map(Path, arguments.paths("folders", folders)))
    return bring_up_to_date(path, some, request, options, on_result=told, notify=notify)


def import_vectors(
    directory: str | os.PathLike[str],
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    model: str | os.PathLike[str] | None = None,
    layer: str | None = None,
    made_by: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
    notify: Callable[[str], None] = lambda _: None,
) -> "ImportReport":
    """Copy vectors that were made already into an index; what it has of them is not copied again.

    Args:
        directory: of the index; made if it does not exist.
        files: Parquet of `embed` or of `export_vectors`, an `.npy` of clip-retrieval, or folders
            of these.
        model: of a new index, as for `open_index`, to search for photographs; None for the public
            network that a file names, else the bundled checkpoint.
        layer: which to take of a file that has several.
        made_by: name of what made the vectors of files that do not say it; None for the index's.
        progress: called after each row with their number so far.
        notify: as for `open_index`.

    Raises:
        UsageError, IncompatibleFileError, IndexLockedError, MissingPackageError, OutputError.
    """
    from alexnet_deploy.index.imported import import_files

    request = ModelRequest(
        model=None if model is None else chosen_model(model, notify=notify), layer=layer
    )
    path, told = arguments.path("directory", directory), _counting(progress)
    some = [Path(file) for file in arguments.paths("files", files)]
    return import_files(path, some, request, made_by=made_by, on_result=told, notify=notify)


def export_vectors(
    directory: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> "ExportReport":
    """Write what an index finds as Parquet files, for other programs and for `import_vectors`.

    Args:
        directory: of the index.
        folder: of the files; made if it does not exist, else empty.
        progress: called after each photograph with their number so far.

    Raises:
        UsageError, IncompatibleFileError, MissingPackageError, OutputError.
    """
    from alexnet_deploy.index.exported import export_files

    path, target = arguments.path("directory", directory), arguments.path("folder", folder)
    return export_files(path, target, on_result=_counting(progress))


def _counting(progress: Callable[[int], None]) -> Callable[..., None]:
    num_read = itertools.count(1)
    return lambda *_: progress(next(num_read))


def _options(
    include_hidden: bool,
    retry_failed: bool,
    prune: bool,
    repair: bool,
    exclude: str | Sequence[str] | None,
    remove: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    ann: Ann | int | Path,
) -> UpdateOptions:
    return UpdateOptions(
        include_hidden=include_hidden,
        retry_failed=retry_failed,
        prune=prune,
        repair=repair,
        exclude=None if exclude is None else tuple(arguments.paths("exclude", exclude)),
        remove=tuple(Path(folder) for folder in arguments.paths("remove", remove)),
        ann=ann,
    )


def _request(
    model: str | os.PathLike[str] | None,
    layer: str | None,
    runtime: Runtime,
    device: Device,
    precision: Precision,
    batch_size: int | None,
    threads: int | None,
    decode: Scale | None,
    colour: Colour | None,
    fast: bool,
    notify: Callable[[str], None],
) -> ModelRequest:
    return ModelRequest(
        model=None if model is None else chosen_model(model, notify=notify),
        layer=layer,
        precision=precision,
        runtime=runtime,
        device=device,
        batch_size=batch_size,
        threads=threads,
        decode=decode,
        colour=colour,
        fast=fast,
    )
