"""Plans and sites in the state file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from local_cloud.state import State

RUNNING, STOPPED = "Running", "Stopped"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS web_plans(
    key TEXT PRIMARY KEY, name TEXT NOT NULL, rgroup TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS web_sites(
    key TEXT PRIMARY KEY, name TEXT NOT NULL, rgroup TEXT NOT NULL, plan TEXT NOT NULL, state TEXT NOT NULL,
    body TEXT NOT NULL, config TEXT NOT NULL, settings TEXT NOT NULL, secrets TEXT NOT NULL, starts INTEGER NOT NULL,
    instance TEXT NOT NULL, port INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS web_sites_plan ON web_sites(plan);
"""


@dataclass(slots=True)
class Plan:
    """An App Service plan (`serverfarms`). `body`: location, kind, sku, tags and the properties that were asked for."""

    name: str
    group: str
    body: dict[str, Any]


@dataclass(slots=True)
class Site:
    """A site.

    `body`: location, kind, tags, identity and the properties that were asked for; `config`: siteConfig without app
    settings; `settings`: the app settings; `secrets`: the host's keys. `starts` counts its containers; `instance` and
    `port` are the newest one's (empty and 0 while there is none).
    """

    name: str
    group: str
    plan: str
    """The plan's key: `group/name` in lower case."""
    state: str
    body: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, Any] = field(default_factory=dict)
    starts: int = 0
    instance: str = ""
    port: int = 0

    @property
    def key(self) -> str:
        """A site's name is its own in the whole world, and without case."""
        return self.name.lower()


def plan_key(group: str, name: str) -> str:
    """A plan's name is its own in its resource group, and without case."""
    return f"{group}/{name}".lower()


class Records:
    """Reads and writes plans and sites."""

    def __init__(self, state: State) -> None:
        self.state = state
        state.define(_SCHEMA)

    # --- plans

    def plan(self, key: str) -> Plan | None:
        """A plan by its key, or None."""
        row = self.state.one("SELECT name, rgroup, body FROM web_plans WHERE key = ?", key)
        return None if row is None else Plan(row[0], row[1], json.loads(row[2]))

    def plans(self, group: str) -> list[Plan]:
        """The plans of a resource group, or of all when it is empty."""
        rows = self.state.all("SELECT name, rgroup, body FROM web_plans WHERE ? IN ('', rgroup) ORDER BY rowid", group)
        return [Plan(row[0], row[1], json.loads(row[2])) for row in rows]

    def put_plan(self, plan: Plan) -> None:
        """Writes a plan."""
        self.state.execute(
            "INSERT INTO web_plans VALUES (?, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET body = excluded.body",
            plan_key(plan.group, plan.name),
            plan.name,
            plan.group,
            json.dumps(plan.body),
        )

    def delete_plan(self, key: str) -> None:
        """Forgets a plan."""
        self.state.execute("DELETE FROM web_plans WHERE key = ?", key)

    # --- sites

    def site(self, name: str) -> Site | None:
        """A site by its name, or None."""
        row = self.state.one(f"SELECT {_SITE} FROM web_sites WHERE key = ?", name.lower())  # noqa: S608
        return None if row is None else _site(row)

    def sites(self, group: str) -> list[Site]:
        """The sites of a resource group, or of all when it is empty."""
        rows = self.state.all(
            f"SELECT {_SITE} FROM web_sites WHERE ? IN ('', rgroup) ORDER BY rowid",  # noqa: S608
            group,
        )
        return [_site(row) for row in rows]

    def sites_of(self, plan: str) -> list[str]:
        """The names of the sites on a plan."""
        return [row[0] for row in self.state.all("SELECT name FROM web_sites WHERE plan = ? ORDER BY rowid", plan)]

    def put_site(self, site: Site) -> None:
        """Writes a site."""
        self.state.execute(
            f"INSERT OR REPLACE INTO web_sites(key, {_SITE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            site.key,
            site.name,
            site.group,
            site.plan,
            site.state,
            json.dumps(site.body),
            json.dumps(site.config),
            json.dumps(site.settings),
            json.dumps(site.secrets),
            site.starts,
            site.instance,
            site.port,
        )

    def put_instance(self, name: str, starts: int, instance: str, port: int) -> None:
        """Notes a site's newest container."""
        self.state.execute(
            "UPDATE web_sites SET starts = ?, instance = ?, port = ? WHERE key = ?",
            starts,
            instance,
            port,
            name.lower(),
        )

    def delete_site(self, name: str) -> None:
        """Forgets a site."""
        self.state.execute("DELETE FROM web_sites WHERE key = ?", name.lower())

    def counts(self) -> tuple[int, int]:
        """How many plans and sites there are."""
        row = self.state.one("SELECT (SELECT count(*) FROM web_plans), (SELECT count(*) FROM web_sites)")
        return (row[0], row[1]) if row else (0, 0)


_SITE = "name, rgroup, plan, state, body, config, settings, secrets, starts, instance, port"


def _site(row: tuple[Any, ...]) -> Site:
    loaded = [json.loads(text) for text in row[4:8]]
    return Site(row[0], row[1], row[2], row[3], loaded[0], loaded[1], loaded[2], loaded[3], row[8], row[9], row[10])
