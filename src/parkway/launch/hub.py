"""The Hugging Face hub, or a server that speaks its protocol: what a repository holds, and its files.

Of the client library only the listing, the session and the errors are used. Its own downloads begin anew in every
process, check no hash, and prefer a storage protocol of their own.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from parkway.core.errors import (
    ConfigurationError,
    EndpointFailed,
    ModelFilesError,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    ParkwayError,
    RateLimited,
)
from parkway.store.models import readable_bytes

DEFAULT_ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 30.0  # for a connection, and for the next bytes of an answer
RETRIES = 5  # connections in a row that bring nothing
LONGEST_WAIT_S = 60.0

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})

Advance = Callable[[int], None]
"""Is told how many bytes have come; a negative number if bytes that had come have to come again."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository, and how to know that it arrived.

    Attributes:
        digest: In hexadecimal: the SHA-256 of the content, or, of 40 digits, git's SHA-1 of it.
    """

    name: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Repository:
    """What a repository holds at one commit."""

    repo_id: str
    commit: str
    files: Mapping[str, RemoteFile]


class Hub:
    """A client of one hub.

    Args:
        endpoint: Its URL.
        token: Sent to the hub and to nobody else; redirects to other hosts go without it.
        folder: Where the client library may write.
        retry_s: The first wait before a broken download goes on; it doubles with each in vain.

    Raises:
        ConfigurationError: The URL is none, or the token cannot be one.
    """

    def __init__(self, endpoint: str, token: str | None, folder: Path, *, retry_s: float = 1.0) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ConfigurationError(
                f"the hub's address is {endpoint!r}; expected an http:// or https:// URL: --endpoint, or HF_ENDPOINT"
            )
        if token is not None and not re.fullmatch(r"[!-~]+", token):
            raise ConfigurationError("HF_TOKEN holds characters that no token has; set it to the token alone")
        self.endpoint = endpoint.rstrip("/")
        self._token = token
        self._retry_s = retry_s
        # Read by the library when it is first imported, so nothing in this file imports it at the top.
        os.environ["HF_HOME"] = str(folder)
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        os.environ["HF_HUB_DISABLE_XET"] = "1"
        os.environ["HF_HUB_VERBOSITY"] = "error"

    def repository(self, repo_id: str, revision: str) -> Repository:
        """What the repository holds at `revision`: a branch, a tag or a commit.

        Files without a size or a digest are left out, for nobody could tell whether they arrived.

        Raises:
            ParkwayError: There is no such thing, it may not be read, or the hub does not answer.
        """
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.endpoint, token=self._token or False)
        what = f"{repo_id}@{revision}"
        try:
            with self._explained(what):
                info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
            files = [_remote_file(sibling) for sibling in info.siblings or []]
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # the library reads answers with trust
            raise EndpointFailed(f"{what}: {self.endpoint} does not answer as a hub does; check the address") from error
        commit = str(info.sha)
        if _COMMIT.fullmatch(commit) is None:
            raise EndpointFailed(f"{what}: {self.endpoint} names no commit; check that it is the address of a hub")
        return Repository(repo_id, commit, {file.name: file for file in files if file is not None})

    def read(self, repository: Repository, file: RemoteFile, limit_bytes: int) -> bytes:
        """A small file, checked.

        Raises:
            ModelFilesError: It is longer than `limit_bytes`, or is not what the hub lists.
        """
        if file.size_bytes > limit_bytes:
            raise ModelFilesError(
                f"{file.name} of {repository.repo_id} has {readable_bytes(file.size_bytes)}; "
                f"at most {readable_bytes(limit_bytes)} are read of it"
            )
        content = io.BytesIO()
        self.download(repository, file, content, lambda _: None)
        content.seek(0)
        check(file, content)
        return content.getvalue()

    def download(self, repository: Repository, file: RemoteFile, out: BinaryIO, advance: Advance) -> None:
        """Appends to `out` what it lacks of the file, over as many connections as that takes. Checks only the size.

        Raises:
            ModelFilesError: The hub sends more or less than it lists.
            ParkwayError: The file may not be read, or several connections in a row brought nothing.
            OSError: `out` cannot be written.
        """
        in_vain = 0
        while (have := out.tell()) < file.size_bytes:
            wait_s = min(self._retry_s * 2**in_vain, LONGEST_WAIT_S)
            try:
                with self._explained(f"{file.name} of {repository.repo_id}"):
                    self._receive(self._url(repository, file), file, out, advance)
                problem: ParkwayError = EndpointFailed(f"{file.name}: the connection ended {_progress(out, file)}")
            except (EndpointFailed, RateLimited) as error:
                problem = error
                wait_s = max(wait_s, error.retry_after_s or 0.0)
            if out.tell() >= file.size_bytes:
                return
            in_vain = 0 if out.tell() > have else in_vain + 1
            if in_vain == RETRIES or wait_s > LONGEST_WAIT_S:
                raise problem
            time.sleep(wait_s)

    def _url(self, repository: Repository, file: RemoteFile) -> str:
        return f"{self.endpoint}/{repository.repo_id}/resolve/{repository.commit}/{quote(file.name)}"

    def _receive(self, url: str, file: RemoteFile, out: BinaryIO, advance: Advance) -> None:
        """One connection."""
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        have = out.tell()
        headers = build_hf_headers(token=self._token or False, library_name="parkway")
        headers["Accept-Encoding"] = "identity"  # a range counts the bytes of the file, not of a compressed one
        if have:
            headers["Range"] = f"bytes={have}-"
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
            if response.status_code == 416:
                raise _wrong_size(file, f"only {have}")
            hf_raise_for_status(response)
            if have and response.status_code != 206:
                # The server sends all of it again.
                out.seek(0)
                out.truncate()
                advance(-have)
            told = _told_size(response.status_code, response.headers)
            if told not in (None, file.size_bytes):
                raise _wrong_size(file, str(told))
            for chunk in response.iter_bytes():
                if out.tell() + len(chunk) > file.size_bytes:
                    raise _wrong_size(file, "more")
                out.write(chunk)
                advance(len(chunk))

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns the library's errors into ours."""
        import httpx2
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError

        try:
            yield
        except GatedRepoError as error:
            raise NotAllowed(
                f"{what} is gated: ask for access on its page at {self.endpoint}, and set HF_TOKEN to a token of the "
                "account that has it"
            ) from error
        except RevisionNotFoundError as error:
            raise NotFound(f"{what}: there is no such branch, tag or commit at {self.endpoint}") from error
        except HfHubHTTPError as error:
            raise self._refusal(what, error) from error
        except OfflineModeIsEnabled as error:
            raise ConfigurationError("HF_HUB_OFFLINE is set: nothing is asked of a hub; unset it to pull") from error
        except httpx2.HTTPError as error:
            reason = printable(str(error)) or type(error).__name__
            raise EndpointFailed(f"{what}: {self.endpoint} cannot be reached or broke off: {reason}") from error

    def _refusal(self, what: str, error: Any) -> ParkwayError:
        """What an HTTP status of the hub means; `error` is the library's `HfHubHTTPError`."""
        status: int = error.response.status_code
        said = printable(error.server_message or "")
        said = f" ({said})" if said else ""
        token = "HF_TOKEN is set and may lack access" if self._token else "if it is private, set HF_TOKEN"
        if status == 401:
            return NotAuthenticated(f"{what}: there is no such repository, or it may not be read; {token}{said}")
        if status == 403:
            return NotAllowed(f"{what} may not be read; {token}{said}")
        if status == 404:
            return NotFound(f"{what}: not at {self.endpoint}; check the name, and {token}{said}")
        if status == 429:
            wait = error.response.headers.get("Retry-After", "")
            return RateLimited(
                f"{what}: {self.endpoint} takes no more requests for now; try again later{said}",
                retry_after_s=float(wait) if wait.isdecimal() else None,
            )
        if status in _RETRIED:
            return EndpointFailed(f"{what}: {self.endpoint} failed with status {status}; try again later{said}")
        return NotAllowed(f"{what}: {self.endpoint} refused with status {status}{said}")


