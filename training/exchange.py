"""What crosses between the two devices, and how (section 3.2).

A tensor sent from one CUDA device to another is copied on dedicated streams, so that sender and
receiver keep computing; the receiver waits only when it takes the tensor. Gradients return the
same way. Within one device nothing is copied, but the bytes are counted all the same: the count
belongs to the network, whatever it runs on.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import torch


@dataclass(slots=True)
class Exchange:
    """Send tensors between devices and count their bytes.

    Attributes:
        forward_bytes: by (layer, sending tower).
        backward_bytes: of the gradients, by (layer, tower that they return to).
    """

    forward_bytes: Counter[tuple[str, int]] = field(default_factory=Counter)
    backward_bytes: Counter[tuple[str, int]] = field(default_factory=Counter)

    def send(self, layer: str, tower: int, tensor: torch.Tensor, to: torch.device) -> torch.Tensor:
        """Start sending a tower's `tensor` to `to`; `receive` makes it safe to use there."""
        sent: torch.Tensor = _Send.apply(  # type: ignore[no-untyped-call]
            tensor, to, self, (layer, tower)
        )
        return sent


def start_copy(tensor: torch.Tensor, to: torch.device) -> torch.Tensor:
    """Start copying to another device; `receive` makes the copy safe to use there.

    The same device needs no copy, and a copy from or to the CPU is complete on return.
    """
    if tensor.device == to:
        return tensor.view_as(tensor)
    if not (tensor.is_cuda and to.type == "cuda"):
        return tensor.to(to)
    source, target = _copy_stream(tensor.device, "out"), _copy_stream(to, "in")
    source.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(source), torch.cuda.stream(target):
        copy = tensor.to(to, non_blocking=True)
    tensor.record_stream(source)
    return copy


def receive(tensor: torch.Tensor) -> torch.Tensor:
    """Make the device of a sent `tensor` wait until everything sent to it has arrived."""
    if tensor.is_cuda:
        compute = torch.cuda.current_stream(tensor.device)
        compute.wait_stream(_copy_stream(tensor.device, "in"))
        # The copy's stream owns the memory, which must not be reused before `compute` is done.
        tensor.record_stream(compute)
    return tensor


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tensor: torch.Tensor, to: torch.device, exchange: Exchange, key: tuple[str, int]
    ) -> torch.Tensor:
        ctx.home, ctx.exchange, ctx.key = tensor.device, exchange, key
        exchange.forward_bytes[key] += tensor.nbytes
        return start_copy(tensor, to)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        ctx.exchange.backward_bytes[ctx.key] += gradient.nbytes
        return receive(start_copy(gradient, ctx.home)), None, None, None


_Direction = Literal["in", "out"]
_streams: dict[tuple[torch.device, _Direction], torch.cuda.Stream] = {}


def _copy_stream(device: torch.device, direction: _Direction) -> torch.cuda.Stream:
    """Return a device's stream for one direction; sharing one would serialize the two."""
    key = (device, direction)
    if key not in _streams:
        _streams[key] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _streams[key]
