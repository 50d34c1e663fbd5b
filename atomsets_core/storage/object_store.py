"""S3 and whatever speaks its protocol, through Arrow's own client, which comes with pyarrow.

Where and who: the environment variables that all AWS tools know (`AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`,
`AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_PROFILE`),
~/.aws, or the role of the machine or pod. Nothing of it stands in a URL, which is kept with a campaign and shown.
"""

from __future__ import annotations

import functools
import os
from typing import Any
from urllib.parse import urlsplit

from fsspec.spec import AbstractFileSystem

SCHEME = "s3://"


class ObjectStoreError(Exception):
    """A URL or an environment with which an object store can't be reached; the message says what to change."""


def open_s3(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system behind an s3:// URL, and the path in it, bucket first.

    Raises:
        ObjectStoreError: no bucket in the URL, something in it that doesn't belong there, or an unusable endpoint.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or "@" in parts.netloc:
        raise ObjectStoreError(
            "an s3:// URL holds bucket and folder and nothing else: keys go into AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, the server into AWS_ENDPOINT_URL"
        )
    if not parts.netloc:
        raise ObjectStoreError(f"{url}: no bucket; write it as s3://bucket/folder")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    return _file_system(endpoint, region, "" if endpoint or region else parts.netloc), parts.netloc + parts.path


@functools.lru_cache
def _file_system(endpoint: str, region: str, bucket: str) -> AbstractFileSystem:
    """One client for each server; `bucket` is named where Amazon has to be asked for its region."""
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem, resolve_s3_region

    options: dict[str, Any] = {}
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ObjectStoreError(f"AWS_ENDPOINT_URL is {endpoint!r}, no address: it begins with https://")
        # a server of one's own has no regions, but a request must be signed for one
        options = {"endpoint_override": parts.netloc, "scheme": parts.scheme, "region": region or "us-east-1"}
    elif region:
        options = {"region": region}
    else:
        options = {"region": resolve_s3_region(bucket)}
    return ArrowFSWrapper(S3FileSystem(**options), skip_instance_cache=True)


_SAID = (
    (
        ("NO_SUCH_BUCKET", "bucket does not exist", "Bucket not found"),
        "there is no such bucket: make it, or check its name",
    ),
    (
        ("NETWORK_CONNECTION", "Could not connect", "Couldn't resolve host", "timed out", "curlCode"),
        "no object store answers there: check AWS_ENDPOINT_URL and the network",
    ),
    (
        ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "No credentials", "EXPIRED_TOKEN"),
        "the object store denies access: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do",
    ),
)


def told_by_server(text: str) -> str:
    """What Arrow's client says of an object store, in a sentence; "" where it isn't known."""
    return next((told for words, told in _SAID if any(word in text for word in words)), "")
