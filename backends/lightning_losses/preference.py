"""Direct preference optimization: the loss of a pair, and its slope, with which the gradient takes two passes."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo(margins: Tensor, beta: float) -> Tensor:
    """[P] losses of pairs: -log sigmoid(beta m), DPO (arXiv:2305.18290, eq. 7).

    `margins` [P]: log(pi/ref) summed over the chosen sequence, minus that of the rejected one.
    """
    return -logsigmoid(beta * margins)


def dpo_slope(margins: Tensor, beta: float) -> Tensor:
    """[P] derivative of `dpo` with respect to the margin: -beta sigmoid(-beta m).

    The gradient of a pair's loss is slope * (gradient of the chosen log-probability - that of the rejected), so once
    a pass without gradient has found the slopes, the tokens of a pair may lie in any number of micro-batches.
    """
    return -beta * (-beta * margins).sigmoid()
