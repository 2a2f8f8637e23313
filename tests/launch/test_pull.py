"""Pulling from a hub that does all that hubs and networks do."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from parkway.core.errors import (
    ConfigurationError,
    Conflict,
    EndpointFailed,
    InvalidRequest,
    ModelFilesError,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    ParkwayError,
    RateLimited,
    StartupError,
)
from parkway.launch.hub import Hub, RemoteFile
from parkway.launch.pull import POOLING, Reference, pull
from parkway.store.home import Home
from parkway.store.models import MANIFEST, PulledModel, PulledModels
from tests.engine.tiny import CONFIGS, write_directory
from tests.launch.hub_server import COMMIT, HubServer

REPO = "acme/tiny"
LIST = f"/api/models/{REPO}/revision/main"
WEIGHTS = f"/{REPO}/resolve/{COMMIT}/model.safetensors"
TOKEN = "hf_secret0123456789"
BERT = {
    "model_type": "bert",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


@dataclass
class Notes:
    """A `Progress` that keeps what it is told."""

    lines: list[str] = field(default_factory=list)
    begun: list[tuple[str, str, int]] = field(default_factory=list)
    advanced: dict[tuple[str, str], int] = field(default_factory=dict)
    ended: int = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def begin(self, action: str, file: RemoteFile, have_bytes: int) -> None:
        self.begun.append((action, file.name, have_bytes))
        self.advanced[action, file.name] = have_bytes

    def advance(self, size_bytes: int) -> None:
        self.advanced[self.begun[-1][:2]] += size_bytes

    def end(self) -> None:
        self.ended += 1


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few hundred kilobytes, as its makers would publish it."""
    path = write_directory(tmp_path_factory.mktemp("published"), CONFIGS["qwen2-grouped-tied"])
    (path / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    (path / "LICENSE").write_text("MIT\n")
    (path / "notes.txt").write_text("nothing that an engine reads\n")
    (path / "pytorch_model.bin").write_bytes(b"pickle")
    return path


@pytest.fixture
def server(tiny: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.add(REPO, tiny)
        yield server


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PulledModels:
    for name in ("HF_HOME", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET", "HF_HUB_VERBOSITY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # given back after the test: a hub sets them
    return PulledModels(Home.open(tmp_path / "home"))


Pull = Callable[..., PulledModel]


@pytest.fixture
def get(server: HubServer, models: PulledModels, notes: Notes) -> Pull:
    def get(reference: str = REPO, *, name: str | None = None, token: str | None = None) -> PulledModel:
        hub = Hub(server.url, token, models.folder / ".hub", retry_s=0.01)
        parsed = Reference.parse(reference)
        return pull(hub, models, parsed, name or parsed.name, notes)

    return get


@pytest.fixture
def notes() -> Notes:
    return Notes()


def left_of(models: PulledModels, name: str = "tiny") -> list[str]:
    """The files of a broken pull."""
    return sorted(path.name for path in (models.folder / ".partial" / name).glob("*"))


def test_a_whole_pull(get: Pull, models: PulledModels, tiny: Path, notes: Notes, server: HubServer) -> None:
    model = get()
    expected = {
        "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "README.md", "LICENSE"
    }  # fmt: skip
    assert {path.name for path in model.path.iterdir()} == expected | {MANIFEST}
    assert models.list() == [model]
    assert model.path == models.folder / "tiny"
    for record in model.manifest.files:
        content = (tiny / record.name).read_bytes()
        assert (model.path / record.name).read_bytes() == content
        assert (record.size_bytes, record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert (model.manifest.source, model.manifest.revision, model.manifest.commit) == (REPO, "main", COMMIT)
    assert model.manifest.endpoint == server.url
    assert notes.lines == [f"{REPO} at {COMMIT[:12]}: 6 files, {round(model.size_bytes / 1000)} kB"]
    sizes = {record.name: record.size_bytes for record in model.manifest.files}
    assert notes.advanced == {(action, name): sizes[name] for name in sizes for action in ("pulling", "checking")}
    assert not (models.folder / ".partial" / "tiny").exists()


def test_what_is_here_is_not_pulled_again(get: Pull, server: HubServer, notes: Notes) -> None:
    first = get()
    server.seen.clear()
    assert get() == first
    assert [seen.path for seen in server.seen] == [LIST]
    assert notes.lines[-1] == f"tiny is here already, whole, at commit {COMMIT[:12]}"


def test_shards_are_pulled_with_their_index(server: HubServer, get: Pull, tmp_path: Path) -> None:
    server.add("acme/sharded", write_directory(tmp_path / "s", CONFIGS["qwen3-grouped-yarn"], shards=3))
    server.repositories["acme/sharded"]["main"][1]["consolidated.safetensors"] = b"the same again"
    names = {path.name for path in get("acme/sharded").path.iterdir()}
    assert len([name for name in names if name.endswith(".safetensors")]) == 3
    assert "model.safetensors.index.json" in names
    assert "consolidated.safetensors" not in names


def test_a_revision(server: HubServer, get: Pull, models: PulledModels, tiny: Path) -> None:
    server.add(REPO, tiny, revision="refs/pr/7", commit="b" * 40)
    model = get(f"{REPO}@refs/pr/7")
    assert (model.manifest.revision, model.manifest.commit) == ("refs/pr/7", "b" * 40)
    with pytest.raises(NotFound, match=f"{REPO}@v9: there is no such branch, tag or commit"):
        get(f"{REPO}@v9")
    assert models.find("tiny") == model


def test_a_newer_commit_takes_the_place_of_the_older(server: HubServer, get: Pull, models: PulledModels) -> None:
    get()
    files = dict(server.repositories[REPO]["main"][1], **{"README.md": b"newer"})
    del files["LICENSE"]
    server.put(REPO, files, commit="c" * 40)
    model = get()
    assert model.manifest.commit == "c" * 40
    assert (model.path / "README.md").read_text() == "newer"
    assert not (model.path / "LICENSE").exists()
    assert list((models.folder / ".replaced").iterdir()) == []


def test_a_broken_connection_goes_on_where_it_was(server: HubServer, get: Pull, notes: Notes) -> None:
    server.breaks["model.safetensors"] = [50_000, 20_000]
    get()
    ranges = [seen.headers.get("range") for seen in server.requests_for("model.safetensors")]
    assert ranges == [None, "bytes=50000-", "bytes=70000-"]


def test_a_pull_that_was_given_up_goes_on_in_the_next(
    server: HubServer, get: Pull, models: PulledModels, notes: Notes
) -> None:
    server.breaks["model.safetensors"] = [50_000] + [0] * 5
    with pytest.raises(EndpointFailed, match=r"model.safetensors of acme/tiny: .* cannot be reached or broke off"):
        get()
    assert models.list() == []
    assert notes.lines[-1] == "what has come is kept: the same command goes on from there"
    assert any(name.startswith("model.safetensors.") and name.endswith(".part") for name in left_of(models))
    server.seen.clear()
    get()
    ranges = [seen.headers.get("range") for seen in server.requests_for("model.safetensors")]
    assert ranges == ["bytes=50000-"]
    assert server.requests_for("tokenizer.json") == [], "what was whole is not pulled again"
    assert ("pulling", "model.safetensors", 50_000) in notes.begun
    assert "are here already" not in notes.lines[0]
    assert notes.lines[2].endswith("are here already")


def test_a_file_that_was_damaged_since_a_broken_pull_is_pulled_again(
    server: HubServer, get: Pull, models: PulledModels, tiny: Path
) -> None:
    server.breaks["model.safetensors"] = [0] * 5
    with pytest.raises(EndpointFailed):
        get()
    damaged = models.folder / ".partial" / "tiny" / "tokenizer.json"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert (get().path / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()


def test_a_part_of_another_content_is_not_continued(server: HubServer, get: Pull, tmp_path: Path) -> None:
    server.breaks["model.safetensors"] = [50_000] + [0] * 5
    with pytest.raises(EndpointFailed):
        get()
    other = write_directory(tmp_path / "other", CONFIGS["llama-grouped-llama3"])
    server.add(REPO, other, commit="d" * 40)
    server.seen.clear()
    model = get()
    assert [seen.headers.get("range") for seen in server.requests_for("model.safetensors")] == [None]
    assert (model.path / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert not list(model.path.glob("*.part"))


def test_a_server_that_knows_no_ranges_sends_all_again(server: HubServer, get: Pull, notes: Notes) -> None:
    server.ignores_ranges = True
    server.breaks["model.safetensors"] = [50_000]
    model = get()
    assert notes.advanced["pulling", "model.safetensors"] == (model.path / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_wrong_checksum(server: HubServer, get: Pull, models: PulledModels, name: str) -> None:
    content = bytearray(server.repositories[REPO]["main"][1][name])
    content[len(content) // 2] ^= 1
    server.served[name] = bytes(content)
    with pytest.raises(ModelFilesError, match=rf"{name}: the checksum is [0-9a-f]+, the hub lists [0-9a-f]+"):
        get()
    assert models.list() == []
    assert not any(left.startswith(name) for left in left_of(models))
    server.served.clear()
    assert get().name == "tiny"


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_size(server: HubServer, get: Pull, models: PulledModels, change: int) -> None:
    content = server.repositories[REPO]["main"][1]["model.safetensors"]
    server.served["model.safetensors"] = content[:-1] if change < 0 else content + b"x"
    expected = f"model.safetensors: the hub lists {len(content)} bytes and sends {len(content) + change}"
    with pytest.raises(ModelFilesError, match=expected):
        get()
    assert not any(left.startswith("model.") for left in left_of(models))


REFUSALS = [
    (401, {}, NotAuthenticated, r"acme/tiny@main: there is no such repository, .* if it is private, set HF_TOKEN"),
    (403, {}, NotAllowed, "acme/tiny@main may not be read"),
    (403, {"X-Error-Code": "GatedRepo"}, NotAllowed, "acme/tiny@main is gated: ask for access"),
    (404, {}, NotFound, "acme/tiny@main: not at http"),
    (429, {"Retry-After": "7"}, RateLimited, "takes no more requests for now"),
    (500, {}, EndpointFailed, "failed with status 500"),
    (418, {}, NotAllowed, "refused with status 418"),
]


@pytest.mark.parametrize(("status", "headers", "kind", "message"), REFUSALS)
def test_what_the_hub_refuses(
    server: HubServer, get: Pull, status: int, headers: dict[str, str], kind: type[ParkwayError], message: str
) -> None:
    server.statuses[LIST] = (status, headers, {"error": "so it\x1b[31m is"})
    with pytest.raises(kind, match=message) as raised:
        get()
    assert raised.type is kind
    assert raised.value.message.endswith("so it [31m is)") or "gated" in message, "no terminal codes"


@pytest.mark.parametrize(("status", "attempts"), [(401, 1), (403, 1), (404, 1), (429, 5), (500, 5)])
def test_a_file_that_is_refused(server: HubServer, get: Pull, models: PulledModels, status: int, attempts: int) -> None:
    server.statuses[WEIGHTS] = (status, {}, {"error": "no"})
    with pytest.raises(ParkwayError, match=r"model.safetensors of acme/tiny"):
        get()
    assert len([seen for seen in server.seen if seen.path == WEIGHTS]) == attempts
    assert models.list() == []
    server.statuses.clear()
    assert get().name == "tiny"


def test_a_long_wait_is_told_and_not_waited(server: HubServer, get: Pull) -> None:
    server.statuses[WEIGHTS] = (429, {"Retry-After": "3600"}, {})
    with pytest.raises(RateLimited) as raised:
        get()
    assert raised.value.retry_after_s == 3600


@pytest.mark.parametrize("body", [b"<html>hello</html>", {"sha": None}, {"sha": "../x"}, [1], {"siblings": [{}]}])
def test_a_server_that_is_no_hub(server: HubServer, get: Pull, body: object) -> None:
    server.statuses[LIST] = (200, {}, body)
    with pytest.raises(EndpointFailed, match="check"):
        get()


def test_a_hub_that_is_not_there(models: PulledModels, notes: Notes) -> None:
    hub = Hub("http://127.0.0.1:9", None, models.folder / ".hub")
    with pytest.raises(EndpointFailed, match=r"http://127.0.0.1:9 cannot be reached"):
        pull(hub, models, Reference(REPO), "tiny", notes)


def test_the_token_goes_to_the_hub_alone(server: HubServer, get: Pull, models: PulledModels, notes: Notes) -> None:
    get(token=TOKEN)
    sent = {host: {s.headers.get("authorization") for s in server.seen if s.host == host} for host in ("hub", "cdn")}
    assert sent == {"hub": {f"Bearer {TOKEN}"}, "cdn": {None}}
    assert TOKEN not in json.dumps(notes.lines)
    assert not [path for path in models.folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_without_a_token_none_is_sent(server: HubServer, get: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)  # the library would take it by itself; what the caller says counts
    get()
    assert not [seen for seen in server.seen if "authorization" in seen.headers]


def test_a_token_with_odd_characters_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Hub("https://h", f"{TOKEN}\nx", tmp_path)
    assert TOKEN not in raised.value.message


@pytest.mark.parametrize("endpoint", ["h", "ftp://h", "http://", "https://u:p@h", "https://h?x"])
def test_an_address_that_is_none(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--endpoint"):
        Hub(endpoint, None, tmp_path)


def without(server: HubServer, *names: str, **changed: object) -> None:
    """Publishes the model without some files, and with others as JSON or as they are."""
    files = {name: content for name, content in server.repositories[REPO]["main"][1].items() if name not in names}
    more = {name: value if isinstance(value, bytes) else json.dumps(value).encode() for name, value in changed.items()}
    server.put(REPO, files | more)


UNFIT = [
    (["model.safetensors"], {}, r"has only pickled weights \(pytorch_model.bin\); loading a pickle can run any code"),
    (["model.safetensors", "pytorch_model.bin"], {"m.gguf": b""}, "has weights as GGUF"),
    (["model.safetensors", "pytorch_model.bin"], {}, "has neither model.safetensors nor"),
    (["config.json"], {}, "has no config.json"),
    (["tokenizer.json"], {}, "has no tokenizer.json"),
    ([], {"config.json": {"model_type": "mamba"}}, "model_type is 'mamba'; the engine runs llama, qwen2, qwen3"),
    ([], {"config.json": {"model_type": "llama", "quantization_config": {}}}, "quantization_config is set"),
    ([], {"config.json": [1]}, "holds list; expected a JSON object"),
    ([], {"config.json": b"{"}, "cannot be read as JSON"),
    ([], {"config.json": BERT | {"hidden_act": "relu"}}, "hidden_act is 'relu'"),
    ([], {"config.json": BERT, POOLING: {"pooling_mode_cls_token": True}}, "pools by cls_token"),
    ([], {"model.safetensors.index.json": {"weight_map": {"a": "../../evil.safetensors"}}}, r"names \['../../evil"),
    ([], {"model.safetensors.index.json": {"weight_map": {"a": "b.safetensors"}}}, "'b.safetensors', which acme/tiny"),
    ([], {"model.safetensors.index.json": {"weight_map": {"a": "pytorch_model.bin"}}}, "expected .safetensors"),
    ([], {"model.safetensors.index.json": {"weight_map": 1}}, "names nothing as weights"),
]


@pytest.mark.parametrize(("gone", "changed", "message"), UNFIT)
def test_what_the_engine_cannot_run_is_refused_before_anything_is_stored(
    server: HubServer, get: Pull, models: PulledModels, gone: list[str], changed: dict[str, object], message: str
) -> None:
    without(server, *gone, **changed)
    with pytest.raises(ModelFilesError, match=message):
        get()
    assert server.requests_for("model.safetensors") == []
    assert [path for path in models.folder.rglob("*") if path.is_file()] == [models.folder / ".locks" / "tiny"]


def test_a_sentence_encoder_that_averages_is_pulled(server: HubServer, get: Pull) -> None:
    without(
        server, **{"config.json": BERT, POOLING: {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}}
    )
    assert get().name == "tiny"


def test_hostile_file_names_are_harmless(server: HubServer, get: Pull, tmp_path: Path) -> None:
    hostile = ["../../evil", "/tmp/parkway-evil", "..", "LICENSE/../../x", "LICENSE\x1b[31m", "tokenizer\\..\\x.json"]
    without(server, **dict.fromkeys([*hostile, MANIFEST, ".hidden", "sub/config.json"], b"evil"))
    before = {path for path in tmp_path.rglob("*") if "home" not in path.parts}
    model = get()
    assert {path.name for path in model.path.iterdir()} == {record.name for record in model.manifest.files} | {MANIFEST}
    assert not any(b"evil" in path.read_bytes() for path in model.path.iterdir())
    assert {path for path in tmp_path.rglob("*") if "home" not in path.parts} == before
    assert not Path("/tmp/parkway-evil").exists()


@pytest.mark.parametrize(
    "entry",
    [
        {"lfs": {"size": -1, "sha256": "0" * 64, "pointerSize": 1}},
        {"lfs": {"size": 1, "sha256": "x", "pointerSize": 1}},
    ],
)
def test_a_listing_that_does_not_say_enough(server: HubServer, get: Pull, entry: dict[str, object]) -> None:
    server.listing["model.safetensors"] = entry
    without(server, "pytorch_model.bin")
    with pytest.raises(ModelFilesError, match=r"neither model.safetensors"):
        get()


def test_a_config_that_is_far_too_long_is_not_read(server: HubServer, get: Pull) -> None:
    server.listing["config.json"] = {"size": 10**12}
    with pytest.raises(ModelFilesError, match="at most"):
        get()
    assert server.requests_for("config.json") == []


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", ".x", "-x", "a\0b", "a b", "x" * 129, "..", "."])
def test_a_name_with_path_tricks_is_refused(get: Pull, server: HubServer, tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InvalidRequest, match="cannot be the name of a pulled model"):
        get(name=name)
    assert server.seen == []
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "../x",
        "a/../b",
        "/a/b",
        "a/b/c",
        "a/b@",
        "a/b@x y",
        "a/b\n",
        "a--b/c",
        "a/b@\x1b",
        "https://h/a/b",
    ],
)
def test_a_reference_that_is_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected OWNER/NAME"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Qwen/Qwen3-0.6B", ("Qwen/Qwen3-0.6B", "main", "Qwen3-0.6B")),
        ("a/b_c.d@refs/pr/7", ("a/b_c.d", "refs/pr/7", "b_c.d")),
    ],
)
def test_a_reference(text: str, expected: tuple[str, str, str]) -> None:
    reference = Reference.parse(text)
    assert (reference.repo_id, reference.revision, reference.name) == expected


def test_a_name_that_is_taken(server: HubServer, get: Pull, models: PulledModels, tiny: Path) -> None:
    with pytest.raises(Conflict, match='"park-mini" is a built-in model'):
        get(name="park-mini")
    first = get(name="mine")
    server.add("other/tiny", tiny)
    with pytest.raises(Conflict, match=f'"mine" is here already, from {REPO}'):
        get("other/tiny", name="mine")
    assert models.list() == [first]
    own = models.folder / "own"
    own.mkdir()
    (own / "config.json").write_text("{}")
    with pytest.raises(Conflict, match="was not pulled"):
        get(name="own")
    assert (own / "config.json").exists()


def test_a_disk_without_enough_room_is_refused_first(
    small_disk: Path, server: HubServer, tiny: Path, notes: Notes, models: PulledModels
) -> None:
    without(server, **{"README.md": b"x" * 1_500_000})
    small = PulledModels(Home.open(small_disk / "home"))
    hub = Hub(server.url, None, small.folder / ".hub", retry_s=0.01)
    with pytest.raises(StartupError, match=r"MB are to come, and the disk of .* has 2.1 MB free, of which 1.0 MB"):
        pull(hub, small, Reference(REPO), "tiny", notes)
    assert server.requests_for("model.safetensors") == []
    assert list((small.folder / ".partial").iterdir()) == []


def test_a_disk_that_fills_up_keeps_what_has_come(
    small_disk: Path, server: HubServer, notes: Notes, models: PulledModels
) -> None:
    small = PulledModels(Home.open(small_disk / "home"))
    hub = Hub(server.url, None, small.folder / ".hub", retry_s=0.01)
    filler = small_disk / "filler"

    def fill(action: str, file: RemoteFile, have_bytes: int) -> None:
        Notes.begin(notes, action, file, have_bytes)
        if (action, file.name) == ("pulling", "model.safetensors") and not filler.exists():
            # Somebody else writes in the meantime, and leaves 100 kB.
            stat = os.statvfs(small_disk)
            filler.write_bytes(b"x" * (stat.f_bavail * stat.f_frsize - 102_400))

    notes.begin = fill  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(StartupError, match=r"the disk of .* is full.* what has come is kept"):
        pull(hub, small, Reference(REPO), "tiny", notes)
    (part,) = (small.folder / ".partial" / "tiny").glob("model.safetensors.*.part")
    assert 50_000 < part.stat().st_size <= 102_400
    kept = part.stat().st_size
    filler.write_bytes(b"")
    server.seen.clear()
    model = pull(hub, small, Reference(REPO), "tiny", notes)
    assert [seen.headers.get("range") for seen in server.requests_for("model.safetensors")] == [f"bytes={kept}-"]
    assert small.list() == [model]
