"""How the names that logs use are read: `us.anthropic.claude-…`, `anthropic/claude-…`, `glm-5`.

Invariant: readings go from what the log says to what it may mean, and a made-up provider never
hides a model that its name alone tells.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROVIDERS = {
    "bedrock": "aws",
    "aws.bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.openai": "azure",
    "vertex": "google",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "xai": "x-ai",
    "x_ai": "x-ai",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "moonshot_ai": "moonshotai",
    "kimi": "moonshotai",
    "z-ai": "zai",
    "z.ai": "zai",
    "zhipu": "zhipuai",
    "bigmodel": "zhipuai",
}
"""Ids of providers in logs, OpenTelemetry's included, and what price lists call them."""

_BEDROCK = re.compile(r"(?:(?:us|eu|apac|ap|global|us-gov|jp|au)\.)?([a-z0-9-]+)\.(.+)")
_QWEN = ("qwen", "qwq")


def readings(model: str, provider: str) -> Iterator[tuple[str, str]]:
    """Yield names and provider ids to look for, "" for whoever sells such names; all lower case."""
    if not model:
        return
    if provider:
        yield model, _PROVIDERS.get(provider, provider)
    yield model, ""
    head, slash, rest = model.partition("/")
    tail = model.rpartition("/")[2]
    if slash:
        yield rest, _PROVIDERS.get(head, head)
        yield model, "openrouter"
        yield tail, ""
    bedrock = _BEDROCK.fullmatch(model)
    if bedrock:
        yield model, "aws"
        yield bedrock[2], bedrock[1]
    if tail.startswith(_QWEN):
        yield f"qwen/{tail}", "openrouter"  # Alibaba's own list is in no price list
