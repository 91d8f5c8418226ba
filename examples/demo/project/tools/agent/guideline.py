"""Reads the credential, fetches the team's guideline with it, and checks what the network refuses."""

import errno
import json
import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass

SIZE_LIMIT = 64 << 10
SECONDS = 20
UNLISTED = "unlisted.example.com"


class Refused(Exception):
    """Something that the agent needs was not given to it."""


class Reached(Exception):
    """Something that has to be refused was not, or not in the way in which a sandbox refuses it."""


@dataclass
class Guideline:
    """What the team asks of whoever repairs its code."""

    name: str
    may_change: list
    subject_prefix: str
    trailer: str
    most_edits: int


def credential(name):
    """The token, from the file that the launcher delivers."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise Refused("CREDENTIALS_DIRECTORY is not set: this program is meant to run in a sandbox")
    with open(os.path.join(folder, name), encoding="ascii") as file:
        token = file.read(1000).strip()
    if not token:
        raise Refused(f"the credential {name} is empty")
    return token


def fetch(url, token):
    """The guideline; urllib takes the proxy from the environment, as any program does."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            text = answer.read(SIZE_LIMIT + 1)
    except urllib.error.HTTPError as error:
        raise Refused(f"{url} answered {error.code}: {error.read(300).decode(errors='replace').strip()}") from error
    except OSError as error:
        raise Refused(f"{url} cannot be fetched: {error}") from error
    if len(text) > SIZE_LIMIT:
        raise Refused(f"{url} is larger than {SIZE_LIMIT} bytes")
    return parse(text)


def parse(text):
    """Checks every field: what comes from a network is not trusted, not even here."""
    try:
        value = json.loads(text)
        guideline = Guideline(
            name=_line(value["name"]),
            may_change=[_folder(item) for item in value["may_change"]],
            subject_prefix=_line(value["subject_prefix"]),
            trailer=_line(value["trailer"]),
            most_edits=int(value["most_edits"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"the guideline is not of the expected form: {error}") from error
    if not guideline.may_change or not 1 <= guideline.most_edits <= 8:
        raise Refused("the guideline allows no change, or too many")
    return guideline


def _line(value):
    if not isinstance(value, str) or not value.isprintable() or len(value) > 100:
        raise ValueError("a text is not one short line")
    return value


def _folder(value):
    if not isinstance(value, str) or not value.isidentifier():
        raise ValueError("a folder is not a plain name")
    return value


def refusals(allowed_url, closed_url, token_file):
    """Tries what this sandbox must not allow and yields, for each, what was tried and how it was refused.

    Each has to fail in its own way: an error that could as well be a broken network proves nothing.
    """
    unlisted = f"http://{UNLISTED}/"
    yield f"GET {unlisted}, a host that sandbox.yaml does not name", _proxy_refusal(unlisted)
    yield f"GET {closed_url}, the same address on a port that it does not name", _proxy_refusal(closed_url)
    yield "the allowed address without the proxy", _no_route(allowed_url)
    yield f"looking up {UNLISTED}", _no_name(UNLISTED)
    yield f"writing to {token_file}", _read_only(token_file)


def _proxy_refusal(url):
    try:
        urllib.request.urlopen(url, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 403:
            return f"403: {_reason(error.read(2000))}"
        raise Reached(f"{url} answered {error.code}, and 403 was due") from error
    except OSError as error:
        raise Reached(f"{url} failed with {error}, and 403 was due") from error
    raise Reached(f"{url} answered")


def _reason(text):
    """The proxy's reason: it answers with a JSON document whose `error` is for people."""
    try:
        line = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        line = text.decode(errors="replace").strip().split("\n")[0]
    return "".join(character for character in line if character.isprintable()) or "forbidden"


def _no_route(url):
    address = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port or 80), timeout=SECONDS).close()
    except OSError as error:
        if error.errno == errno.ENETUNREACH:
            return "network is unreachable: there is no interface but loopback"
        raise Reached(f"a direct connection failed with {error}, and ENETUNREACH was due") from error
    raise Reached("a direct connection was made")


def _no_name(name):
    try:
        socket.getaddrinfo(name, 80)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return "no such name"
        raise Reached(f"the lookup failed with {error}, and NXDOMAIN was due") from error
    raise Reached(f"{name} has an address")


def _read_only(path):
    try:
        with open(path, "a", encoding="ascii"):
            pass
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES):
            return os.strerror(error.errno).lower()
        raise Reached(f"writing failed with {error}, and EROFS was due") from error
    raise Reached(f"{path} can be written")
