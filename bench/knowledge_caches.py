"""What is kept next to the model: searches that are asked again, and passages that the engine has read already.

Starts a Parkway on a home of its own, gives it the documentation as a collection, and asks questions, each of them
first when nothing is kept, then again: searches, and chats that are answered from the passages that were found.
`python -m bench.knowledge_caches`
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.running import Parkway

DOCUMENTS = Path(__file__).parent.parent / "docs"
SUBJECTS = (
    "limits of requests", "budgets of teams", "the response cache", "guardrails", "the audit log", "adapters",
    "fallbacks", "conversations", "keys that expire", "the registry in etcd", "hedging", "priority classes",
    "structured output",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="How often each search is asked again.")
    rounds = parser.parse_args().rounds
    mini = {
        "path": "park-mini",
        "grounding": {"tier": "generated", "check": "off", "min_confidence": 0, "context_tokens": 300},
    }
    settings: dict[str, object] = {
        "models": {"mini": mini},
        "knowledge": {"docs": str(DOCUMENTS)},
        "limits": {"rate_per_s": 1e6, "burst": 1_000_000},
    }
    with tempfile.TemporaryDirectory() as home, Parkway(Path(home), settings) as running:
        connection = http.client.HTTPConnection(str(urlsplit(running.url).netloc), timeout=60)

        def ask(path: str, body: object = None) -> tuple[dict[str, object], float]:
            """The answer, and how long it took in milliseconds."""
            began = time.perf_counter()
            connection.request(
                "GET" if body is None else "POST", path, json.dumps(body), {"authorization": f"Bearer {running.key}"}
            )
            answer = json.loads(connection.getresponse().read())
            return answer, (time.perf_counter() - began) * 1000

        while (status := ask("/v1/knowledge/docs")[0]).get("waiting") != 0 or not status["passages"]:
            time.sleep(0.5)
        print(f"{status['documents']} documents, {status['passages']} passages; load {os.getloadavg()[0]:.1f}")
        first, again = [], []
        for subject in SUBJECTS:
            search = {"query": f"What is said of {subject}?"}
            first.append(ask("/v1/knowledge/docs/search", search)[1])
            again += [ask("/v1/knowledge/docs/search", search)[1] for _ in range(rounds)]
        print(f"search, ms: p50 {statistics.median(first):.2f} at first, {statistics.median(again):.2f} again")

        def chat(question: str, documents: list[str]) -> tuple[float, int, int]:
            body = {
                "model": "mini", "messages": [{"role": "user", "content": question}], "knowledge": ["docs"],
                "grounding": {"documents": documents}, "max_tokens": 1,
            }  # fmt: skip
            answer, took = ask("/v1/chat/completions", body)
            usage = answer["usage"]
            assert isinstance(usage, dict), answer
            return took, usage["prompt_tokens"], usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)

        cold, warm = [], []
        for subject in SUBJECTS:
            found = ask("/v1/knowledge/docs/search", {"query": subject, "limit": 1})[0]["hits"]
            assert isinstance(found, list)
            documents = [hit["document_id"] for hit in found]
            cold.append(chat(f"What is said of {subject}?", documents))
            warm.append(chat(f"What of {subject} matters?", documents))
        for name, taken in (("first", cold), ("second", warm)):
            took, tokens, cached = (statistics.median(each) for each in zip(*taken, strict=True))
            print(f"{name} question about a document: {took:.0f} ms, {tokens:.0f} tokens, {cached:.0f} read before")


if __name__ == "__main__":
    main()
