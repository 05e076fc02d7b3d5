"""Files on the Hugging Face hub, fetched by huggingface_hub: its cache, endpoint, offline mode and tokens all apply."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import NoReturn, TypeVar

import huggingface_hub
from huggingface_hub import constants, errors

from peft_inspect.internals import find
from peft_inspect.load.quiet import quiet
from peft_inspect.load.words import closest
from peft_inspect.records import InspectionError, text_of

T = TypeVar("T")
_ADAPTER = "adapter_config.json"
_PROCESSOR_FILES = ("*token*", "vocab*", "merges.txt", "*.model", "*processor*.json", "chat_template*")


_SMALL, _LARGE = 60, 3600  # seconds for a file of a few kilobytes, and for weights


def _deadline(file: str) -> float:
    return _SMALL if file.endswith(".json") else _LARGE


def _within(seconds: float, fetch: Callable[[], T]) -> T:
    """What `fetch` returns. huggingface_hub waits so long for each byte, and a hub may send one now and then for ever.

    Raises:
        TimeoutError: it took longer; what fetches is left behind and ends with the process.
        Exception: what `fetch` raised.
    """
    came: list[Callable[[], T]] = []

    def run() -> None:
        try:
            value = fetch()
        except BaseException as error:
            came.append(partial(_raise, error))
        else:
            came.append(lambda: value)

    fetching = Thread(target=run, daemon=True)
    fetching.start()
    fetching.join(seconds)
    if not came:
        raise TimeoutError(f"it was not complete after {seconds:g} seconds")
    return came[0]()


def _raise(error: BaseException) -> NoReturn:
    raise error


class Repository:
    """A model repository on the hub."""

    def __init__(self, repo: str, revision: str | None = None) -> None:
        self.repo = repo
        self.revision = revision
        self._trouble: Exception | None = None  # why the hub does not give the files

    @property
    def name(self) -> str:
        """The id, with its revision where one was named."""
        return f"{self.repo}@{self.revision}" if self.revision else self.repo

    def find(self, file: str) -> Path | None:
        """The file in the cache, fetched first where the hub gives it."""
        if not self._exists(file):
            return None
        try:
            with quiet():
                # Once the hub has failed it is not asked again: the cache may still hold the file.
                fetch = partial(huggingface_hub.hf_hub_download, revision=self.revision, local_files_only=self._trouble is not None)
                return Path(_within(_deadline(file), partial(fetch, self.repo, file)))
        except Exception as error:  # an HTTP client's errors are its own, and change with its version
            self._trouble = self._trouble or error
            return None

    def _exists(self, file: str) -> bool:
        """Whether the hub has the file, or might have it; asked once and briefly, since the download would retry for minutes."""
        if self._trouble is not None or _is_offline():
            return True
        try:
            with quiet():
                url = huggingface_hub.hf_hub_url(self.repo, file, revision=self.revision)
                ask = partial(huggingface_hub.get_hf_file_metadata, url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
                _within(_SMALL, ask)
        except errors.EntryNotFoundError:
            return False
        except Exception as error:  # as above
            self._trouble = error
        return True

    def absent(self, file: str) -> str:
        """Why `file` was not found: what the hub answered, or that it has none."""
        return str(self._error(self._trouble, file)) if self._trouble else f"{self.name} on the hub has no {file}"

    def notes(self) -> tuple[str, ...]:
        """That the files may be old, where the hub failed and nobody asked to do without it."""
        if self._trouble is None or _is_offline():
            return ()
        return (f"{self.name} is read from the cache, where it may be older than on the hub, which failed",)

    def checkpoint(self) -> Path:
        """The folder with config and safetensors files, fetched first."""
        return self._snapshot(["*.json", "*.safetensors"])

    def processor(self) -> Path:
        """The folder with tokenizer and processor files, fetched first."""
        return self._snapshot(list(_PROCESSOR_FILES))

    def _snapshot(self, patterns: list[str]) -> Path:
        try:
            with quiet():
                return Path(
                    huggingface_hub.snapshot_download(self.repo, revision=self.revision, allow_patterns=patterns, ignore_patterns=["*/*"])
                )
        except Exception as error:  # as above
            raise self._error(error, "its files") from error

    def _error(self, error: Exception, file: str) -> InspectionError:
        """What went wrong, in words that say what to do."""
        token = huggingface_hub.get_token()
        if isinstance(error, errors.GatedRepoError):
            how = "the account of your token has no access yet" if token else "log in with `hf auth login` or set HF_TOKEN"
            return InspectionError(f"{self.name} is gated: accept its conditions on {constants.ENDPOINT}/{self.repo}; {how}")
        if isinstance(error, errors.RepositoryNotFoundError):
            return InspectionError(
                f"there is no folder {self.repo} here, and the hub has no model {self.repo!r}{self._other_meaning(file)}, "
                f"or it is private and {_without_access(token)}"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return InspectionError(f"{self.repo} on the hub has no revision {self.revision!r}: give a branch, a tag or a commit")
        if isinstance(error, errors.HFValidationError):
            return InspectionError(f"{self.repo!r} is no hub id: {error}")
        if _is_offline() or isinstance(error, errors.OfflineModeIsEnabled):
            return InspectionError(
                f"{file} of {self.name} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to fetch it; "
                "arch:TYPE needs no files"
            )
        if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
            return InspectionError(
                f"{constants.ENDPOINT} answers {error.response.status_code} for {file} of {self.name}{_meaning(error, token)}"
            )
        cause = error.__cause__ or error
        reason = text_of(cause)
        offline = "" if file == _ADAPTER else f"; arch:TYPE works without a network{self._other_meaning(file)}"
        return InspectionError(
            f"there is no folder {self.repo} here, and {file} of {self.name} could not be fetched from {constants.ENDPOINT} ({reason}): "
            f"check the name, the network, HF_ENDPOINT and proxies{offline}"
        )

    def _other_meaning(self, file: str) -> str:
        """A bare name that is no model may be a model type or a misspelt file."""
        from transformers import CONFIG_MAPPING

        if file == _ADAPTER:
            return ""

        types = closest(self.repo, CONFIG_MAPPING.keys(), limit=1) if "/" not in self.repo else []
        return f" (did you mean arch:{types[0]}?)" if types else ""


def _is_offline() -> bool:
    asked = find("is_offline_mode")
    return bool(asked() if asked else constants.HF_HUB_OFFLINE)


def _without_access(token: str | None) -> str:
    return "your token may not read it" if token else "you are not logged in (`hf auth login`, or HF_TOKEN)"


def _meaning(error: errors.HfHubHTTPError, token: str | None) -> str:
    if error.response.status_code in (401, 403):
        return ": your token is not valid there" if token else ": log in with `hf auth login` or set HF_TOKEN"
    return ": try again later"
