"""Adam over a head-pose network: each parameter once, the heads faster than the rest."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from headpose.networks.network import HeadposeNet
from usererror import UserError

# What Adam keeps of each parameter.
_PARTS = ("step", "exp_avg", "exp_avg_sq")


class Optimiser:
    """Adam with its state by parameter name.

    A parameter that gets no gradient, such as those of a frozen stem, is not touched and has no
    state, whatever the weight decay.

    Args:
        net: already on its device.
        head_factor: the heads' learning rate in units of the others'.
        weight_decay: L2 penalty.
    """

    def __init__(self, net: HeadposeNet, head_factor: float, weight_decay: float) -> None:
        self._named = dict(net.named_parameters())
        self._head_factor = head_factor
        body, heads = [*net.stem_parameters(), *net.body_parameters()], net.head_parameters()
        if sorted(map(id, [*body, *heads])) != sorted(map(id, self._named.values())):
            raise RuntimeError(f"the groups of {net.backbone} do not hold each parameter once")
        self._stem = {id(parameter) for parameter in net.stem_parameters()}
        # Fused: one kernel for all parameters, on CPUs too.
        self._adam = torch.optim.Adam(
            [{"params": body}, {"params": heads}], weight_decay=weight_decay, fused=True
        )

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the rate of the body; the heads get theirs by the factor."""
        body, heads = self._adam.param_groups
        body["lr"], heads["lr"] = learning_rate, learning_rate * self._head_factor

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self._adam.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Move all parameters that have a gradient."""
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        """What cannot be derived: "exp_avg/NAME", "exp_avg_sq/NAME" and "step/NAME" for every
        parameter that was ever moved. On the CPU; there no copy. Loadable with ``weights_only``."""
        return {
            f"{part}/{name}": self._adam.state[parameter][part].detach().cpu()
            for name, parameter in self._named.items()
            if parameter in self._adam.state
            for part in _PARTS
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` gave.

        Raises:
            UserError: it does not fit the network: names, shapes, or a part is missing.
        """
        wanted = {f"{part}/{name}" for part in _PARTS for name in self._named}
        unknown = sorted(set(state) - wanted)
        if unknown:
            raise _misfit(f"unknown entries: {', '.join(unknown[:3])}")
        restored: dict[Tensor, dict[str, Any]] = {}
        for name, parameter in self._named.items():
            parts = {part: state.get(f"{part}/{name}") for part in _PARTS}
            if all(value is None for value in parts.values()) and id(parameter) in self._stem:
                continue  # frozen so far
            restored[parameter] = {
                part: _placed(parameter, part, value, name) for part, value in parts.items()
            }
        self._adam.state.clear()
        self._adam.state.update(restored)


def _placed(parameter: Tensor, part: str, value: Tensor | None, name: str) -> Tensor:
    """A part of the state on the parameter's device and in its memory layout."""
    shape = torch.Size([]) if part == "step" else parameter.shape
    if value is None or value.shape != shape:
        raise _misfit(f"{part}/{name}: {'missing' if value is None else tuple(value.shape)}")
    if part == "step":
        return value.to(parameter.device, torch.float32, copy=True)
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _misfit(got: str) -> UserError:
    return UserError(
        "checkpoint",
        "the optimiser's state does not fit the network",
        got=got,
        rule="step, exp_avg and exp_avg_sq for each parameter, a frozen stem's excepted",
        remedy="train from the beginning, or delete the checkpoint",
    )
