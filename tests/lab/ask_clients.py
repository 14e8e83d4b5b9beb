# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the application server: asks gateways with the official clients, as their users would.

Reads [{name, base_url, api_key, chat, embeddings}, ...] as JSON from standard input, so that no
key is an argument, and prints {name: {client: {what: answer}}}. An error is an answer as well: its
text. One process for all of them, since to import LiteLLM takes seconds. `chat` and `embeddings`
are names of models; without the latter none are asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import litellm
import openai
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

MESSAGES = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}},
            "required": ["city"],
        },
    },
}
LIMITS: dict[str, Any] = {"max_tokens": 16, "seed": 3}
# A call that the model made before, and what came of it
CALL = {"id": "call-1", "type": "function"}
CALLED = [
    *MESSAGES,
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{**CALL, "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}],
    },
    {"role": "tool", "tool_call_id": "call-1", "content": "sunny"},
]


def seen(ask: Callable[[], Any]) -> Any:
    """Return what a client saw, or the text of its error."""
    try:
        return ask()
    except Exception as error:  # whatever a client raises is what its user sees
        return f"{type(error).__name__}: {error}"[:500]


def with_openai(gateway: dict[str, str]) -> dict[str, Callable[[], Any]]:
    """Return what is asked with OpenAI's client."""
    client = openai.OpenAI(
        base_url=gateway["base_url"], api_key=gateway["api_key"], max_retries=0, timeout=60
    )
    asked = {"model": gateway["chat"], "messages": MESSAGES}
    create = client.chat.completions.create
    return {
        "models": lambda: sorted(model.id for model in client.models.list()),
        "chat": lambda: create(**asked, **LIMITS).choices[0].message.content,
        "stream": lambda: len(list(create(**asked, **LIMITS, stream=True))),
        "plain_tokens": lambda: (
            create(model=gateway["chat"], messages=CALLED, **LIMITS).usage.prompt_tokens
        ),
        "tools_tokens": lambda: (
            create(
                model=gateway["chat"],
                messages=CALLED,
                tools=[WEATHER],
                tool_choice="auto",
                **LIMITS,
            ).usage.prompt_tokens
        ),
        "embeddings": lambda: len(
            client.embeddings.create(model=gateway["embeddings"], input="Hello").data[0].embedding
        ),
    }


def with_litellm(gateway: dict[str, str]) -> dict[str, Callable[[], Any]]:
    """Return what is asked with LiteLLM's SDK, which takes the gateway for one of OpenAI's."""
    place = {"api_base": gateway["base_url"], "api_key": gateway["api_key"], "timeout": 60}
    asked = {"model": f"openai/{gateway['chat']}", "messages": MESSAGES, "num_retries": 0, **place}
    return {
        "chat": lambda: litellm.completion(**asked, **LIMITS).choices[0].message.content,
        "stream": lambda: len(list(litellm.completion(**asked, **LIMITS, stream=True))),
        "plain_tokens": lambda: (
            litellm.completion(**{**asked, "messages": CALLED}, **LIMITS).usage.prompt_tokens
        ),
        "tools_tokens": lambda: (
            litellm.completion(
                **{**asked, "messages": CALLED}, **LIMITS, tools=[WEATHER], tool_choice="auto"
            ).usage.prompt_tokens
        ),
        "embeddings": lambda: len(
            litellm.embedding(
                model=f"openai/{gateway['embeddings']}",
                input=["Hello"],
                encoding_format="float",
                **place,
            ).data[0]["embedding"]
        ),
    }


def with_langchain(gateway: dict[str, str]) -> dict[str, Callable[[], Any]]:
    """Return what is asked with LangChain's classes for OpenAI."""
    place: dict[str, Any] = {
        "base_url": gateway["base_url"], "api_key": gateway["api_key"], "max_retries": 0,
        "timeout": 60,
    }  # fmt: skip
    chat = ChatOpenAI(model=gateway["chat"], **place, **LIMITS)
    with_tools = chat.bind_tools([WEATHER], tool_choice="auto")
    # Texts instead of OpenAI's tokens, which its documentation asks for with other servers
    embeddings = OpenAIEmbeddings(
        model=gateway["embeddings"] or "none", check_embedding_ctx_length=False, **place
    )

    return {
        "chat": lambda: chat.invoke("Hello").content,
        "stream": lambda: len(list(chat.stream("Hello"))),
        "plain_tokens": lambda: chat.invoke(CALLED).usage_metadata["input_tokens"],
        "tools_tokens": lambda: with_tools.invoke(CALLED).usage_metadata["input_tokens"],
        "embeddings": lambda: len(embeddings.embed_query("Hello")),
    }


CLIENTS = {"openai": with_openai, "litellm": with_litellm, "langchain": with_langchain}


def main() -> None:
    litellm.suppress_debug_info = True
    found = {
        gateway["name"]: {
            client: {
                what: seen(ask)
                for what, ask in questions(gateway).items()
                if gateway["embeddings"] or what != "embeddings"
            }
            for client, questions in CLIENTS.items()
        }
        for gateway in json.load(sys.stdin)
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
