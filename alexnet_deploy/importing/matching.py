"""Find an AlexNet among named arrays: which is conv1's weight, whatever it is called.

Shapes tell: one kernel of 11 px on three channels, one of 5 px, three of 3 px whose channels
follow one another, and three matrices of which two have 4096 outputs. Where shapes leave a choice,
as between fc7 and fc8 with 4096 classes, the names' natural order decides. A wrapper's name
(`module.`, `backbone.`) never matters: the arrays may lie anywhere, if there is one network.
"""

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from alexnet_deploy.errors import Argument, IncompatibleFileError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.importing.source import Array
from alexnet_deploy.model.spec import CONV_KERNELS, FC_WIDTH

_WEIGHT = re.compile(r"(?i)(?<![a-z])(weight|kernel|w)(?![a-z])")
_BIAS_WORDS = {"weight": "bias", "kernel": "bias", "w": "b"}
_MOST_LISTED, _MOST_NESTED = 6, 16
_TINY = 3
"""Numbers in an array that can be no layer's, such as a mean of three channels, a counter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An AlexNet found among arrays.

    Attributes:
        places: the paper's name of each array -> its name in the file, in forward order.
        unused: names of arrays that are no part of the network.
    """

    places: Mapping[str, str]
    unused: tuple[str, ...]


class _NoNetworkError(Exception):
    """These arrays are not one AlexNet; the text says why."""


def find_network(
    arrays: Mapping[str, Array], path: str, *, has_head: bool = True, key: str | None = None
) -> Match:
    """Find the arrays of one AlexNet.

    Args:
        arrays: floating-point arrays by the file's names, laid out as `Source.arrays`.
        path: the file's name, for messages.
        has_head: whether it must have fc8; False leaves fc8 aside.
        key: the beginning of the names to look at, where a file holds several networks.

    Raises:
        IncompatibleFileError: none found, or several.
    """
    within = dict(arrays)
    if key is not None:
        prefix = f"{key.rstrip('.')}."
        within = {name: array for name, array in arrays.items() if name.startswith(prefix)}
        if not within:
            raise IncompatibleFileError(
                f"{path}: holds no array whose name begins with {printable(prefix)}; "
                f"{_listed(arrays)}"
            )
    try:
        found = [_match(within, has_head=has_head)]
    except _NoNetworkError as error:
        reason = str(error)
        found = list(_within_parts(within, has_head))
    if len(found) == 1:
        match = found[0]
        used = set(match.places.values())
        return Match(places=match.places, unused=tuple(n for n in arrays if n not in used))
    if not found:
        if has_head:
            with suppress(_NoNetworkError):
                _match(within, has_head=False)
                raise IncompatibleFileError(
                    f"{path}: is an AlexNet up to fc7, but {reason}; to take it for these layers, "
                    "import it with ",
                    Argument("head", "none"),
                )
        raise IncompatibleFileError(f"{path}: is no AlexNet: {reason}; {_listed(arrays)}")
    keys = [printable(".".join(_shared_parts(match.places.values()))) for match in found]
    raise IncompatibleFileError(
        f"{path}: holds {len(found)} networks, {', '.join(keys[:_MOST_LISTED])}; choose one with ",
        Argument("key"),
    )


def _within_parts(
    arrays: Mapping[str, Array], has_head: bool, depth: int = _MOST_NESTED
) -> Iterator[Match]:
    """Yield the AlexNets below the first parts of the names that differ."""
    groups: dict[str, dict[str, Array]] = {}
    shared = len(_shared_parts(arrays))
    for name, array in arrays.items():
        groups.setdefault(".".join(name.split(".")[: shared + 1]), {})[name] = array
    if len(groups) < 2 or not depth:  # nothing to tell apart, or names that nobody gives
        return
    for group in groups.values():
        try:
            yield _match(group, has_head=has_head)
        except _NoNetworkError:
            yield from _within_parts(group, has_head, depth - 1)


