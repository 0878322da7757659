"""Chat templates of the families that write tool calls differently: declared copies of the published ones, shortened
to what renders questions, tools and calls."""

HERMES = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}For each function call, return a json object within <tool_call></tool_call> XML tags<|im_end|>
{% endif %}
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for tool_call in message.tool_calls or [] %}
{%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\\n<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
{{- tool_call.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
"""Qwen 2.5."""

THINKING = HERMES.replace(
    "+ message.content }}",
    """+ ('<think>\\n\\n</think>\\n\\n' if message.role ==
 'assistant' else '') + message.content }}""",
)
"""Qwen3: the last turn shows its thinking, none here."""

LLAMA = """{{- bos_token }}{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}
{%- if message.tool_calls | length != 1 %}{{- raise_exception("This model only supports single tool-calls at once!") }}
{%- endif %}{%- set tool_call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{{- '{"name": "' + tool_call.name + '", ' }}{{- '"parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}
{{- "<|eot_id|>" }}{%- else %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{%- if tools and message.role == 'user' %}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}{{- message.content + '<|eot_id|>' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
"""Llama 3.1 to 3.3."""

MISTRAL = """{{- bos_token }}{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}
{%- for message in messages %}{%- if message.role == "user" %}
{%- if tools and message == user_messages[-1] %}{{- "[AVAILABLE_TOOLS] " + tools | tojson + "[/AVAILABLE_TOOLS]" }}
{%- endif %}{{- "[INST] " + message.content + "[/INST]" }}
{%- elif message.tool_calls %}{{- "[TOOL_CALLS] [" }}{%- for tool_call in message.tool_calls %}
{%- set out = tool_call.function | tojson %}{{- out[:-1] }}
{%- if tool_call.id | length != 9 %}
{{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}{%- endif %}
{{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
{%- endfor %}{%- else %}{{- " " + message.content + eos_token }}{%- endif %}{%- endfor %}"""
"""Mistral 7B v0.3 and Nemo."""

MISTRAL_ARGS = """{{- bos_token }}{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}
{%- for message in messages %}{%- if message.role == "user" %}
{%- if tools and message == user_messages[-1] %}{{- "[AVAILABLE_TOOLS]" + tools | tojson + "[/AVAILABLE_TOOLS]" }}
{%- endif %}{{- "[INST]" + message.content + "[/INST]" }}
{%- elif message.tool_calls %}{%- for tool_call in message.tool_calls %}
{{- '[TOOL_CALLS]' + tool_call.function.name }}{%- if tool_call.id | length != 9 %}
{{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}{%- endif %}
{{- '[CALL_ID]' + tool_call.id }}{{- '[ARGS]' + tool_call.function.arguments | tojson }}{%- endfor %}{{- eos_token }}
{%- else %}{{- message.content + eos_token }}{%- endif %}{%- endfor %}"""
"""Mistral Small 3.2."""

DEVSTRAL = MISTRAL_ARGS.replace("{{- '[CALL_ID]' + tool_call.id }}", "")
"""Devstral and later: no ids."""

QWEN_CODER = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for tool_call in message.tool_calls or [] %}
{%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\\n<tool_call>\\n<function=' + tool_call.name + '>\\n' }}
{%- for args_name, args_value in tool_call.arguments | items %}
{{- '<parameter=' + args_name + '>\\n' }}
{%- set args_value = args_value | tojson | safe if args_value is mapping or
 (args_value is sequence and args_value is not string) else args_value | string %}
{{- args_value }}{{- '\\n</parameter>\\n' }}{%- endfor %}
{{- '</function>\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
"""Qwen3-Coder, Qwen3.5."""

PYTHONIC = """{%- macro written(call) %}{{- call.name + '(' }}{%- for key, value in call.arguments | items %}
{{- key + '=' }}{{- value | tojson }}{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}{{- ')' }}
{%- endmacro %}
{%- if tools %}{{- 'Functions: ' + tools | tojson }}{%- endif %}
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- if message.tool_calls %}OPEN[{%- for tool_call in message.tool_calls %}{{- written(tool_call.function) }}
{%- if not loop.last %}{{- ', ' }}{%- endif %}{%- endfor %}]CLOSE{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

TEMPLATES = {
    "hermes": HERMES,
    "thinking": THINKING,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "mistral args": MISTRAL_ARGS,
    "devstral": DEVSTRAL,
    "qwen-coder": QWEN_CODER,
    "pythonic": PYTHONIC.replace("OPEN", "").replace("CLOSE", ""),
    "lfm2": PYTHONIC.replace("OPEN", "<|tool_call_start|>").replace("CLOSE", "<|tool_call_end|>"),
    "phi-4-mini": HERMES.replace("<tool_call>", "<|tool_call|>").replace("</tool_call>", "<|/tool_call|>"),
}
FORMS = {
    "hermes": "hermes",
    "thinking": "hermes",
    "llama": "llama-3",
    "mistral": "mistral",
    "mistral args": "mistral",
    "devstral": "mistral",
    "qwen-coder": "qwen-coder",
    "pythonic": "pythonic",
    "lfm2": "pythonic in <|tool_call_start|>",
    "phi-4-mini": "json in <|tool_call|>",
}
"""The form of each."""

SILENT = HERMES.replace("{%- if tools %}", "{%- if false %}")
"""Does not print tools."""
UNKNOWN = HERMES.replace("<tool_call>", "<<call").replace("</tool_call>", "call>>")
"""Prints tools, and calls in a form that no other model uses."""
