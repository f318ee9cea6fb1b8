"""Videos that come by HTTP as a whole file: they are fetched once, and then read like any other file."""

from __future__ import annotations

import atexit
import base64
import functools
import http.client
import re
import shutil
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from activity.errors import VideoError
from activity.progress import progress_bar

_HEAD_SECONDS = 1.0  # waited for a server that may know no more than one connection
_READ_SECONDS = 30.0
_BLOCK = 1 << 20
_lock = threading.Lock()  # guards the next two
_fetched: dict[str, Path] = {}  # URL without its password -> file
_folder: list[Path] = []  # one, for the files of this process


def without_password(source: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"://[^/@]*@", "://", source)


@functools.cache
def is_http_file(source: str) -> bool:
    """Whether it is a URL of which the server says how many bytes it has, and that is no playlist: no live stream."""
    if not source.lower().startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(_request(source, "HEAD"), timeout=_HEAD_SECONDS) as answer:
            return bool(answer.headers["Content-Length"]) and "mpegurl" not in answer.headers.get_content_type()
    except (OSError, ValueError, http.client.HTTPException):
        return False


def local_path(source: str | Path) -> Path:
    """Where a source can be read: its path or, of a URL of a file, that of a copy, which lasts as long as the process.

    Raises:
        VideoError: the file cannot be fetched as a whole.
    """
    if isinstance(source, Path) or (without_password(source) not in _fetched and not is_http_file(source)):
        return Path(source)
    name = without_password(source)
    with _lock:
        if name in _fetched:
            return _fetched[name]
        if not _folder:
            _folder.append(Path(tempfile.mkdtemp(prefix="activity-")))
            atexit.register(shutil.rmtree, _folder[0], ignore_errors=True)
        suffix = re.sub(r"[^.\w]", "", Path(urlsplit(source).path).suffix)[:8]
        path = _folder[0] / f"{len(_fetched)}{suffix}"
        _fetch(source, path, name)
        _fetched[name] = path
        return path


def _fetch(source: str, path: Path, name: str) -> None:
    try:
        with urllib.request.urlopen(_request(source, "GET"), timeout=_READ_SECONDS) as answer, path.open("wb") as file:
            length = int(answer.headers["Content-Length"] or 0)
            with progress_bar(total=length or None, desc=f"fetching {name}", unit="B", unit_scale=True) as bar:
                while block := answer.read(_BLOCK):
                    bar.update(file.write(block))
            if file.tell() < length:
                raise VideoError(f"only {file.tell()} of {length} bytes came", path=name)
    except (OSError, ValueError, http.client.HTTPException) as error:
        path.unlink(missing_ok=True)
        raise VideoError(f"cannot be fetched: {getattr(error, 'reason', None) or error}", path=name) from error


def _request(source: str, method: str) -> Any:
    request = urllib.request.Request(without_password(source), method=method)
    parts = urlsplit(source)
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    return request
