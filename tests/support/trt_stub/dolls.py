"""Stand-ins for TensorRT objects that allow what the real class has, and nothing else.

`doll(trt.IBuilderConfig)` answers every method and property of the real class; another name is the
real AttributeError. A call's arguments are checked against the signature in the method's docstring
(count, names, types, overloads); it returns what `answers` says, else a doll of the declared type.
Assignments reach writable properties only. `journal` lists what was done, over all the dolls that
came out of one: "IBuilderConfig.set_flag".
"""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

_PLAIN: dict[str, Any] = {
    "bool": bool,
    "float": (int, float),
    "int": int,
    "list": list,
    "str": str,
    "tuple": tuple,
    "typing.SupportsFloat": (int, float),
    "typing.SupportsInt": int,
}
_DEFAULTS = {"bool": True, "int": 0, "str": "", "typing.SupportsInt": 0}

Parameter = tuple[str, str, bool]  # name, type, has a default
Signature = tuple[list[Parameter], str]  # parameters after self, type of the result


def doll(real: Any, journal: list[str] | None = None, **answers: Any) -> "Doll":
    """Return a doll of the class `real`.

    Args:
        real: a class of the bindings.
        journal: where to write down what is done.
        answers: results of methods, or functions that compute them, and values of properties.
    """
    for name in answers:
        getattr(real, name)
    return Doll(real, [] if journal is None else journal, answers)


def maker(real: Any, made: "Doll") -> Callable[..., "Doll"]:
    """Return what stands for the class `real` itself: checks the arguments, gives `made`."""

    def make(*args: Any, **kwargs: Any) -> Doll:
        _bind(real, real.__init__, args, kwargs)
        made.journal.append(real.__name__)
        return made

    return make


class Doll:
    """See the module; made by `doll`."""

    def __init__(self, real: Any, journal: list[str], answers: dict[str, Any]) -> None:
        self.__dict__.update(real=real, journal=journal, answers=answers, values={}, calls=[])

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.real, name)
        if isinstance(member, property):
            return self.values.get(name, self.answers.get(name))
        if not callable(member):
            return member

        def method(*args: Any, **kwargs: Any) -> Any:
            annotation = _bind(self.real, member, args, kwargs)
            self.journal.append(f"{self.real.__name__}.{name}")
            self.calls.append((name, *args, *kwargs.values()))
            if name in self.answers:
                answer = self.answers[name]
                return answer(*args, **kwargs) if callable(answer) else answer
            cls = _class(self.real, annotation)
            if cls is not None:
                return doll(cls, self.journal)
            return _DEFAULTS.get(annotation)

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        member = getattr(self.real, name)
        if not isinstance(member, property) or member.fset is None:
            raise AttributeError(f"{self.real.__name__}.{name} cannot be set")
        self.journal.append(f"{self.real.__name__}.{name}=")
        self.calls.append((f"{name}=", value))
        self.values[name] = value


def _bind(owner: Any, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the result's type in the overload that takes the arguments, or raise as it would."""
    overloads = list(_signatures(method))
    for parameters, result in overloads:
        names = [name for name, _, _ in parameters]
        given = dict(zip(names, args, strict=False)) | kwargs
        if (
            len(args) <= len(parameters)
            and set(kwargs) <= set(names[len(args) :])
            and all(name in given or has_default for name, _, has_default in parameters)
            and all(
                _fits(owner, given[name], annotation) or (given[name] is None and has_default)
                for name, annotation, has_default in parameters
                if name in given
            )
        ):
            return result
    raise TypeError(
        f"{owner.__name__}.{method.__name__}: incompatible arguments {args} {kwargs}; it takes "
        f"{' or '.join(str(parameters) for parameters, _ in overloads)}"
    )


def _signatures(method: Any) -> Iterator[Signature]:
    """Read the overloads from a docstring that pybind11 wrote."""
    for line in (method.__doc__ or "").splitlines():
        found = re.match(rf"\s*(?:\d+\. )?{method.__name__}\((.*)\) -> (.+)$", line)
        if found and not found[1].startswith("*args"):
            matches = [re.match(r"(\w+): (.*?)(?: = (.*))?$", part) for part in _split(found[1])]
            parameters = [(m[1], m[2], m[3] is not None) for m in matches if m]
            yield [each for each in parameters if each[0] != "self"], found[2].strip()


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([<{") - (character in ")]>}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _fits(owner: Any, value: Any, annotation: str) -> bool:
    """Tell whether pybind11 would take `value` for a parameter of that type."""
    cls = _class(owner, annotation)
    if cls is not None and cls.__name__ == "Dims":
        is_sequence = isinstance(value, (cls, tuple, list))
        return is_sequence and all(type(number) is int for number in value)
    if cls is not None:
        if isinstance(value, Doll):
            return issubclass(value.real, cls)
        return isinstance(value, cls)
    if annotation.endswith("Buffer"):
        return isinstance(value, (bytes, bytearray, memoryview))
    if annotation in _PLAIN:
        is_int_for_float = annotation.endswith("SupportsInt") and isinstance(value, float)
        return isinstance(value, _PLAIN[annotation]) and not is_int_for_float
    return True


def _class(owner: Any, annotation: str) -> Any:
    """Return the class of the bindings that an annotation names, None for any other type."""
    if not re.search(r"tensorrt(_rtx)?_bindings|nvinfer1::|nvonnxparser::", annotation):
        return None
    name = re.split(r"\.|::", annotation)[-1]
    cls = getattr(sys.modules[owner.__module__], name, None)
    return cls if isinstance(cls, type) else None
