"""The configuration of the response cache."""

from typing import Literal

from pydantic import Field

from parkway.core.configuration import Section

Scope = Literal["key", "user", "team", "everybody"]


class ResponseCacheConfig(Section):
    """Which answers are kept to be given again, and to whom.

    Attributes:
        keep: `repeatable`: answers to requests with `temperature: 0` or a `seed`, embeddings and rankings; `all`: of
            every request; `nothing`: there is no cache.
        scope: Who shares answers. Requests without a user or team, where that is the scope, share within their key.
        place: `memory`: each gateway process for itself; `redis`: all that use the Redis of the section `redis`.
        ttl_s: How long an answer is good for.
        max_bytes: Of all answers that one process keeps in memory; beyond it the longest unused go.
        max_answer_bytes: Larger answers are not kept.
        max_request_bytes: Larger requests are not looked up.
        tools: Whether requests that offer tools to the model take part.
        redis_timeout_s: Redis is given up for a request after this long.
        semantic: Whether a chat may be answered with the answer to a question that only means the same.
        semantic_model: The embedding model that says so.
        semantic_threshold: The least cosine between two questions that mean the same.
        semantic_timeout_s: The embedding is given up after this long.
        semantic_entries: Questions that one process compares with; beyond it the longest unused go.
    """

    keep: Literal["nothing", "repeatable", "all"] = "nothing"
    scope: Scope = "key"
    place: Literal["memory", "redis"] = "memory"
    ttl_s: float = Field(default=3600.0, gt=0, le=31_536_000)
    max_bytes: int = Field(default=67_108_864, ge=1024, le=1 << 40)
    max_answer_bytes: int = Field(default=262_144, ge=1024, le=16_777_216)
    max_request_bytes: int = Field(default=131_072, ge=1024, le=4_194_304)
    tools: bool = False
    redis_timeout_s: float = Field(default=0.05, gt=0, le=10)
    semantic: bool = False
    semantic_model: str = Field(default="park-embed", min_length=1, max_length=128)
    semantic_threshold: float = Field(default=0.97, ge=0.5, le=1)
    semantic_timeout_s: float = Field(default=0.25, gt=0, le=10)
    semantic_entries: int = Field(default=10_000, ge=1, le=1_000_000)