def _shared_parts(names: Iterable[str]) -> list[str]:
    """Return the parts between dots with which all names begin."""
    columns = zip(*(name.split(".") for name in names), strict=False)
    return [same[0] for same in itertools.takewhile(lambda parts: len(set(parts)) == 1, columns)]


def _match(arrays: Mapping[str, Array], *, has_head: bool) -> Match:
    """Find the one AlexNet in `arrays`.

    Raises:
        _NoNetworkError: there is none, or more than one candidate for a layer.
    """
    names = sorted(arrays, key=_natural)
    weights = {name: arrays[name] for name in names if _holds_weights(arrays[name])}
    biases = {name: bias for name in weights if (bias := _bias_of(name, arrays)) is not None}
    # What stands beside a network, as the centres of a loss, has no bias.
    layers = {name: array for name, array in weights.items() if name in biases}
    convolutions = {name: array for name, array in layers.items() if _is_convolution(array)}
    matrices = {name: array for name, array in layers.items() if name not in convolutions}
    _check_sizes(
        [array for array in weights.values() if _is_convolution(array)], convolutions.values()
    )
    kernels = _convolutions(convolutions)
    width = len(arrays[kernels[-1][1]])
    chosen = [*kernels, *_matrices(matrices, width, has_head=has_head)]
    places: dict[str, str] = {}
    for layer, name in chosen:
        places |= {f"{layer}.weight": name, f"{layer}.bias": biases[name]}
    used = set(places.values())
    unused = [name for name in names if name not in used]
    _refuse_more_layers([name for name in unused if name in layers], has_head, matrices)
    _refuse_normalization(unused, arrays)
    return Match(places=places, unused=tuple(unused))


def _holds_weights(array: Array) -> bool:
    return array.ndim in (2, 4) and array.dtype.kind == "f" and array.size > 0


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """Return a key by which `features.3` comes before `features.10`."""
    parts = (
        (part, part.lstrip("0")) if part.isdecimal() else (part, None)
        for part in re.split(r"(\d+)", name)
    )
    # A longer number is a larger one; of thousands of digits Python would make none.
    return tuple((-1, part) if digits is None else (len(digits), digits) for part, digits in parts)


def _bias_of(weight: str, arrays: Mapping[str, Array]) -> str | None:
    """Return the name of a weight's bias: `conv1_b_0` of `conv1_w_0`."""
    outputs = arrays[weight].shape[:1]
    found = list(_WEIGHT.finditer(weight))
    named = [
        f"{weight[: each.start()]}{_BIAS_WORDS[each[0].lower()]}{weight[each.end() :]}"
        for each in reversed(found)
    ]
    candidates = (*named, f"{weight}.bias", f"{weight}_bias")
    return next((n for n in candidates if n in arrays and arrays[n].shape == outputs), None)


def _is_convolution(array: Array) -> bool:
    """Return whether it is a kernel; fully connected layers are stored so too, over a whole map."""
    return array.ndim == 4 and array.shape[0] != FC_WIDTH and array.shape[1] != FC_WIDTH


def _check_sizes(kernels: Collection[Array], with_biases: Collection[Array]) -> None:
    """Refuse other convolutions than AlexNet's five; what has no bias counts only if named."""
    five = [(size, size) for size in CONV_KERNELS]
    if _sizes(with_biases) == five:
        return
    is_bare = _sizes(kernels) == five
    found = with_biases if is_bare else kernels
    counts = ", ".join(f"{count} of {a}x{b} px" for (a, b), count in _counted(_sizes(found)))
    raise _NoNetworkError(
        f"it has {len(found)} convolutions{' with biases' * is_bare} ({counts or 'none'}), AlexNet "
        "has five: one of 11x11 px, one of 5x5 and three of 3x3"
    )


def _sizes(kernels: Collection[Array]) -> list[tuple[int, ...]]:
    return sorted((array.shape[2:] for array in kernels), reverse=True)


