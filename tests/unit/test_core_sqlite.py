"""What is SQLite's own about the SQLite store: its file, other processes, a full disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from control_plane.store.base import StoreFull
from control_plane.store.sqlite import SqliteStore


async def test_there_is_room_left_on_a_full_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.create("containers", "t", "k", {"n": 1})
    wal = tmp_path / "store.db-wal"
    for _ in range(200):
        if wal.stat().st_size > 1_000_000:
            break
        await asyncio.sleep(0.02)
    assert wal.stat().st_size > 1_000_000
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count={pages}")
    for number in range(100):
        await store.create("containers", "t", f"c{number}", {"x": "y" * 4000})
    await store.close()


async def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    small = await store.create("containers", "t", "k", {"n": 1})
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreFull, match="no space left"):
        await store.create("containers", "t", "big", {"x": "y" * 5_000_000})
    store._connection.execute("PRAGMA max_page_count=1000000")
    assert await store.get("containers", "t", "big") is None
    assert (await store.replace(small, {"n": 2})).body == {"n": 2}
    await store.close()


async def test_nobody_else_reads_its_files(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.create("containers", "t", "k", {"env": ["PASSWORD=x"]})
    assert [os.stat(f"{tmp_path}/store.db{end}").st_mode & 0o777 for end in ("", "-wal", "-shm")] == [0o600] * 3
    await store.close()


async def test_what_was_written_survives_a_kill(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, sys
        from control_plane.store.sqlite import SqliteStore
        async def main():
            store = SqliteStore(sys.argv[1])
            for number in range(200):
                await store.create("containers", "t", f"{number:03}", {"n": number})
            print("written", flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """)
    path = tmp_path / "store.db"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(path), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"written\n"
    finally:
        process.kill()
        await process.wait()
    store = SqliteStore(path)
    assert len(await store.list("containers", "t")) == 200
    await store.close()


async def test_the_log_is_moved_into_the_database_in_the_background(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    for number in range(300):
        await store.create("containers", "t", str(number), {"x": "y" * 1000})
    async with asyncio.timeout(10):
        while (tmp_path / "store.db").stat().st_size < 300_000:  # noqa: ASYNC110 - a thread writes it
            await asyncio.sleep(0.02)
    await store.close()
    assert not (tmp_path / "store.db-wal").exists()


async def test_another_process_holding_the_file_makes_a_write_wait_not_the_loop(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    write = asyncio.ensure_future(store.create("containers", "t", "k", {}))
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert not write.done()
    other.execute("COMMIT")
    other.close()
    assert (await asyncio.wait_for(write, 10)).key == "k"
    await store.close()


async def test_nothing_runs_while_nobody_writes_or_watches(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    before = len(asyncio.all_tasks())
    watch = store.watch("containers", "t")
    await anext(watch)
    assert len(asyncio.all_tasks()) == before + 1
    await watch.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - tasks tell nobody that they ended
            await asyncio.sleep(0.01)
    await store.close()
