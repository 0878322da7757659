"""DSPy, 3.x: the role of a call is the predictor's path in the program, as `named_predictors` gives it:
`generate.predict`.

Outside a program it is the name of the signature's class. Trainable calls bypass DSPy's cache, because it would
give every rollout of a task the answer of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_sdk.integration import Patches, bypass_cache, current_scope, require_version, use_scope, wrap_agent


def instrument(patches: Patches) -> None:
    """Run by `lightning_sdk.init()` once `dspy` is imported. Tested with 3.4.1."""
    require_version("dspy", "3.4", "4", module="dspy")
    import dspy  # noqa: PLC0415 - only where the user has it
    from dspy.clients.cache import Cache  # noqa: PLC0415
    from dspy.utils.parallelizer import ParallelExecutor  # noqa: PLC0415

    def name(predict: Any, **_inputs: Any) -> str:
        for module in dspy.settings.caller_modules or ():
            for path, predictor in module.named_predictors():
                if predictor is predict and predictor is not module:
                    return str(path)
        signature: str = predict.signature.__name__
        return signature if signature != "StringSignature" else ""  # "question -> answer" has no name

    for method in ("forward", "aforward"):
        wrap_agent(patches, dspy.Predict, method, name)
    bypass_cache(patches, Cache, "get", "put")
    patches.wrap(ParallelExecutor, "execute", _wrap_execute)


def _wrap_execute(original: Callable[..., Any]) -> Callable[..., Any]:
    """Its threads start in no context at all, also where the user wants ours carried into none."""

    def execute(self: Any, function: Callable[..., Any], data: Any) -> Any:
        scope = current_scope()

        def call_in_scope(item: Any) -> Any:
            with use_scope(scope):
                return function(item)

        return original(self, call_in_scope, data)

    return execute
