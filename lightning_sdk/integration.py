"""Everything that an integration needs. Ours import nothing else of the SDK, and yours need not either.

An integration is a function that takes `Patches`, and an entry point in the group `lightning_sdk.integrations` that is
named after the framework's module. CONTRIBUTING.md has a whole one.

Replace the framework's code, and be undone:
    Patches             replaces attributes, and puts them back at `lightning.shutdown()`
    require_version     turns the integration off, with one warning, unless a known version is installed
    parse_release       the numbers of a version, to compare
    harmless            runs code of yours inside the user's call: what it raises is logged once and goes no further
    say_once            logs a message the first time
    UnsupportedVersion  raised for a framework that is not as you know it: turns the integration off
    Untranslatable      raised into the agent for a call that cannot be trained as it is written

Name the framework's agents, so that their calls get a role:
    wrap_agent          calls made while a method runs belong to the agent that you name
    add_agent_source    asks you at each call which agent the framework itself says is running
    Turn, wrap_in_turn  one run of an agent, and a function whose runs are turns: where `wrap_agent` does not fit

Follow a call into another thread, task or message:
    Scope               the rollout and the role that code runs in
    current_scope       the scope here, to keep with the work
    use_scope           a `with` block inside such a scope
    effective_scope     the scope of a call made here, with the role that frameworks say

Catch calls to models (a seam):
    open_call           opens a call before its request leaves, None if it is not to be recorded
    OpenCall            with which prompts the call is to be sent (`with_prompts`), where to (`endpoint`), with which
                        body (`rewrite`), and how it ends
    Endpoint            the address, model and key of an engine
    tap                 finishes a call with what passes through a response of httpx
    ReplyReader         the same for any other client, fed with bytes
    UnaskedFields       hides from the agent what training asks the engine for
    route_to_engine     sends a request of an httpx client to the engine, past proxies, and without the user's keys
    BaseClientSeam      a whole seam, for an SDK that Stainless generated
    Translation         a request of another protocol on its way to chat completions, and its reply on the way back
    translate_messages, translate_responses
                        the translations of Anthropic's Messages API and of OpenAI's Responses API

Pass a framework's cache by, which would give every rollout of a task the first one's answer:
    bypass_cache        lets methods of a cache do nothing for calls that only the engine may answer
    needs_engine        whether a call made here is such a call

Notice calls that no seam caught:
    SEEN                marks an HTTP request that a seam has seen
    is_listening        whether anything is recorded
    report_uncaught     tells of a request to a model
"""

from lightning_sdk.capture.agent_names import add_agent_source, parse_release, require_version, wrap_agent
from lightning_sdk.capture.base_client import BaseClientSeam
from lightning_sdk.capture.engine_transport import route_to_engine
from lightning_sdk.capture.framework_caches import bypass_cache, needs_engine
from lightning_sdk.capture.patches import Patches
from lightning_sdk.capture.reply_reader import ReplyReader
from lightning_sdk.capture.response_tap import tap
from lightning_sdk.capture.seam import SEEN, OpenCall, open_call
from lightning_sdk.capture.unasked_fields import UnaskedFields
from lightning_sdk.errors import UnsupportedVersion, Untranslatable
from lightning_sdk.markers.agent import Turn, wrap_in_turn
from lightning_sdk.stream.notices import report_uncaught
from lightning_sdk.stream.sink import harmless, is_listening, say_once
from lightning_sdk.trace.scope import Endpoint, Scope, current_scope, effective_scope, use_scope
from lightning_sdk.translation import Translation
from lightning_sdk.translation.messages import translate as translate_messages
from lightning_sdk.translation.responses import translate as translate_responses

__all__ = [
    "SEEN",
    "BaseClientSeam",
    "Endpoint",
    "OpenCall",
    "Patches",
    "ReplyReader",
    "Scope",
    "Translation",
    "Turn",
    "UnaskedFields",
    "UnsupportedVersion",
    "Untranslatable",
    "add_agent_source",
    "bypass_cache",
    "current_scope",
    "effective_scope",
    "harmless",
    "is_listening",
    "needs_engine",
    "open_call",
    "parse_release",
    "report_uncaught",
    "require_version",
    "route_to_engine",
    "say_once",
    "tap",
    "translate_messages",
    "translate_responses",
    "use_scope",
    "wrap_agent",
    "wrap_in_turn",
]
