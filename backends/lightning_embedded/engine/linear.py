"""A linear layer whose weight changes only with a publication, so it can be kept in the form that the CPU likes best.

PyTorch multiplies float32 matrices with MKL, which on AMD's processors needs two to three times as long as oneDNN, and
oneDNN is faster again with a weight whose blocks are laid out for it. A model that is small gains nothing: there the
call itself takes longer than the product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

#: Rows for which the blocks are laid out; any other number is computed too.
_TYPICAL_ROWS = 64


class Linear:
    """x W^T + b. `weight` and `bias` are the module's own tensors; call `refresh` when their numbers have changed."""

    def __init__(self, weight: Tensor, bias: Tensor | None, packed: torch.dtype | None) -> None:
        """`packed`: the number format of the factors; None to leave the product to PyTorch."""
        self.weight, self.bias = weight, bias
        self._dtype = packed
        self._packed: Tensor | None = None
        self._bias: Tensor | None = None
        self.refresh()

    def refresh(self) -> None:
        if self._dtype is not None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.to(self._dtype), _TYPICAL_ROWS)
            self._bias = None if self.bias is None else self.bias.to(self._dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the number format of the factors."""
        if self._packed is None:
            return F.linear(x, self.weight, self.bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._dtype), self._packed, self._bias, "none", [], ""
        )
        return product
