"""What runs in the Python backend of NVIDIA's Triton: from the bytes of photographs to crops.

The `model.py` of a repository is an import of the class. `triton_python_backend_utils` comes with
Triton, and is there in the process of its Python backend alone. Owns it.

N photographs of a request, H/W the network's input size in px.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from alexnet_deploy.export.triton import PHOTOGRAPH
from alexnet_deploy.graph.interface import INPUT
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.pipeline import Slot, batches, crop_loader, default_threads
from alexnet_deploy.photographs.pixels import EXACT


class TritonPythonModel:
    """Decodes, resizes and crops as everything else here does, in threads; Triton calls it."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Take the spec from the model's configuration.

        Raises:
            TritonModelException: this version of the package decodes to other pixels.
        """
        parameters = json.loads(args["model_config"])["parameters"]
        decoder = parameters["decoder"]["string_value"]
        if decoder != EXACT.decoder:
            raise pb_utils.TritonModelException(
                f"{args['model_name']}: was exported for {decoder}, and the package alexnet-deploy "
                f"that is installed here decodes by {EXACT.decoder}; export it again with this one"
            )
        self._spec = ModelSpec.from_json(parameters["spec"]["string_value"], args["model_name"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request with (N, H, W, 3) uint8, or with an error that says why not.

        A photograph that cannot be read is an error of its request alone.
        """
        photographs = [
            pb_utils.get_input_tensor_by_name(request, PHOTOGRAPH).as_numpy().ravel().tolist()
            for request in requests
        ]
        (batch,) = batches(
            itertools.chain(*photographs),
            crop_loader(self._spec, EXACT),
            input_size=self._spec.input_size,
            batch_size=sum(map(len, photographs)),
            threads=default_threads(),
        )
        slots = iter(batch.slots)
        return [
            _response(batch.images, list(itertools.islice(slots, len(some))))
            for some in photographs
        ]


def _response(images: NDArray[np.uint8], slots: Sequence[Slot[bytes]]) -> Any:
    """Return the answer to one request, whose photographs have these slots."""
    errors = [f"{PHOTOGRAPH} {n}: {slot.error}" for n, slot in enumerate(slots) if slot.error]
    if errors:
        error = pb_utils.TritonError("\n".join(errors), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(error=error)
    first = slots[0].row
    assert first is not None, "what has no error has a row"
    return pb_utils.InferenceResponse([pb_utils.Tensor(INPUT, images[first : first + len(slots)])])
