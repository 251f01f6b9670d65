"""Which spool the settings ask for, and where its records may go."""

from __future__ import annotations

from pathlib import Path

import pytest

from kwai_middleware._delivery.destination import destination_of
from kwai_middleware._delivery.disk.bounds import Bounds
from kwai_middleware._delivery.fallback import FallbackSpool
from kwai_middleware._delivery.memory import ROW_OVERHEAD, MemorySpool
from kwai_middleware._delivery.spools import bounds_for, spool_for
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from tests.support.spooling import names, record, records

URL = "https://logs.example/api"


def test_a_destination_is_an_account_at_an_api() -> None:
    """The same key at the same address is the same one; and it says nothing of the key."""
    here = destination_of(URL, Secret("key-one"))
    assert here == destination_of(URL, Secret("key-one"))
    others = {destination_of(URL, Secret("key-two")), destination_of("https://eu.logs.example/api", Secret("key-one"))}
    assert 3 == len({here, *others}) == len({each.digest for each in (here, *others)})
    assert "key-one" not in repr(here)


@pytest.mark.parametrize("settings", [Settings(api_key="a-key", spool="memory:"), Settings(api_key=None)])
def test_memory_is_asked_for_or_there_is_nothing_to_keep(settings: Settings) -> None:
    """No file is made for an app that has no key, or wants none."""
    assert isinstance(spool_for(settings), MemorySpool)


def test_a_file_is_made_by_the_first_record(tmp_path: Path) -> None:
    """Not before; and memory beside it is bounded by its own setting."""
    path = tmp_path / "folder" / "spool.db"
    spool = spool_for(Settings(api_key="a-key", spool=f"sqlite://{path}", max_memory_bytes=64 * 1024))
    assert isinstance(spool, FallbackSpool)
    assert not path.parent.exists()
    assert 1 == spool.append(records(0))
    assert path.exists()
    assert ["0"] == names(spool.lease(1, 1, bulk=False).rows)
    spool.close()


def test_memory_is_bounded_by_its_setting() -> None:
    """By the smaller one, when the spool is to be small too."""
    spool = spool_for(Settings(api_key="a-key", spool="memory:", max_memory_bytes=64 * 1024))
    size = 64 * 1024 - ROW_OVERHEAD
    assert 0 == spool.append([record(0, size + 1)])
    assert 1 == spool.append([record(0, size)])


def test_bounds_follow_the_settings() -> None:
    """The pace is a little slower than allowed; a lease outlives a request by far."""
    settings = Settings(max_spool_bytes=8 << 20, max_pending_age=60.0, request_timeout=10.0, bulk_per_minute=30)
    assert Bounds(max_bytes=8 << 20, max_pending_age=60.0, lease_time=60.0, bulk_spacing=2.1) == bounds_for(settings)
    assert 0.0 == bounds_for(Settings(bulk_per_minute=0)).bulk_spacing
