"""The router against servers that nobody here wrote: `transformers serve` with a tiny random model, and nginx."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from parkway.core.chat import ChatChunk, ChatCompletion
from parkway.core.sse import EventSplitter, data_of
from parkway.core.wire import encode
from parkway.router.condition import Condition
from parkway.router.endpoint import Endpoint
from tests.router.conftest import NewRouter, call, until
from tests.router.test_router import outstanding
from tests.servers import _die_with_parent

SERVING = ("transformers", "fastapi", "accelerate", "uvicorn", "openai")  # what its extra "serving" brings
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant:"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@dataclass(frozen=True)
class Foreign:
    endpoint: Endpoint
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that ends with the test, by whatever way the test ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | environment, preexec_fn=_die_with_parent(9)
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 30,000 random weights, with a tokenizer of single bytes and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("models") / "tiny"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "<|end|>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = vocabulary["<|end|>"]
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    torch.manual_seed(0)  # or by chance it may have nothing to say
    LlamaForCausalLM(config).save_pretrained(directory)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def transformers_serve(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    """`transformers serve`, started; it may still be loading."""
    log = tmp_path_factory.mktemp("serve") / "log"
    port = free_port()
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(tiny_llama)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    url = f"http://127.0.0.1:{port}/v1"
    endpoint = Endpoint(endpoint_id="foreign", model="m", url=url, upstream_model=str(tiny_llama))
    with running(command + options, log, HF_HUB_OFFLINE="1", HF_HOME=str(log.parent)) as process:
        yield Foreign(endpoint, process, log)


def chat(**fields: object) -> bytes:
    messages = [{"role": "user", "content": "hello"}]
    return encode({"model": "m", "messages": messages, "max_tokens": 4, "temperature": 0, **fields})


missing = [name for name in SERVING if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(missing), reason=f"`transformers serve` needs {', '.join(missing)}")
async def test_transformers_serve(new_router: NewRouter, transformers_serve: Foreign) -> None:
    """A whole answer, a streamed one, a refusal, and one that is left early, by a server of another make."""
    process, log = transformers_serve.process, transformers_serve.log
    router = await new_router(transformers_serve.endpoint, failures_to_eject=1, health_interval_s=0.2)
    (candidate,) = router._fleet.candidates()
    # Ejected while nobody listens yet, and found by the health checks as soon as somebody does.
    await until(lambda: candidate.condition is Condition.EJECTED)
    await until(lambda: candidate.condition is Condition.HEALTHY or process.poll() is not None, timeout_s=90)
    assert process.poll() is None, log.read_text()[-3000:]

    async with router.send(call(body=chat(), deadline_s=60)) as reply:
        body = await reply.read(1 << 20)
        assert reply.status == 200, body
        assert reply.headers["content-type"].startswith("application/json")
        answer = msgspec.json.decode(body, type=ChatCompletion)
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 5

    async with router.send(call(body=chat(stream=True), deadline_s=60)) as reply:
        assert reply.status == 200
        splitter, events = EventSplitter(), []
        async for chunk in reply.chunks():
            events += [data for block in splitter.feed(chunk) if (data := data_of(block)) is not None]
    chunks = [msgspec.json.decode(event, type=ChatChunk) for event in events if event != b"[DONE]"]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)

    async with router.send(call(body=b'{"model":"m","messages":"nonsense"}', deadline_s=60)) as reply:
        assert reply.status >= 400
        assert await reply.read(1 << 20)

    async with router.send(call(body=chat(stream=True, max_tokens=400), deadline_s=60)) as reply:
        async for _ in reply.chunks():
            break
    assert outstanding(router) == 0
    async with router.send(call(body=chat(), deadline_s=60)) as reply:
        assert reply.status == 200, "the server goes on after a reader who left"


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx (Debian: apt-get install nginx-light)")
async def test_nginx(new_router: NewRouter, tmp_path: Path) -> None:
    """Many answers at once over kept-alive connections that the server closes again and again; none is lost."""
    port = free_port()
    paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("fastcgi", "uwsgi", "scgi", "proxy"))
    (tmp_path / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; worker_processes 1;
        events {{ worker_connections 256; }}
        http {{
            access_log off; client_body_temp_path {tmp_path}/body; {paths}
            keepalive_requests 7;
            server {{
                listen 127.0.0.1:{port};
                location / {{ default_type application/json; return 200 '{{"object":"chat.completion"}}'; }}
            }}
        }}""")
    with running(["nginx", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "error.log")], tmp_path / "log"):
        endpoint = Endpoint(endpoint_id="nginx", model="m", url=f"http://127.0.0.1:{port}/v1", upstream_model="m")
        router = await new_router(endpoint, failures_to_eject=1, health_interval_s=0.05)
        (candidate,) = router._fleet.candidates()
        await until(lambda: candidate.check_at > 0)
        await until(lambda: candidate.condition is Condition.HEALTHY)

        async def some() -> None:
            for _ in range(50):
                async with router.send(call()) as reply:
                    assert reply.status == 200
                    assert json.loads(await reply.read(1000)) == {"object": "chat.completion"}

        await asyncio.gather(*[some() for _ in range(8)])
        assert outstanding(router) == 0
