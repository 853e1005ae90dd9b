"""All trained parameters as one vector: one optimizer, one average and one exchange between processes for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class FlatParameters:
    """Float32 masters of a network's parameters, laid side by side.

    In float32 the parameters are views into the masters. In 16 bits they are views into a vector of their own, which
    `publish` fills from the masters after each step.

    Args:
        named: name and parameter, in an order that does not change.
        dtype: what the network computes in.
        betas, weight_decay: AdamW's.
        average: of the exponential moving average.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, nn.Parameter]],
        dtype: torch.dtype,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        average: float,
    ) -> None:
        self._named = list(named)
        device = self._named[0][1].device
        n = sum(parameter.numel() for _, parameter in self._named)
        self.masters = torch.empty(n, device=device)
        self._computed = (
            self.masters if dtype == torch.float32 else torch.empty(n, device=device, dtype=dtype)
        )
        self._gradients = torch.zeros(n, device=device, dtype=dtype)
        start = 0
        for _, parameter in self._named:
            span = slice(start, start + parameter.numel())
            self.masters[span] = parameter.detach().float().flatten()
            parameter.data = self._computed[span].view_as(parameter)
            parameter.grad = self._gradients[span].view_as(parameter)
            start = span.stop
        self.publish()
        self.averaged = self.masters.clone()
        self._average = average
        self._optimizer = torch.optim.AdamW(
            [self.masters], lr=0.0, betas=betas, eps=1e-9, weight_decay=weight_decay, fused=True
        )

    def publish(self) -> None:
        """Give the network the masters' values."""
        if self._computed is not self.masters:
            self._computed.copy_(self.masters)

    def take_gradient(self, into: torch.Tensor) -> None:
        """Put the gradient gathered since the last call in `into`, float32; what is gathered next starts from 0.

        Into memory that is there already: fresh memory for each step costs more than the conversion.
        """
        into.copy_(self._gradients)
        self._gradients.zero_()

    def step(self, gradient: torch.Tensor, rate: float, n_done: int) -> None:
        """One step of AdamW, and of the average.

        Args:
            n_done: steps before this one; the average is over fewer at first.
        """
        self._optimizer.param_groups[0]["lr"] = rate
        self.masters.grad = gradient
        self._optimizer.step()
        self.masters.grad = None
        self.publish()
        kept = min(self._average, (1 + n_done) / (10 + n_done))
        self.averaged.lerp_(self.masters, 1.0 - kept)

    def averaged_tensors(self) -> dict[str, torch.Tensor]:
        """Name -> averaged value, float32, in memory of its own."""
        found, start = {}, 0
        for name, parameter in self._named:
            span = slice(start, start + parameter.numel())
            found[name] = self.averaged[span].view(parameter.shape).clone()
            start = span.stop
        return found

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs, to the bit."""
        return {
            "masters": self.masters,
            "averaged": self.averaged,
            "optimizer": self._optimizer.state_dict(),
            "names": [name for name, _ in self._named],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state.

        Raises:
            ValueError: it is of another network.
        """
        if state["names"] != [name for name, _ in self._named] or len(state["masters"]) != len(self.masters):
            raise ValueError("the checkpoint is of another network: start a new folder")
        self.masters.copy_(state["masters"])
        self.averaged.copy_(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.publish()
