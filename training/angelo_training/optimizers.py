"""How training steps follow gradients."""

from typing import Any

import torch
from torch import Tensor, nn

#: Matrices of fewer values, where orthogonal steps have little to gain, follow AdamW.
FEWEST_VALUES = 1000
#: Of Muon's moving average of gradients.
MOMENTUM = 0.95


class MatrixSteps:
    """Muon for the matrices and convolutions of a network, AdamW for all other parameters.

    AdamW follows the few strong directions of a matrix's gradient, a step along the
    orthogonalised gradient moves all of them alike. In as many steps both networks learn more
    (benchmarks/experiments.md). A convolution counts as the matrix of its first axis against
    all others. Steps are scaled to the size of AdamW's, so that one learning rate serves both.

    References
    ----------
    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon;
    Liu et al. 2025, arXiv:2502.16982, section 2.2 (scale).
    """

    def __init__(self, network: nn.Module, rate: float, weight_decay: float) -> None:
        """Take over the network's parameters where they lie: move it to its device before.

        Raises
        ------
        ValueError
            If the network has no large matrix or nothing else, or a layout in memory that is
            neither contiguous nor channels last.
        """
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._whole = [
            p for p in self._parameters if p.ndim >= 2 and p.numel() >= FEWEST_VALUES
        ]
        of_muon = {id(p) for p in self._whole}
        # Muon takes matrices only: these are views of the parameters.
        self._matrices = [nn.Parameter(_in_order_of(p, p.detach())) for p in self._whole]
        for matrix, whole in zip(self._matrices, self._whole, strict=True):
            if matrix.data_ptr() != whole.data_ptr():
                raise ValueError(f"a parameter of shape {tuple(whole.shape)} is no plain array")
        self._muon = torch.optim.Muon(
            self._matrices,
            rate,
            weight_decay=weight_decay,
            momentum=MOMENTUM,
            adjust_lr_fn="match_rms_adamw",
        )
        others = [p for p in self._parameters if id(p) not in of_muon]
        self._adamw = torch.optim.AdamW(others, rate, weight_decay=weight_decay)

    def set_rate(self, rate: float) -> None:
        """Learning rate of the steps that follow."""
        for group in (*self._muon.param_groups, *self._adamw.param_groups):
            group["lr"] = rate

    def step(self) -> None:
        """Follow the gradients that are there."""
        for matrix, whole in zip(self._matrices, self._whole, strict=True):
            # A gradient of zeros (attention to an empty sequence) would repeat old steps at
            # full length: Muon's have the same length however small the gradient is.
            if whole.grad is not None and whole.grad.any():
                matrix.grad = _in_order_of(whole, whole.grad)
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adamw.step()
        for matrix in self._matrices:
            matrix.grad = None

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: tensors and built-in values."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises
        ------
        ValueError
            If it is that of another optimizer or of another network.
        """
        if state.keys() != {"muon", "adamw"}:
            raise ValueError("the state of another optimizer")
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])
        for matrix in self._matrices:
            momentum = self._muon.state[matrix].get("momentum_buffer", matrix)
            if momentum.shape != matrix.shape:
                raise ValueError("the state of a network of other sizes")


def _in_order_of(parameter: Tensor, values: Tensor) -> Tensor:
    """Shape (first axis, all others), in the order in which the parameter lies in memory."""
    if not parameter.is_contiguous():  # a convolution with its channels last
        values = values.movedim(1, -1)
    return values.reshape(len(values), -1)
