"""The whole configuration: defaults, model entries, and errors that name file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from parkway.core.errors import ConfigurationError
from parkway.engine.config import MAX_ADAPTERS
from parkway.launch.engines import engine_options
from parkway.launch.settings import Settings


def _settings(folder: Path, text: str) -> Settings:
    path = folder / "parkway.yaml"
    path.write_text(text)
    return Settings.find(path)


def _fault(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        _settings(folder, text)
    return caught.value.message.removeprefix(f"{folder}/")


def test_without_a_file_the_built_in_models_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.find().models_at_start() == ["park-mini", "park-embed"]


def test_the_file_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _settings(tmp_path, "gateway: {port: 9123}")
    monkeypatch.chdir(tmp_path)
    assert Settings.find().gateway.port == 9123


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.yaml: cannot be read"):
        Settings.find(tmp_path / "absent.yaml")


def test_a_string_is_a_directory_or_a_url(tmp_path: Path) -> None:
    models = _settings(
        tmp_path,
        "models:\n  near: ./models/near\n  home: ~/m\n  far: https://api.example.com/v1/\n  mini: park-mini\n",
    ).models
    assert models["near"].path == str(tmp_path / "models/near")
    assert models["home"].path == str(Path.home() / "m")
    assert models["far"].url == "https://api.example.com/v1"
    assert models["mini"].path == "park-mini", "a built-in model is a name, not a directory"


def test_a_url_without_a_path_means_v1(tmp_path: Path) -> None:
    models = _settings(tmp_path, "models: {a: 'http://h:1', b: 'http://h:1/', c: 'http://h:1/openai/v2'}").models
    assert [models[name].url for name in "abc"] == ["http://h:1/v1", "http://h:1/v1", "http://h:1/openai/v2"]


def test_several_endpoints_of_one_model(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path,
        "models:\n"
        "  chat:\n"
        "    endpoints:\n"
        "      - ./local\n"
        "      - {url: 'http://gpu-1:8000', model: llama, weight: 3, api_key_env: GPU_KEY}\n",
    )
    local, remote = settings.models["chat"].all()
    assert local.path == str(tmp_path / "local")
    assert (remote.url, remote.model, remote.weight, remote.api_key_env) == (
        "http://gpu-1:8000/v1",
        "llama",
        3,
        "GPU_KEY",
    )
    assert settings.models_at_start() == ["chat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gatway: {}", 'parkway.yaml:1: gatway: unknown key. Did you mean "gateway"?'),
        ("gateway:\n  prt: 1", 'parkway.yaml:2: gateway.prt: unknown key. Did you mean "port"?'),
        ("models:\n  a:\n    pth: x", 'parkway.yaml:3: models.a.pth: unknown key. Did you mean "path"?'),
        ("models:\n  a: {}", "parkway.yaml:2: models.a: exactly one of `path`, `url`, `endpoints` is needed"),
        ("models:\n  a: {path: x, url: 'http://h'}", "parkway.yaml:2: models.a: exactly one of"),
        ("models:\n  a:\n    endpoints: [{path: x, url: 'http://h'}]", "exactly one of `path`, `url` is needed"),
        ("models:\n  a:\n    url: ftp://h", "parkway.yaml:3: models.a.url: not an http:// or https:// URL"),
        ("models:\n  a: 'http://user:pw@h'", "a key belongs into `api_key_env`"),
        (
            "models:\n  a: {path: x, api_key_env: K}",
            "parkway.yaml:2: models.a: `model` and `api_key_env` belong to a `url`",
        ),
        ("models:\n  a: {url: 'http://h', replicas: 2}", "parkway.yaml:2: models.a: `replicas` belongs to a `path`"),
        ("models:\n  a: {url: 'http://h', load: on_demand}", "parkway.yaml:2: models.a: `load: on_demand` belongs to"),
        ("models:\n  a: {path: x, load: on_demand, replicas: 2}", "one `path` and one replica"),
        ("models:\n  a: {path: x, keep_alive_s: 9}", "`keep_alive_s` belongs to `load: on_demand`"),
        (
            "models:\n  a:\n    path: x\n    adapters:\n      b: ./b\n      c:d: ./c",
            "parkway.yaml:6: models.a.adapters.c:d: the name of an adapter has 1 to 64 letters, digits, `.`, `_`",
        ),
        ("models:\n  a: {path: x, adapters: {c/d: ./c}}", "parkway.yaml:2: models.a.adapters.c/d: the name of an"),
        ("models:\n  a: {path: x, adapters: {'': ./c}}", "parkway.yaml:2: models.a.adapters.: the name of an adapter"),
        ("models:\n  a: {path: x, adapters: [b=./b]}", "parkway.yaml:2: models.a.adapters: Input should be a valid"),
        ("models:\n  a: {path: x, adapters: {b: [./b]}}", "parkway.yaml:2: models.a.adapters.b: Input should be a"),
        (
            "models:\n  a:\n    path: x\n    adapters:\n      b: ./b\n      b: ./c",
            "parkway.yaml:6: models.a.adapters.b: given twice",
        ),
        (
            "models:\n  a: {url: 'http://h', adapters: {b: ./b}}",
            "parkway.yaml:2: models.a: `adapters` belong to a `path`; one that another server has is a",
        ),
        (
            "models:\n  a: {endpoints: [{path: x}], adapters: {b: ./b}}",
            "parkway.yaml:2: models.a: `weight`, `engine` and `adapters` belong to each of the `endpoints`",
        ),
        ("engine:\n  adapters: [b=./b]", "parkway.yaml:1: engine: `adapters` does not belong here"),
        ("models:\n  a: {path: x, load: later}", "parkway.yaml:2: models.a.load"),
        ("memory_bytes: 0", "parkway.yaml:1: memory_bytes"),
        ("models:\n  'a b': ./x", "parkway.yaml:2: models.a b"),
        ("models:\n  a: {path: x, weight: 0}", "parkway.yaml:2: models.a.weight"),
        ("models:\n  - a", "parkway.yaml:1: models"),
        ("models:\n  a: 7", "parkway.yaml:2: models.a"),
        ("engine:\n  port: 1", "parkway.yaml:1: engine: `port` does not belong here"),
        ("limits:\n  burst: many", "parkway.yaml:2: limits.burst"),
        ("gateway: {\n", "parkway.yaml:2: not valid YAML"),
        ("store:\n  url: a\n  url: b", "parkway.yaml:3: store.url: given twice"),
    ],
)
def test_a_wrong_file_names_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    assert message in _fault(tmp_path, text)


def test_the_directory_of_an_adapter_is_relative_to_the_file(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path,
        "models:\n"
        "  a: {path: park-mini, adapters: {legal: ./legal, home: ~/h, there: /srv/there}}\n"
        "  b: {endpoints: [{path: ./b, adapters: {style: style}}, 'http://h']}\n",
    )
    there = {"legal": f"{tmp_path}/legal", "home": f"{Path.home()}/h", "there": "/srv/there"}
    assert (settings.models["a"].path, settings.models["a"].adapters) == ("park-mini", there)
    assert settings.models["b"].endpoints[0].adapters == {"style": f"{tmp_path}/style"}
    assert settings.adapted_models() == {"a:legal": "a", "a:home": "a", "a:there": "a", "b:style": "b"}
    assert _settings(tmp_path, settings.model_dump_json(exclude_unset=True)) == settings


def test_an_engine_has_a_limit_of_adapters(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(MAX_ADAPTERS + 1)]
    text = "models:\n  a: {{path: x, adapters: {{{}}}}}"
    fault = _fault(tmp_path, text.format(", ".join(f"{name}: ./{name}" for name in names)))
    assert "parkway.yaml:2: models.a.adapters: Dictionary should have at most 64 items" in fault
    _settings(tmp_path, text.format(", ".join(f"{name}: ./{name}" for name in names[1:])))


def test_a_model_may_have_engine_settings_of_its_own(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path,
        """
        engine: {max_sequences: 4, dtype: float32}
        models:
          small: {path: ./a, engine: {quantization: int8, max_sequences: 9}}
          plain: ./b
          both: {endpoints: [{path: ./a, engine: {dtype: bfloat16}}, {path: ./b}]}
        """,
    )
    small, plain = settings.engine_of(settings.models["small"]), settings.engine_of(settings.models["plain"])
    assert (small.quantization, small.max_sequences, small.dtype) == ("int8", 9, "float32")
    assert (plain.quantization, plain.max_sequences, plain.dtype) == ("none", 4, "float32")
    assert [settings.engine_of(place).dtype for place in settings.models["both"].all()] == ["bfloat16", "float32"]
    assert {*engine_options(small)} == {"--set", "max_sequences=9", "dtype=float32", "quantization=int8"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {a: {path: ./a, engine: {quantisation: int8}}}", 'unknown key. Did you mean "quantization"?'),
        ("models: {a: {path: ./a, engine: {port: 1}}}", "`port` does not belong here"),
        ("models: {a: {url: http://b, engine: {dtype: float32}}}", "`engine` belongs to a `path`"),
        ("models: {a: {engine: {dtype: float32}, endpoints: [{path: ./a}]}}", "belong to each of the `endpoints`"),
        (
            "{engine: {deterministic: true}, models: {a: {path: ./a, engine: {tensor_parallel: 2}}}}",
            "models.a.engine: together with `engine`: `deterministic` does not go together with `tensor_parallel`",
        ),
    ],
)
def test_wrong_engine_settings_of_a_model_are_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in _fault(tmp_path, text)


def test_models_on_demand_are_not_among_those_of_the_start(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "models:\n  a: ./a\n  b: {path: ./b, load: on_demand}\n  c: 'http://h'\n")
    assert settings.models_at_start() == ["a"]
    assert settings.models_on_demand()["b"].path == str(tmp_path / "b")
    assert settings.pulled_models


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    assert len(_fault(tmp_path, "gatway: 1\nlimts: 2\nstor: 3").splitlines()) == 3


def test_an_unset_variable_is_told_at_the_start(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "models:\n  a: {url: 'http://h', api_key_env: SOME_KEY}")
    settings.check_environment({"SOME_KEY": "secret"})
    with pytest.raises(
        ConfigurationError, match=r"models\.a\.api_key_env: the environment variable SOME_KEY is not set"
    ):
        settings.check_environment({})


def test_the_audit_key_is_relative_to_the_file(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "audit: {key_file: keys/audit.key}")
    assert settings.audit.key_file == f"{tmp_path}/keys/audit.key"
    assert _settings(tmp_path, settings.model_dump_json(exclude_unset=True)) == settings


def test_a_collectors_headers_are_looked_for_at_the_start(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "traces: {otlp_endpoint: 'http://c:4318', otlp_headers_env: SOME_HEADERS}")
    settings.check_environment({"SOME_HEADERS": "a=b"})
    with pytest.raises(ConfigurationError, match=r"traces\.otlp_headers_env: the environment variable SOME_HEADERS"):
        settings.check_environment({})


def test_what_is_dumped_reads_back_as_the_same(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path,
        "gateway: {port: 9000}\nengine: {max_sequences: 4}\n"
        "models:\n  a: ./a\n  b: {endpoints: ['http://h', {path: ./c, replicas: 2}]}\n",
    )
    other = tmp_path / "elsewhere"
    other.mkdir()
    assert _settings(other, settings.model_dump_json(exclude_unset=True)) == settings


def test_fallbacks_are_told_in_the_order_of_asking(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path,
        "models:\n  a: {url: 'http://h', fallbacks: [b, c]}\n  b: {url: 'http://h', fallbacks: [d, c]}\n"
        "  c: {url: 'http://h', balance: prefix_affinity}\n  d: http://h\n",
    )
    assert settings.fallbacks() == {"a": ["b", "d", "c"], "b": ["d", "c"]}
    assert settings.balance() == {"c": "prefix_affinity"}


def test_fallbacks_that_cannot_work_are_refused(tmp_path: Path) -> None:
    text = "models:\n  a: {url: 'http://h', fallbacks: [b]}\n  b: {url: 'http://h', fallbacks: [c]}\n"
    assert "there is no model 'c'" in _fault(tmp_path, text)
    circle = _fault(tmp_path, text + "  c: {url: 'http://h', fallbacks: [b]}\n")
    assert "models.b.fallbacks: b -> c -> b is a circle" in circle
    assert "a -> a is a circle" in _fault(tmp_path, "models: {a: {url: 'http://h', fallbacks: [a]}}")


def test_hedging_needs_one_time(tmp_path: Path) -> None:
    for given in ("{}", "{after_s: 1, after_percentile: 95}"):
        assert "exactly one of `after_s` and `after_percentile`" in _fault(tmp_path, f"router: {{hedge: {given}}}")


def test_collections_of_knowledge(tmp_path: Path) -> None:
    knowledge = _settings(
        tmp_path,
        "knowledge:\n"
        "  docs: ./docs\n"
        "  notes: [~/notes, {path: ../other, include: ['*.md'], access: ['team:legal'], metadata: {area: law}}]\n"
        "  rest:\n"
        "    sources:\n"
        "      - bucket: {name: reports, prefix: 2026/}\n"
        "      - query: {name: articles, sql: 'SELECT id, text FROM a', url_env: ARTICLES}\n"
        "    chunking: {method: fixed}\n"
        "    access: ['user:ann']\n",
    ).knowledge
    assert [source.path for source in knowledge["docs"].sources] == [str(tmp_path / "docs")]
    assert [source.path for source in knowledge["notes"].sources] == [
        str(Path.home() / "notes"),
        str(tmp_path.parent / "other"),
    ]
    assert [source.name for source in knowledge["rest"].sources] == ["s3://reports/2026/", "articles"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "knowledge: {Docs: ./docs}",
            "knowledge.Docs: 'Docs' cannot be the name of a collection",
        ),
        (
            "knowledge:\n  docs:\n    source: ./docs",
            'parkway.yaml:3: knowledge.docs.source: unknown key. Did you mean "sources"?',
        ),
        ("knowledge: {docs: {sources: [{paht: ./a}]}}", 'unknown key. Did you mean "path"?'),
        ("knowledge: {docs: {sources: [{}]}}", "exactly one of `path`, `bucket`, `query` is needed"),
        ("knowledge: {docs: [./a, ./a]}", "the source './a' is given twice"),
        ("knowledge: {docs: [uploads]}", "a source cannot be called `uploads`"),
        (
            "knowledge: {docs: [{path: a, access: []}]}",
            "knowledge.docs.sources.0.access: List should have at least 1 item",
        ),
        ("knowledge: {docs: {access: [everybody]}}", "knowledge.docs.access.0: String should match pattern"),
        (
            "knowledge: {docs: [{bucket: {name: bu, access_key_env: A}}]}",
            "`access_key_env` and `secret_key_env` belong together",
        ),
        ("knowledge: {docs: [{bucket: {name: bu, endpoint: 'ftp://x'}}]}", "knowledge.docs.sources.0.bucket.endpoint"),
        (
            "knowledge: {docs: [{query: {name: q, sql: DROP TABLE x, url_env: U}}]}",
            "a query begins with SELECT or WITH",
        ),
        ("knowledge: {docs: [{query: {name: q, sql: SELECT 1}}]}", "knowledge.docs.sources.0.query.url_env: missing"),
        (
            "knowledge: {docs: [{include: ['*'], query: {name: q, sql: SELECT 1, url_env: U}}]}",
            "`include` and `exclude` belong to",
        ),
        ("knowledge: {docs: {index: {store: qdrant}}}", "`store: qdrant` needs `url` or `url_env`"),
    ],
)
def test_what_is_wrong_with_a_collection_is_said(tmp_path: Path, text: str, message: str) -> None:
    assert message in _fault(tmp_path, text)


def test_variables_that_collections_name_have_to_be_set(tmp_path: Path) -> None:
    settings = _settings(tmp_path, "knowledge: {docs: [{query: {name: q, sql: SELECT 1, url_env: ARTICLES}}]}")
    with pytest.raises(
        ConfigurationError, match=r"knowledge\.docs\.sources\.0\.query\.url_env: .* ARTICLES is not set"
    ):
        settings.check_environment({})
    settings.check_environment({"ARTICLES": "sqlite:////a.db"})
