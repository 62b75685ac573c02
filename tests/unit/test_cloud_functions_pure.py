"""The pure parts of the Cloud Functions backend: settings, plans, what answers mean, refusals."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from google.cloud import functions_v2, run_v2

from control_plane.backends.cloud_functions import answers, capabilities, plan, source
from control_plane.backends.cloud_functions.host_config import HOST_CONFIG
from control_plane.backends.cloud_functions.requests import Answer
from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings, load_settings
from control_plane.backends.host_config import host_config
from control_plane.backends.settings_error import SettingsError
from control_plane.errors import InvalidParameter, NotServed
from control_plane.model import Container, Image, Mount

KEY = b"k" * 32
IMAGE = "host:5/p/tool@sha256:derived"


def container(**changes: Any) -> Container:
    plain = Container(
        id="ab" * 32, tenant="acme", name="c", created_at="", image="tool", image_id="sha256:1",
        config={"Cmd": ["true"]}, host_config={}, backend="gcf", gateway="http://gateway",
    )  # fmt: skip
    return plain.model_copy(update=changes)


def image(**changes: Any) -> Image:
    plain = Image(
        id="sha256:1", tenant="acme", created_at="", tags=["tool:latest"], repository="https://host:5/p/tool",
        manifest_digest="sha256:a", config={"config": {}},
    )  # fmt: skip
    return plain.model_copy(update=changes)


def settings(**changes: Any) -> CloudFunctionsSettings:
    return load_settings(project="p", **changes)


# --- settings ---


def test_a_missing_project_is_one_line_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOCKERLESS_GCF_PROJECT", raising=False)
    with pytest.raises(SettingsError, match=r"^SOCKERLESS_GCF_PROJECT is not set: [^\n]+$"):
        load_settings()


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROJECT": "x", "REGION": "europe-west1", "TIMEOUT": "600", "POOL": "3"}.items():
        monkeypatch.setenv(f"SOCKERLESS_GCF_{name}", value)
    found = load_settings()
    assert (found.parent, found.timeout, found.pool) == ("projects/x/locations/europe-west1", 600, 3)
    assert (found.memory, found.cpu, found.start_timeout, found.writes_per_minute) == ("1Gi", 1.0, 110.0, 60)


@pytest.mark.parametrize(
    ("change", "variable"),
    [
        ({"timeout": 3601}, "SOCKERLESS_GCF_TIMEOUT"),
        ({"timeout": 0}, "SOCKERLESS_GCF_TIMEOUT"),
        ({"memory": "lots"}, "SOCKERLESS_GCF_MEMORY"),
        ({"pool": -1}, "SOCKERLESS_GCF_POOL"),
        ({"volume_storage": "nfs"}, "SOCKERLESS_VOLUME_NFS"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(change: dict[str, Any], variable: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        settings(**change)


@pytest.mark.parametrize(("timeout", "limit"), [(3600, 3585), (40, 25), (20, 10), (1, 0.5)])
def test_the_run_limit_leaves_time_to_report(timeout: int, limit: float) -> None:
    assert settings(timeout=timeout).limit_seconds == limit


# --- plans ---


def shape(held: Container | None = None, **changes: Any) -> plan.Shape:
    return plan.shape_of(held or container(), IMAGE, settings(**changes))


def test_a_shape_is_the_same_for_containers_that_one_function_can_serve() -> None:
    first = shape(container(config={"Cmd": ["a"]}, name="x"))
    assert shape(container(id="cd" * 32, config={"Cmd": ["b"], "Env": ["A=1"]})).digest == first.digest


@pytest.mark.parametrize(
    "other",
    [
        shape(container(tenant="other")),
        shape(container(host_config={"Memory": 2 << 30})),
        shape(container(mounts=[Mount(type="volume", name="v", destination="/v")])),
        shape(endpoint_name="another"),
        shape(timeout=60),
        shape(service_account="x@y"),
        plan.shape_of(container(), IMAGE + "2", settings()),
    ],
)
def test_tenants_endpoints_sizes_volumes_and_images_have_shapes_of_their_own(other: plan.Shape) -> None:
    assert other.digest != shape().digest


def test_the_sdks_take_the_function_and_the_service_and_the_stub_is_gone() -> None:
    held = container(mounts=[Mount(type="volume", name="data", destination="/data")])
    made = plan.plan_of(shape(held), "skls-abababababab", KEY, settings(), held.id, {plan.CONTAINER_ID: held.id})
    function = functions_v2.Function(made.function)
    config = function.service_config
    assert (config.available_memory, config.available_cpu, config.timeout_seconds) == ("1Gi", "1", 3600)
    assert (config.max_instance_count, config.max_instance_request_concurrency) == (1, 1)
    assert function.labels["sockerless-container"] == held.id[:32]
    service = run_v2.Service(
        name="projects/p/locations/r/services/skls-abababababab",
        etag="e",
        labels={"goog-managed-by": "cloudfunctions"},
        build_config={"function_target": "main", "image_uri": "built"},
        template={
            "revision": "stub-1",
            "labels": {"goog-managed-by": "cloudfunctions"},
            "containers": [{"image": "built", "base_image_uri": "base", "env": [{"name": "LOG", "value": "x"}]}],
        },
    )
    assert not made.is_in(service)
    plan.put_into(service, made)
    assert made.is_in(service)
    assert service.etag == "e"
    assert service.labels["goog-managed-by"] == "cloudfunctions"
    assert not service.build_config
    template = service.template
    assert template.revision == ""
    (one,) = template.containers
    assert (one.image, list(one.command), list(one.args), one.base_image_uri) == (IMAGE, ["/.sockerless/agent"], [], "")
    assert one.ports[0].container_port == 34117
    assert not one.resources.cpu_idle
    assert (template.max_instance_request_concurrency, template.scaling.max_instance_count) == (1, 1)
    assert template.volumes[0].gcs.bucket == "p-sockerless"
    env = {variable.name: variable.value for variable in one.env}
    assert env == {
        "SOCKERLESS_AGENT_MODE": "function",
        "SOCKERLESS_INVOKE_KEY": plan.invoke_key(KEY, "skls-abababababab"),
        "SOCKERLESS_CONTAINER_ID": held.id,
    }


def test_a_spare_knows_no_container() -> None:
    spare = plan.plan_of(shape(), "skls-0123456789ab", KEY, settings())
    assert sorted(spare.env) == ["SOCKERLESS_AGENT_MODE", "SOCKERLESS_INVOKE_KEY"]
    assert "sockerless-container" not in spare.function["labels"]


def test_another_containers_service_is_not_taken_for_ours() -> None:
    mine = plan.plan_of(shape(), "skls-a", KEY, settings(), "a" * 64, {plan.CONTAINER_ID: "a" * 64})
    theirs = plan.plan_of(shape(), "skls-a", KEY, settings(), "b" * 64, {plan.CONTAINER_ID: "b" * 64})
    service = run_v2.Service()
    plan.put_into(service, theirs)
    assert not mine.is_in(service)


def test_the_invocation_key_differs_by_function_and_by_endpoint() -> None:
    keys = {plan.invoke_key(key, name) for key in (KEY, b"x" * 32) for name in ("skls-a", "skls-b")}
    assert len(keys) == 4
    assert all(len(key) == 64 for key in keys)


def test_anonymous_volumes_are_not_shared() -> None:
    assert plan.can_be_shared(container(mounts=[Mount(type="volume", name="data", destination="/d")]))
    assert not plan.can_be_shared(container(mounts=[Mount(type="volume", name="e" * 64, destination="/d")]))


def test_the_stub_is_the_same_every_time_and_has_the_entry_point() -> None:
    assert source.archive() == source.archive()
    with zipfile.ZipFile(io.BytesIO(source.archive())) as archived:
        assert b"def main(request)" in archived.read("main.py")
        compile(archived.read("main.py"), "main.py", "exec")


# --- what answers mean ---


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, b'{"container":"c","run":1,"exit":{"code":7,"oom":false,"at":"2026-01-02T03:04:05Z"},"released":false}',
         "ended", 7),
        (200, b'{"container":"c","run":1,"exit":null,"released":false}', "ended", None),
        (200, b'{"container":"c","run":1,"exit":null,"released":true}', "released", None),
        (200, b"This function has been deployed.", "again", None),
        (200, b"[]", "again", None),
        (409, b'{"message":"this is the instance of another container"}', "again", None),
        (429, b"", "busy", None),
        (503, b"<html><title>503</title></html>", "again", None),
        (504, b"", "again", None),
        (404, b"", "gone", None),
        (401, b"", "denied", None),
        (403, b"", "denied", None),
        (400, b'{"message":"no container"}', "refused", None),
        (302, b"", "refused", None),
    ],
)  # fmt: skip
def test_what_an_answer_means(status: int, body: bytes, kind: str, code: int | None) -> None:
    verdict = answers.judge(Answer(status, body))
    assert (verdict.kind, verdict.outcome.exit_code) == (kind, code)
    assert verdict.outcome.finished is (kind != "released")


def test_a_refusal_says_what_to_do_in_one_line() -> None:
    page = b"<html><head><title>403</title><style>x{}</style></head>\n<h1>Forbidden</h1>\n<p>No access.</html>"
    error = answers.judge(Answer(403, page)).outcome.error
    assert "Forbidden No access." in error
    assert "roles/run.invoker" in error
    assert "\n" not in error
    assert "<" not in error


def test_an_endless_page_is_cut() -> None:
    assert len(answers.judge(Answer(500, b"x" * 60_000)).outcome.error) < 400


# --- capabilities ---


def test_capabilities_name_the_limit_and_every_difference_with_a_reason() -> None:
    found = capabilities.capabilities(settings(timeout=600))
    assert (found.name, found.max_run_seconds, found.agentless, found.enforces_limit) == ("gcf", 600, False, False)
    assert found.differences
    assert all(found.differences.values())


def test_options_are_refused_by_name() -> None:
    with pytest.raises(NotServed, match="--privileged is not served on Cloud Functions"):
        capabilities.check(container(host_config={"Privileged": True}), settings())
    with pytest.raises(InvalidParameter, match="8 CPUs"):
        capabilities.check(container(host_config={"NanoCpus": 9_000_000_000}), settings())
    assert capabilities.check(container(host_config={"Runtime": "gcf"}), settings()) == []


def test_every_field_of_the_common_table_is_there() -> None:
    assert [option.field for option in HOST_CONFIG] == [o.field for o in host_config("x", "y")]


def test_images_that_cannot_get_the_agent_are_refused_at_create() -> None:
    capabilities.check_image(image(), settings())
    with pytest.raises(NotServed, match="SOCKERLESS_GCR_REGISTRY_WRITABLE"):
        capabilities.check_image(image(), settings(registry_writable=False))
    with pytest.raises(NotServed, match="linux/arm64"):
        capabilities.check_image(image(architecture="arm64"), settings())
