"""Layers by name: ours, torchvision's or Caffe's, in a network that may not have them all."""

from collections.abc import Iterable

from alexnet_deploy.choices import ALL_LAYERS, LAYERS
from alexnet_deploy.errors import ArgumentError, UsageError
from alexnet_deploy.model.spec import ModelSpec

_OWN = {
    name: layer.name for layer in LAYERS for name in (layer.name, *layer.torchvision, *layer.caffe)
}


def own_name(text: str) -> str:
    """Return our name of the layer that `text` means in any program; an unknown one as it is.

    Raises:
        ArgumentError: it is no string.
    """
    if not isinstance(text, str):
        raise ArgumentError("layer", text, "the name of one layer")
    return _OWN.get(text, text)


def layer_name(text: str, spec: ModelSpec) -> str:
    """Return our name of one layer of a network.

    Args:
        text: a name of `ModelSpec.layer_shapes`, or torchvision's or Caffe's for it. Those are
            accepted for every network that has the layer, whatever else stands between: also where
            a network normalizes, `features.2` is its first pool.
        spec: of the network.

    Raises:
        UsageError: it has no such layer; the message lists those that exist.
    """
    layers, name = tuple(spec.layer_shapes()), own_name(text)
    if name in layers:
        return name
    if name in ("logits", "probabilities"):
        raise UsageError(
            f"this {spec.preset} network has no head, so it has no {name} and classifies "
            "nothing; take vectors of it, to embed or to search"
        )
    known = [alias for alias, own in _OWN.items() if own in layers]
    import difflib  # slow to import, for what is seldom needed

    near = difflib.get_close_matches(text, known, n=1)
    raise UsageError(
        f"layer {text[:100]!r} does not exist in this {spec.preset} network; "
        f"{f'did you mean {near[0]}? ' if near else ''}choose from: {', '.join(layers)}"
    )


def layer_names(texts: Iterable[str], spec: ModelSpec) -> tuple[str, ...]:
    """Return our names of one or more different layers, in the order given.

    Args:
        texts: each as for `layer_name`; "all" for every layer, in forward order.
        spec: of the network.

    Raises:
        UsageError: as `layer_name`, none, one twice, or one beside "all".
    """
    given = tuple(texts)
    if given == (ALL_LAYERS,):
        return tuple(spec.layer_shapes())
    if ALL_LAYERS in given:
        raise UsageError(f"layers: {ALL_LAYERS} is every one; name no other beside it")
    names = tuple(layer_name(text, spec) for text in given)
    if not names or len(set(names)) != len(names):
        pairs = zip(given, names, strict=True)
        came = ", ".join(text if text == name else f"{text} ({name})" for text, name in pairs)
        raise UsageError(f"layers: expected one or more different ones, got {came or 'none'}")
    return names
