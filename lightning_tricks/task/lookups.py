"""Inputs that a network looks up, such as category codes, which no trick may change."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_tricks.errors import InputError
from lightning_tricks.module.tricks_module import TricksModule
from lightning_tricks.tricks.recipe import Tricks


class _Lookups(TorchFunctionMode):
    """Notes the numbers that are looked up: those given to embeddings, and those made integers."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        name, given = getattr(func, "__name__", ""), args[0] if args else None
        if name in ("embedding", "embedding_bag") and isinstance(given, Tensor):
            self.numbers.append(given.detach().clone())
        elif name in ("long", "int", "short", "to", "type") and isinstance(result, Tensor):
            integers = not result.is_floating_point() and result.dtype != torch.bool
            if integers and isinstance(given, Tensor) and given.is_floating_point():
                self.numbers.append(result.detach().clone())
        return result


def looks_up_inputs(module: TricksModule, inputs: Tensor) -> bool:
    """Tell whether a network looks up some of its inputs, in an embedding or by their integers.

    It does if it looks up other numbers when the inputs change, or fails then. The module must be in
    evaluation mode, and take the inputs.
    """
    with torch.no_grad():
        with _Lookups() as usual:
            module.backbone(module.cast(inputs))
        if not usual.numbers:
            return False
        try:
            with _Lookups() as changed:
                module.backbone(module.cast(inputs * 3 + 1))
        except (IndexError, RuntimeError):
            return True
    return len(usual.numbers) != len(changed.numbers) or not all(
        map(torch.equal, usual.numbers, changed.numbers)
    )


def check_lookups(module: TricksModule, inputs: Tensor, looks_up: bool, tricks: Tricks) -> None:
    """Check that neither scaling nor mixing changes numbers that the network looks up.

    Raises:
        InputError: if one does.
    """
    if not tricks.scaling.neutral:
        module.check_scalable(inputs)
    for stage in ("scaling", "mixing"):
        if looks_up and not getattr(tricks, stage).neutral:
            raise InputError(
                f"{stage} would change the numbers that the network looks up: set {stage} to 'none'"
            )
