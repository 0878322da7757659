"""Names on spans: OpenTelemetry's GenAI conventions, and ours where these have none.

The constants are defined here because the conventions are still in development, and their package moves them often.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
AGENT_NAME = "gen_ai.agent.name"
WORKFLOW_NAME = "gen_ai.workflow.name"
CONVERSATION = "gen_ai.conversation.id"

# Values of OPERATION.
CHAT = "chat"
TEXT_COMPLETION = "text_completion"
EMBEDDINGS = "embeddings"
INVOKE_AGENT = "invoke_agent"
INVOKE_WORKFLOW = "invoke_workflow"
EXECUTE_TOOL = "execute_tool"

REQUEST_MODEL = "gen_ai.request.model"
#: Field of a request's body -> attribute, where the value is taken as it is.
REQUEST = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}
STOP_SEQUENCES = "gen_ai.request.stop_sequences"
CHOICE_COUNT = "gen_ai.request.choice.count"
STREAM = "gen_ai.request.stream"

RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"

# What was said: exported only when asked for.
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
#: The convention's switch for that, in the hub's environment.
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

#: Event of a reward.
EVALUATION = "gen_ai.evaluation.result"
EVALUATION_NAME = "gen_ai.evaluation.name"
EVALUATION_SCORE = "gen_ai.evaluation.score.value"
EVALUATION_EXPLANATION = "gen_ai.evaluation.explanation"

ERROR_TYPE = "error.type"
HTTP_STATUS = "http.response.status_code"

#: On a span that another instrumentor made: its name. The user's own exporter sends these.
FOREIGN = "otel.scope.name"

ROLE = "lightning.role"
TRAINABLE = "lightning.trainable"
CANDIDATE = "lightning.candidate"
FRAMEWORK = "lightning.framework"
VERSIONS = "lightning.model.versions"
PROBLEM = "lightning.problem"
CANCELLED = "lightning.cancelled"
ROLLOUT = "lightning.rollout.id"
ATTEMPT = "lightning.rollout.attempt"
MODE = "lightning.rollout.mode"
STATUS = "lightning.rollout.status"
GROUP = "lightning.rollout.group"
TASK_ID = "lightning.task.id"
LINK_TRACE = "lightning.link.trace_id"
LINK_SPAN = "lightning.link.span_id"

# Arrays, one number a token: exported only when asked for.
PROMPT_IDS = "lightning.prompt.token_ids"
COMPLETION_IDS = "lightning.completion.{}.token_ids"
LOGPROBS = "lightning.completion.{}.logprobs"
