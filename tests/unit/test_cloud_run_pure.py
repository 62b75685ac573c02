"""The pure parts of the Cloud Run backend: sizes, bind rules, labels, jobs, injection, settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.backends import binds, sizes
from control_plane.backends.cloud_run import injection
from control_plane.backends.cloud_run.job import agent_job, plain_job
from control_plane.backends.cloud_run.settings import CloudRunSettings, load_settings
from control_plane.backends.gcp import labels, resources
from control_plane.backends.location import Location, volume_location
from control_plane.backends.settings_error import SettingsError
from control_plane.backends.sizes import GIB, MIB, Resources
from control_plane.errors import InvalidParameter
from control_plane.model import Container, Image, Mount

DEFAULT = Resources(nano_cpus=1_000_000_000, memory=512 * MIB)
ROOT = Location("gs", "bucket", "")


def container(**changes: Any) -> Container:
    plain = Container(
        id="ab" * 32, tenant="acme", name="c", created_at="", image="busybox", image_id="sha256:1",
        config={"Cmd": ["true"]}, host_config={}, backend="cloudrun", gateway="http://gateway",
    )  # fmt: skip
    return plain.model_copy(update=changes)


def image(**changes: Any) -> Image:
    plain = Image(
        id="sha256:1", tenant="acme", created_at="", tags=["busybox:latest"], repository="https://host:5/p/busybox",
        manifest_digest="sha256:a", config={"config": {}},
    )  # fmt: skip
    return plain.model_copy(update=changes)


def settings(**changes: Any) -> CloudRunSettings:
    return load_settings(project="p", **changes)


# --- sizes ---


@pytest.mark.parametrize(
    ("host_config", "cpu", "memory"),
    [
        ({}, "1", "512Mi"),
        ({"Memory": 6 * MIB}, "1", "512Mi"),
        ({"Memory": 600 * MIB + 1}, "1", "601Mi"),
        ({"Memory": 4 * GIB}, "1", "4Gi"),
        ({"Memory": 4 * GIB + 1}, "2", "4097Mi"),
        ({"Memory": 32 * GIB}, "8", "32Gi"),
        ({"NanoCpus": 500_000_000}, "1", "512Mi"),
        ({"NanoCpus": 2_500_000_000}, "4", "2Gi"),
        ({"NanoCpus": 8_000_000_000}, "8", "4Gi"),
        ({"CpuQuota": 150_000}, "2", "512Mi"),
        ({"CpuQuota": 150_000, "CpuPeriod": 50_000}, "4", "2Gi"),
        ({"CpuQuota": -1}, "1", "512Mi"),
    ],
)
def test_sizes_are_rounded_up_to_what_is_sold(host_config: dict[str, Any], cpu: str, memory: str) -> None:
    assert resources.limits(sizes.asked(host_config, DEFAULT)).as_cloud() == {"cpu": cpu, "memory": memory}


@given(nano=st.integers(1, 8_000_000_000), memory=st.integers(1, 32 * GIB))
def test_no_container_gets_less_than_it_asked_for_or_what_is_not_sold(nano: int, memory: int) -> None:
    got = resources.limits(Resources(nano, memory))
    assert got.cpus * 1_000_000_000 >= nano
    assert memory <= got.memory <= resources.MOST_MEMORY_OF_CPUS[got.cpus]
    assert got.memory >= resources.LEAST_MEMORY_OF_CPUS[got.cpus]
    assert got.memory % MIB == 0


@pytest.mark.parametrize("wanted", [Resources(8_000_000_001, MIB), Resources(1, 32 * GIB + 1)])
def test_what_is_not_sold_is_refused_naming_the_limit(wanted: Resources) -> None:
    with pytest.raises(InvalidParameter, match=r"8 CPUs|32 GiB"):
        resources.limits(wanted)


def test_sizes_as_docker_writes_them() -> None:
    assert [sizes.parse_size(t) for t in ("512Mi", "1.5g", "7", "3kb")] == [512 * MIB, 1536 * MIB, 7, 3072]
    with pytest.raises(ValueError, match="not a size"):
        sizes.parse_size("lots")


# --- bind rules ---

RULES = binds.parse_rules("/=nfs://host/; /builds = nfs://10.0.0.2/export ;/cache=gs://bucket/c/{tenant}")


def placed(*sources: str, rules: tuple[binds.BindRule, ...] = RULES) -> list[tuple[str, str, str]]:
    mounts = [Mount(type="bind", source=source, destination=f"/m{n}") for n, source in enumerate(sources)]
    volumes, found = binds.platform_volumes(container(mounts=mounts), rules, ROOT)
    where = {volume.path: str(volume.location) for volume in volumes}
    return [(where[mount.source], mount.source, mount.subpath) for mount in found]


def test_the_longest_prefix_counts_by_whole_components() -> None:
    assert placed("/builds/a", "/buildsx", "/cache") == [
        ("nfs://10.0.0.2/export", "/.sockerless/volumes/0", "a"),
        ("nfs://host", "/.sockerless/volumes/1", "buildsx"),
        ("gs://bucket/c/acme", "/.sockerless/volumes/2", ""),
    ]


def test_binds_under_one_rule_share_a_platform_volume() -> None:
    assert [source for _, source, _ in placed("/builds/a", "/x", "/builds/b")] == [
        "/.sockerless/volumes/0", "/.sockerless/volumes/1", "/.sockerless/volumes/0",
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["/builds/../etc", "/etc", "relative", "//etc", "/buildsx", ""])
def test_a_path_without_a_rule_is_refused_by_name_with_the_ways_out(source: str) -> None:
    with pytest.raises(InvalidParameter, match="docker cp") as caught:
        placed(source, rules=binds.parse_rules("/builds=nfs://h/e"))
    assert source in caught.value.message


@given(st.text(alphabet="/.ab", max_size=12))
def test_no_path_climbs_out_of_its_rule(path: str) -> None:
    ((_, _, subpath),) = placed("/" + path, rules=binds.parse_rules("/=nfs://h/e"))
    assert ".." not in subpath.split("/")
    assert not subpath.startswith("/")


@given(st.text(min_size=1, max_size=20))
def test_no_tenant_or_volume_name_leaves_its_folder(name: str) -> None:
    parts = volume_location(ROOT, name, name).path.split("/")
    assert len(parts) == 3
    assert parts[0] == "volumes"
    assert not {"", ".", ".."} & set(parts)


@pytest.mark.parametrize(
    "text", ["x=nfs://h/e", "/x", "/x=http://h", "/x=gs://", "/x=nfs://h/../e", "/x=gs://b;/x=gs://c"]
)
def test_bad_rules_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        binds.parse_rules(text)


def test_volumes_are_platform_volumes_of_their_own_and_tmpfs_are_not() -> None:
    mounts = [
        Mount(type="tmpfs", destination="/t"),
        Mount(type="volume", name="data", destination="/a", read_only=True),
        Mount(type="volume", name="data", destination="/b", subpath="../sub"),
        Mount(type="volume", name="logs", destination="/c", read_only=True, source="gs://elsewhere/x"),
    ]
    volumes, found = binds.platform_volumes(container(mounts=mounts), (), ROOT)
    assert [(str(v.location), v.read_only) for v in volumes] == [
        ("gs://bucket/volumes/acme/data", False),
        ("gs://bucket/volumes/acme/logs", True),
    ]
    assert [(m.source[-1], m.subpath, m.mount.destination) for m in found] == [
        ("0", "", "/a"), ("0", "sub", "/b"), ("1", "", "/c"),
    ]  # fmt: skip


# --- labels and names ---


@given(st.text(max_size=80))
def test_labels_are_what_google_takes_and_tell_tenants_apart(text: str) -> None:
    value = labels.label_value(text)
    assert len(value) <= 63
    assert all(c.islower() or c.isdigit() or c in "_-" for c in value)
    assert all(ord(c) < 128 for c in value)
    assert labels.label_value(text + "X") != value


def test_job_ids_are_what_google_takes() -> None:
    digest = labels.fingerprint({"a": 1})
    for job_id in (labels.template_job(digest), labels.container_job("f" * 64, digest), labels.container_job("f" * 64)):
        assert len(job_id) <= 49  # an execution's name is longer by its suffix
        assert job_id.startswith("sockerless-")


# --- jobs ---

LAUNCH = injection.Launch("image_layer", "host/p@sha256:d", ("/.sockerless/agent",))


def test_a_template_depends_on_the_shape_and_nothing_else() -> None:
    plan = agent_job(container(), LAUNCH, settings())
    other = container(id="cd" * 32, name="x", config={"Cmd": ["false"], "Env": ["A=1"]}, host_config={"Memory": 1})
    assert agent_job(other, LAUNCH, settings()).job_id == plan.job_id
    for changed, launch, env in (
        (container(host_config={"Memory": GIB}), LAUNCH, settings()),
        (container(tenant="evil"), LAUNCH, settings()),
        (container(mounts=[Mount(type="volume", name="v", destination="/v")]), LAUNCH, settings()),
        (container(), injection.Launch("image_layer", "host/p@sha256:e", ("/.sockerless/agent",)), settings()),
        (container(), LAUNCH, settings(timeout=60)),
        (container(), LAUNCH, settings(service_account="x@y")),
        (container(), LAUNCH, settings(vpc_connector="c")),
        (container(), LAUNCH, settings(endpoint_name="other")),
    ):
        assert agent_job(changed, launch, env).job_id != plan.job_id


def test_a_job_says_what_must_be_said() -> None:
    job = agent_job(container(), LAUNCH, settings(vpc_connector="c")).job
    assert "name" not in job
    task = job["template"]["template"]
    assert task["max_retries"] == 0
    assert task["timeout"].total_seconds() == 168 * 3600
    assert task["execution_environment"] == "EXECUTION_ENVIRONMENT_GEN2"
    assert task["vpc_access"] == {"connector": "projects/p/locations/us-central1/connectors/c"}
    assert job["labels"]["managed-by"] == "sockerless"
    assert job["template"]["labels"] == job["labels"]


def test_volumes_of_a_job() -> None:
    mounts = [
        Mount(type="bind", source="/builds/x", destination="/b"),
        Mount(type="volume", name="v", destination="/v", read_only=True),
    ]
    env = settings(bind_rules="/builds=nfs://10.0.0.2/export", gcs_mount_options="implicit-dirs")
    task = agent_job(container(mounts=mounts), LAUNCH, env).job["template"]["template"]
    assert task["volumes"] == [
        {"name": "volume-0", "nfs": {"server": "10.0.0.2", "path": "/export", "read_only": False}},
        {
            "name": "volume-1",
            "gcs": {
                "bucket": "p-sockerless",
                "read_only": True,
                "mount_options": ["implicit-dirs", "only-dir=volumes/acme/v"],
            },
        },
    ]
    assert [m["mount_path"] for m in task["containers"][0]["volume_mounts"]] == [
        "/.sockerless/volumes/0", "/.sockerless/volumes/1",
    ]  # fmt: skip


def test_a_plain_job_mounts_at_the_users_paths() -> None:
    mounts = [
        Mount(type="bind", source="/builds/x", destination="/b"),
        Mount(type="tmpfs", destination="/t"),
    ]
    config = {"Entrypoint": ["/e"], "Cmd": ["a"], "Env": ["A=1", "A=2", "B"], "WorkingDir": "/w"}
    env = settings(bind_rules="/builds=nfs://10.0.0.2/export")
    plan = plain_job(container(mounts=mounts, config=config), image(), env)
    main = plan.job["template"]["template"]["containers"][0]
    assert (main["command"], main["args"], main["working_dir"]) == (["/e"], ["a"], "/w")
    assert main["env"] == [{"name": "A", "value": "2"}]
    assert main["volume_mounts"] == [
        {"name": "volume-0", "mount_path": "/b"}, {"name": "memory-0", "mount_path": "/t"},
    ]  # fmt: skip
    assert plan.job["template"]["template"]["volumes"][0]["nfs"]["path"] == "/export/x"
    assert not plan.shared


# --- settings ---


@pytest.fixture(autouse=True)
def _no_settings_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SOCKERLESS_GCR_PROJECT", "SOCKERLESS_BIND_RULES", "SOCKERLESS_CALLBACK_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_missing_project_is_one_line_naming_it() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith("SOCKERLESS_GCR_PROJECT is not set")
    assert "\n" not in str(caught.value)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCKERLESS_GCR_PROJECT", "q")
    monkeypatch.setenv("SOCKERLESS_GCR_TIMEOUT", "60")
    monkeypatch.setenv("SOCKERLESS_GCR_REGION", "")
    monkeypatch.setenv("SOCKERLESS_BIND_RULES", "/=nfs://h/")
    found = load_settings()
    assert (found.parent, found.timeout, found.rules[0].prefix) == ("projects/q/locations/us-central1", 60, "/")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"timeout": 168 * 3600 + 1}, "SOCKERLESS_GCR_TIMEOUT"),
        ({"agent_location": "nfs://s/p"}, "SOCKERLESS_GCR_AGENT_VOLUME"),
        ({"injection": "magic"}, "SOCKERLESS_GCR_INJECTION"),
        ({"bind_rules": "nonsense"}, "SOCKERLESS_BIND_RULES"),
        ({"agent_token": "short"}, "SOCKERLESS_GCR_AGENT_TOKEN"),
        ({"agent_image": "Not A Reference"}, "SOCKERLESS_GCR_AGENT_IMAGE"),
        ({"agent_image": "x", "injection": "startup_command"}, "SOCKERLESS_GCR_AGENT_IMAGE"),
        ({"volume_storage": "nfs"}, "SOCKERLESS_VOLUME_NFS"),
        ({"memory": "lots"}, "SOCKERLESS_GCR_MEMORY"),
    ],
)
def test_bad_settings_are_named_in_one_line(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        settings(**changes)
    assert "\n" not in str(caught.value)


def test_the_token_is_not_shown() -> None:
    assert "s3cret" not in repr(settings(agent_token="s3cret" * 6))


# --- cold start ---


def test_importing_the_backend_loads_no_cloud_sdk() -> None:
    code = (
        "import sys, control_plane.backends.cloud_run.backend, control_plane.backends.gcp.storage\n"
        "print([m for m in sys.modules if m.startswith(('google.cloud.', 'google.a', 'grpc', 'requests', 'proto'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"
