"""AlexNet (Krizhevsky, Sutskever, Hinton 2012), from checkpoint to labels, vectors and search.

The names in `__all__` are the public ones, and all else may change. Each is imported when it is
first used, so that `import alexnet_deploy` costs next to nothing. See README.md beside this file.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_deploy.errors import AlexNetDeployError as AlexNetDeployError
    from alexnet_deploy.export.opening import open_model as open_model
    from alexnet_deploy.index.opening import export_vectors as export_vectors
    from alexnet_deploy.index.opening import import_vectors as import_vectors
    from alexnet_deploy.index.opening import open_index as open_index
    from alexnet_deploy.index.opening import update_index as update_index
    from alexnet_deploy.index.report import IndexReport as IndexReport
    from alexnet_deploy.index.results import Neighbour as Neighbour
    from alexnet_deploy.index.results import SearchResult as SearchResult
    from alexnet_deploy.index.session import Index as Index
    from alexnet_deploy.inference.classification import Classification as Classification
    from alexnet_deploy.inference.classification import Prediction as Prediction
    from alexnet_deploy.inference.model import Embedding as Embedding
    from alexnet_deploy.inference.model import Embeddings as Embeddings
    from alexnet_deploy.inference.model import Model as Model
    from alexnet_deploy.photographs.finding import find_photographs as find_photographs
    from alexnet_deploy.photographs.memory import limit_decoded_memory as limit_decoded_memory
    from alexnet_deploy.photographs.pixel_limit import limit_megapixels as limit_megapixels

__version__ = "0.1.0"

_HOMES = {
    "errors": ("AlexNetDeployError",),
    "export.opening": ("open_model",),
    "index.opening": ("export_vectors", "import_vectors", "open_index", "update_index"),
    "index.results": ("Neighbour", "SearchResult"),
    "index.session": ("Index",),
    "index.report": ("IndexReport",),
    "inference.classification": ("Classification", "Prediction"),
    "inference.model": ("Embedding", "Embeddings", "Model"),
    "photographs.finding": ("find_photographs",),
    "photographs.memory": ("limit_decoded_memory",),
    "photographs.pixel_limit": ("limit_megapixels",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AlexNetDeployError",
    "Classification",
    "Embedding",
    "Embeddings",
    "Index",
    "IndexReport",
    "Model",
    "Neighbour",
    "Prediction",
    "SearchResult",
    "__version__",
    "export_vectors",
    "find_photographs",
    "import_vectors",
    "limit_decoded_memory",
    "limit_megapixels",
    "open_index",
    "open_model",
    "update_index",
]


if not TYPE_CHECKING:  # a checker knows the names above, and tells any other

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