def _convolutions(kernels: Mapping[str, Array]) -> list[tuple[str, str]]:
    """Return the layers conv1 .. conv5 with their weights' names."""
    by_size = {size: [n for n, a in kernels.items() if a.shape[2] == size] for size in (11, 5, 3)}
    for order in itertools.permutations(by_size[3]):
        names = [*by_size[11], *by_size[5], *order]
        if groups_of([kernels[name] for name in names]) is not None:
            return [(f"conv{number}", name) for number, name in enumerate(names, start=1)]
    shapes = ", ".join(f"{list(array.shape)}" for array in kernels.values())
    raise _NoNetworkError(f"its kernels do not follow one another: {shapes}")


def _counted(sizes: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], int]]:
    return [(size, len(list(same))) for size, same in itertools.groupby(sizes)][:_MOST_LISTED]


def groups_of(kernels: list[Array]) -> tuple[int, ...] | None:
    """Return the groups that the kernels of conv1 .. conv5 have.

    None if one does not read what the one before gives.
    """
    groups, channels = [], 3
    for kernel in kernels:
        outputs, inputs = kernel.shape[:2]
        if 0 in kernel.shape or channels % inputs or outputs % (channels // inputs):
            return None
        groups.append(channels // inputs)
        channels = outputs
    return tuple(groups) if groups[0] == 1 else None


def _matrices(
    matrices: Mapping[str, Array], width: int, *, has_head: bool
) -> list[tuple[str, str]]:
    """Return the layers fc6, fc7 and, with a head, fc8, with their weights' names.

    `width` is that of conv5, whose maps, `width` times a square, fc6 reads.
    """
    shapes = {name: (len(a), math.prod(a.shape[1:])) for name, a in matrices.items()}
    wide = [name for name, (outputs, _) in shapes.items() if outputs == FC_WIDTH]
    first = [name for name in wide if _is_square_of(shapes[name][1], width)]
    rest = [name for name, (_, inputs) in shapes.items() if inputs == FC_WIDTH]
    if len(first) > 1:  # pool5 has 4096 numbers, too, so only the order tells fc6 from fc7
        first = first[:1]
    rest = [name for name in rest if name not in first]
    seconds = [name for name in rest if name in wide][:1]
    heads = [name for name in rest if name not in seconds]
    if len(first) != 1 or not seconds:
        found = ", ".join(str(list(shape)) for shape in list(shapes.values())[:_MOST_LISTED])
        raise _NoNetworkError(
            f"its fully connected layers are {found or 'none'}; expected fc6 [{FC_WIDTH}, pool5], "
            f"fc7 [{FC_WIDTH}, {FC_WIDTH}] and fc8 [classes, {FC_WIDTH}]"
        )
    layers = [("fc6", first[0]), ("fc7", seconds[0])]
    if not has_head:
        return layers
    if len(heads) != 1:
        what = "no fc8" if not heads else f"{len(heads)} layers that could be fc8"
        raise _NoNetworkError(f"it has {what}")
    return [*layers, ("fc8", heads[0])]


def _is_square_of(inputs: int, width: int) -> bool:
    side = math.isqrt(inputs // width)
    return side > 0 and side * side * width == inputs


def _refuse_more_layers(more: list[str], has_head: bool, matrices: Mapping[str, Array]) -> None:
    """Refuse layers that the network does not have; an unwanted head is none."""
    more = [name for name in more if has_head or name not in matrices]
    if more:
        raise _NoNetworkError(f"it has more layers: {', '.join(map(printable, more[:3]))}")


def _refuse_normalization(unused: list[str], arrays: Mapping[str, Array]) -> None:
    """Refuse the numbers of a batch normalization: they change what the network computes."""
    changed = [
        name
        for name in unused
        if arrays[name].ndim == 1
        and arrays[name].size > _TINY
        and name.rpartition(".")[2] in ("running_mean", "running_var")
    ]
    if changed:
        raise _NoNetworkError(
            f"it has batch normalization ({printable(changed[0])}), which AlexNet does not have"
        )


def _listed(arrays: Mapping[str, Array]) -> str:
    names = [f"{printable(name)} {list(array.shape)}" for name, array in arrays.items()]
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"it holds {', '.join(names[:_MOST_LISTED]) or 'no arrays'}{more}"
