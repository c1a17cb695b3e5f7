"""The way in to a remote shard: from the cache folder where there is one, else straight from where it is."""

from __future__ import annotations

from functools import partial

from ebmkit.data.remote.access import Access
from ebmkit.data.remote.folder import Unkept
from ebmkit.data.remote.keeping import kept
from ebmkit.data.remote.retrying import RemoteBytes
from ebmkit.data.tail import Readable
from ebmkit.data.tally import Tally


def open_remote(shard: str, access: Access, tally: Tally) -> Readable:
    """The bytes of the shard; `DataError` where it cannot be fetched."""
    fetch = partial(RemoteBytes, shard, access, partial(tally.retry, shard))
    if access.cache is not None:
        try:
            return kept(shard, access.cache, 2 * access.timeout, fetch)
        except Unkept as error:
            tally.unkept(shard, str(error))
    return fetch()
