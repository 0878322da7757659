"""The routes of OpenAI's API that all our engines have, behind the guard that checks the key."""

from __future__ import annotations

from aiohttp import web

from lightning_process.refusal import MAX_BODY_BYTES, Handler, guard


def application(
    key: str, *, health: Handler, models: Handler, model: Handler, chat: Handler, completions: Handler
) -> web.Application:
    """The routes under /v1, and /health. All except /health require `Authorization: Bearer key`, or a rollout's own key
    (`lightning_hub.rollout_key`)."""
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[guard(key, of_rollouts=True)])
    app.router.add_get("/health", health)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/v1/models/{model:.+}", model)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/completions", completions)
    return app
