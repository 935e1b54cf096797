"""Verify an `.onnx` file that another tool rewrote: simplified it, or changed its opset.

Its graph no longer follows from its spec, so no command runs it as one of ours. Its numbers can
still be compared with those of a checkpoint: the file runs as it is, in ONNX Runtime.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.reading import RewrittenFileError, parsed_model
from alexnet_deploy.graph.report import Check, Report
from alexnet_deploy.model.checkpoints import Checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.verification.comparison import Comparison, compare


def verify_rewritten(
    path: Path,
    error: RewrittenFileError,
    checkpoint: Checkpoint,
    photographs: Iterable[Path],
    options: RunnerOptions,
    on_photograph: Callable[[Path, str | None], None],
) -> Report:
    """Run the file as it is and the reference on `photographs`, and compare its outputs.

    Args:
        path: of the file.
        error: what `read_model` says about it; the report repeats it as a note.
        checkpoint: what the file should compute, and how photographs are prepared for it.
        photographs: as for `verification.onnx.verify`.
        options: of the runner; only its batch size counts.
        on_photograph: as for `verification.onnx.verify`.

    Raises:
        IncompatibleFileError: it has loops, functions, operators of other domains, sparse arrays
            or arrays in other files, it cannot be run, or its outputs are no layers of the network.
        NoPhotographsError: no photograph could be read.
    """
    graph = parsed_model(path)
    _check_harmless(graph, path)
    file = ModelFile(graph=graph, arrays={}, spec=checkpoint.spec, origin="", source=str(path))
    layers = file.outputs()
    if not layers or len(set(layers) & checkpoint.spec.layer_shapes().keys()) != len(layers):
        raise IncompatibleFileError(
            f"{path}: its outputs are {', '.join(map(str, layers))[:200]}, expected layers of the "
            f"network: {', '.join(checkpoint.spec.layer_shapes())}; export it again"
        )
    runner = _AsWritten(file, options)
    comparison = Comparison(Reference(checkpoint), layers, error.precision)
    skipped = compare(runner, photographs, comparison, on_photograph)
    note = Check(name="rewritten by another tool", measured=error.reason, allowed="-", passed=True)
    return Report(
        checks=(note, *comparison.checks()),
        runs=runner.description,
        against=checkpoint.identity,
        num_photographs=comparison.num_photographs,
        skipped=skipped,
    )


class _AsWritten:
    """A runner of the file's own bytes."""

    def __init__(self, file: ModelFile, options: RunnerOptions) -> None:
        self._file = file
        self.spec = file.spec
        self.identity = ""
        self.options = dataclasses.replace(options, runtime="onnxruntime", device="cpu")
        self.description = "ONNX Runtime on the CPU, the file as it is"

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        # Here, because the other ways of verifying need not have ONNX Runtime.
        from alexnet_deploy.runtimes.onnxruntime_runner import run_as_written
        from alexnet_deploy.runtimes.onnxruntime_session import is_runtime_error

        try:
            outputs = run_as_written(self._file, images)
        except Exception as error:
            if not (is_runtime_error(error) or isinstance(error, ValueError)):  # of its inputs
                raise
            raise self._unusable(f"cannot be run ({str(error).splitlines()[0]})") from error
        for name, values in outputs.items():
            shape = (len(images), *self.spec.layer_shapes()[name])
            came = f"{getattr(values, 'dtype', type(values).__name__)}"
            if came != "float32" or values.shape != shape:
                raise self._unusable(f"gives another {name} than float32 {list(shape)}")
        return outputs

    def _unusable(self, reason: str) -> IncompatibleFileError:
        return IncompatibleFileError(f"{self._file.source}: {reason}; export it again")

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


def _check_harmless(model: onnx.ModelProto, path: Path) -> None:
    """Refuse what can run for ever or read other files."""
    found = next(_harms(model), None)
    if found is not None:
        raise IncompatibleFileError(f"{path}: has {found}, which is not run; export it again")


def _harms(model: onnx.ModelProto) -> Iterator[str]:
    if model.functions:
        yield "functions of its own"
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield f"an operator of the domain {node.domain[:100]!r}"
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                yield f"a loop or a branch, {node.op_type[:100]}"
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                yield f"a sparse array, in {node.op_type[:100]}"
            for tensor in (attribute.t, *attribute.tensors):
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    yield "arrays in other files"
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield "arrays in other files"
    for sparse in model.graph.sparse_initializer:
        yield f"a sparse array, {sparse.values.name[:100]}"
