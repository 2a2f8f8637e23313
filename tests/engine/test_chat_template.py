"""Chat templates: what transformers renders we render, and a hostile one is stopped."""

import json
from pathlib import Path
from typing import Any

import pytest

from parkway.core.errors import InvalidRequest, ModelFilesError
from parkway.engine.chat_template import SIZE_LIMIT, ChatTemplate
from parkway.engine.directory import ModelDirectory

MESSAGES = [
    {"role": "system", "content": "Be brief. <b>ü</b>"},
    {"role": "user", "content": " hi "},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "bye"},
]

# In the manner of published ones, with the constructs that they use.
PUBLISHED = {
    "chatml": (
        "{% for message in messages %}\n"
        "    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}\n"
        "{% endfor %}\n"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "llama": (
        "{{- bos_token }}{%- set ns = namespace(first=true, system='') %}"
        "{%- for message in messages %}{%- if message.role == 'system' %}{%- set ns.system = message.content %}"
        "{%- continue %}{%- endif %}"
        "{{- '[INST] ' ~ (ns.system ~ '\\n' if ns.first else '') ~ message.content ~ ' [/INST]' }}"
        "{%- set ns.first = false %}{%- endfor %}{{ messages[-1] | tojson(indent=2) }}"
    ),
    "qwen": (
        "{%- macro show(text, loud=false) %}{{ text | upper if loud else text }}{% endmacro %}"
        "{%- for m in messages[::-1] %}{%- if loop.index0 > 1 %}{% break %}{% endif %}"
        "{{ show(m.content.strip().split(' ')[0], loop.first) }}{{ m.content.replace('b', 'p') }}{% endfor %}"
        "{% generation %}{{ messages | map(attribute='role') | join('-') }}{% endgeneration %}"
        "{{ 'tools' if tools else 'none' }}{{ '%' }}{{ 7 % 4 }}{{ 3 * 4 }}{{ '=' * 10 }}"
        "{{ 'a\nb' | indent(2) }}{{ ','.join(['a', 'b']) }}"
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_renders_what_transformers_renders(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    [expected], _ = render_jinja_template(
        conversations=[MESSAGES], chat_template=PUBLISHED[name], add_generation_prompt=True, bos_token="<s>"
    )
    assert ChatTemplate(PUBLISHED[name], {"bos_token": "<s>"}).render(MESSAGES) == expected


HOSTILE = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops in a block": "{% set x %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    "{% endset %}",
    "recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "long string": "{{ 'a' * 99999999999 }}",
    "long list": "{{ [1] * 99999999999 }}",
    "power": "{{ 9 ** 9 ** 9 ** 9 }}",
    "doubling by ~": "{% set ns = namespace(s='aa') %}{% for i in range(90) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubling by +": "{% set ns = namespace(s='aa') %}{% for i in range(90) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubling by join": "{% set ns = namespace(s='aa') %}{% for i in range(90) %}"
    "{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
    "doubling by method": "{% set ns = namespace(s='aa') %}{% for i in range(90) %}"
    "{% set ns.s = ns.s.join(['', ns.s, '']) %}{% endfor %}",
    "replace": "{{ ('a' * 4000000).replace('a', 'a' * 4000000) }}",
    "replace filter": "{{ ('a' * 4000000) | replace('a', 'a' * 4000000) }}",
    "padding": "{{ '%999999999d' % 1 }}",
    "padding by method": "{{ 'a'.ljust(99999999999) }}",
    "padding by format": "{{ '{:>99999999999}'.format(1) }}",
    "centre": "{{ 'a' | center(99999999999) }}",
    "output": "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__.sys }}",
    "changing the messages": "{{ messages.append(1) }}",
    "include": "{% include '/etc/passwd' %}",
    "long range": "{{ range(999999999) | list }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_stopped_with_a_reason(name: str) -> None:
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(InvalidRequest, match="the model's chat template") as caught:
        ChatTemplate(HOSTILE[name], {}).render(messages, time_limit_s=0.2)
    assert caught.value.param == "messages"
    assert messages == [{"role": "user", "content": "hi"}]


def test_the_reason_that_a_template_gives_is_passed_on() -> None:
    template = ChatTemplate("{{ raise_exception('system messages are not supported') }}", {})
    with pytest.raises(InvalidRequest, match="system messages are not supported"):
        template.render(MESSAGES)


@pytest.mark.parametrize("source", ["{{ messages[9].content.x }}", "{{ 1 / 0 }}", "{{ messages + 1 }}", "{{ f() }}"])
def test_a_template_that_fails_is_no_failure_of_the_server(source: str) -> None:
    with pytest.raises(InvalidRequest):
        ChatTemplate(source, {}).render(MESSAGES)


def test_a_long_but_honest_chat_passes() -> None:
    messages = [{"role": "user", "content": "a" * (SIZE_LIMIT // 200)}] * 100
    assert len(ChatTemplate(PUBLISHED["chatml"], {}).render(messages)) > SIZE_LIMIT // 2


def test_invalid_jinja_is_found_when_the_model_is_loaded() -> None:
    with pytest.raises(ModelFilesError, match="not valid Jinja"):
        ChatTemplate("{% for %}", {})


@pytest.mark.parametrize(
    ("config", "file", "expected"),
    [
        ({"chat_template": "config"}, None, "config"),
        ({"chat_template": "config"}, "file", "file"),
        ({"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]}, None, "y"),
        ({"chat_template": [{"name": "tool_use", "template": "x"}]}, None, None),
        ({}, None, None),
    ],
)
def test_where_the_template_is_found(
    tmp_path: Path, config: dict[str, Any], file: str | None, expected: str | None
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if file is not None:
        (tmp_path / "chat_template.jinja").write_text(file)
    template = ChatTemplate.of(ModelDirectory(tmp_path), {})
    assert (template.render([]) if template else None) == expected