def check(file: RemoteFile, content: BinaryIO, advance: Advance = lambda _: None) -> str:
    """Reads the content and compares it with what the hub lists. Returns its SHA-256.

    Raises:
        ModelFilesError: It is something else.
    """
    sha256 = hashlib.sha256()
    git = hashlib.sha1(f"blob {file.size_bytes}\0".encode(), usedforsecurity=False)
    count = 0
    while chunk := content.read(1 << 20):
        count += len(chunk)
        sha256.update(chunk)
        if len(file.digest) == 40:
            git.update(chunk)
        advance(len(chunk))
    if count != file.size_bytes:
        raise _wrong_size(file, str(count))
    found = git.hexdigest() if len(file.digest) == 40 else sha256.hexdigest()
    if found != file.digest:
        raise ModelFilesError(
            f"{file.name}: the checksum is {found}, the hub lists {file.digest}; what came is deleted: pull again"
        )
    return sha256.hexdigest()


def printable(text: str) -> str:
    """One short line of what a server said, without anything that a terminal would interpret."""
    return "".join(char if char.isprintable() else " " for char in text[:300]).strip()


def _remote_file(sibling: Any) -> RemoteFile | None:
    """One entry of the listing; None if it does not say enough."""
    size = sibling.lfs.size if sibling.lfs else sibling.size
    digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    known = _SHA256 if sibling.lfs else _COMMIT
    if not isinstance(size, int) or size < 0 or not isinstance(digest, str) or known.fullmatch(digest) is None:
        return None
    return RemoteFile(str(sibling.rfilename), size, digest)


def _told_size(status: int, headers: Mapping[str, str]) -> int | None:
    """How long the answer says that the whole file is."""
    if "Content-Encoding" in headers:
        return None
    told = headers.get("Content-Range", "").rpartition("/")[2] if status == 206 else headers.get("Content-Length", "")
    return int(told) if told.isdecimal() else None


def _wrong_size(file: RemoteFile, found: str) -> ModelFilesError:
    return ModelFilesError(
        f"{file.name}: the hub lists {file.size_bytes} bytes and sends {found}; what came is deleted: pull again, "
        "and if it happens again tell whoever publishes the model"
    )


def _progress(out: BinaryIO, file: RemoteFile) -> str:
    return f"after {readable_bytes(out.tell())} of {readable_bytes(file.size_bytes)}"
