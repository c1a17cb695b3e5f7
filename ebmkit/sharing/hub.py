"""The Hugging Face hub, through huggingface_hub: one safetensors file is fetched, four files are pushed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ebmkit.errors import BadInput, EbmkitError
from ebmkit.sharing import FILES, MODEL

_PLACE = re.compile(r"hf:(?://?)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?\Z", re.ASCII)
PREFIX = "hf:"


class HubPlace(NamedTuple):
    """A repository on the hub, and the branch, tag or commit that is meant (by default its main branch)."""

    repo: str
    revision: str | None


class HubFailed(EbmkitError):
    """The hub cannot be reached or refused."""


def find_place(text: str) -> HubPlace | None:
    """The place that `hf://owner/name`, `hf://owner/name@revision` or `hf:owner/name` means; None for a file's path.

    Raises `BadInput` for any other text that begins with `hf:`.
    """
    if not text.startswith(PREFIX):
        return None
    match = _PLACE.match(text)
    if match is None:
        raise BadInput(f"{text}: write hf://owner/name, or hf://owner/name@revision")
    return HubPlace(match["repo"], match["revision"])


def fetch_model(place: HubPlace) -> Path:
    """The model file of a repository, fetched into the hub's own cache, or found there; no other file is fetched.

    Raises `BadInput` where there is none, `HubFailed` where the hub cannot be reached and nothing is in the cache.
    """
    hub = _library()
    with _explained(hub, f"hf://{place.repo}{f'@{place.revision}' if place.revision else ''}"):
        return Path(hub.hf_hub_download(place.repo, MODEL, revision=place.revision))


def push(
    folder: str | Path, repo: str, public: bool = False, revision: str | None = None, message: str | None = None
) -> str:
    """Upload the folder that `export_folder` wrote, in one commit; returns the commit's address.

    A repository that is not there is made, private unless `public`. Raises `BadInput` for a folder that is not whole
    and for what the hub refuses, `HubFailed` where it cannot be reached.
    """
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise BadInput(
            f"{folder}: has no {', '.join(missing)}; `ebmkit export RUN --out FOLDER` writes a folder to be pushed"
        )
    place = find_place(repo if repo.startswith(PREFIX) else PREFIX + repo)
    if place is None or place.revision is not None:
        raise BadInput(f"{repo}: name the repository as owner/name, and a branch by --revision")
    from ebmkit.model import load_model

    # What does not load here would load nowhere.
    steps = load_model(folder / MODEL, "cpu").metadata.get("steps")
    hub = _library()
    with _explained(hub, f"hf://{place.repo}"):
        client = hub.HfApi(library_name="ebmkit")
        client.create_repo(place.repo, private=not public, exist_ok=True)
        if revision is not None:
            client.create_branch(place.repo, branch=revision, exist_ok=True)
        done = client.upload_folder(
            repo_id=place.repo,
            folder_path=folder,
            allow_patterns=list(FILES),
            revision=revision,
            commit_message=message or f"ebmkit model, step {steps}",
        )
    return str(done.commit_url)


def _library() -> Any:
    try:
        import huggingface_hub.errors
    except ImportError as error:
        raise BadInput("the Hugging Face hub needs huggingface_hub: pip install 'ebmkit[hub]'") from error
    return huggingface_hub


@contextmanager
def _explained(hub: Any, place: str) -> Iterator[None]:
    """Errors of the hub for people, without the token."""
    errors = hub.errors
    unreachable: tuple[type[Exception], ...] = (OSError, *_transport_errors())
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        # The library's own sentence is right for a missing file, and hides why the hub was not reached.
        raise HubFailed(_clean(hub, f"{place}: the hub cannot be reached, and {MODEL} is not in its cache")) from error
    except errors.EntryNotFoundError as error:
        raise BadInput(f"{place}: has no {MODEL}; it is no model that ebmkit pushed") from error
    except errors.RevisionNotFoundError as error:
        raise BadInput(f"{place}: has no such revision") from error
    except errors.GatedRepoError as error:
        raise BadInput(f"{place}: asks for consent to its terms first; give it on the hub's page") from error
    except errors.RepositoryNotFoundError as error:
        raise BadInput(
            f"{place}: there is no such repository, or it is private; `hf auth login` or HF_TOKEN gives access"
        ) from error
    except errors.HFValidationError as error:
        raise BadInput(_clean(hub, f"{place}: {_first_line(error)}")) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise BadInput(
                f"{place}: the hub refuses (HTTP {status}); `hf auth login` or HF_TOKEN gives access, and pushing "
                "needs a token that may write"
            ) from error
        raise HubFailed(_clean(hub, f"{place}: {_first_line(error)}")) from error
    except unreachable as error:
        raise HubFailed(_clean(hub, f"{place}: the hub cannot be reached: {_first_line(error)}")) from error


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the HTTP library under huggingface_hub raises; requests' own are OSErrors."""
    found = (getattr(sys.modules.get(name), "HTTPError", None) for name in ("httpx", "httpx2"))
    return tuple(kind for kind in found if kind is not None)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _clean(hub: Any, message: str) -> str:
    token = hub.get_token()
    return message.replace(token, "***") if token else message
