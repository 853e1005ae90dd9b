"""Compose files, Dockerfiles and the embedded stack's table say the same."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from compose.local.services import (
    API,
    BEAT,
    GPU_WORKER,
    MEDIA_WORKER,
    MIGRATE,
    QUALITY_WORKER,
    SERVICES,
    ServiceSpec,
)
from db.settings import Settings
from workers.queue import CONTROL_QUEUE, GPU_QUEUE, MEDIA_QUEUE, QUALITY_QUEUE

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose"
CONTAINER_HOME = Path("/var/lib/fonoteca")
DOCKERFILES = [COMPOSE / "Dockerfile.api", COMPOSE / "Dockerfile.worker"]
SECONDS = {"s": 1, "m": 60}


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((COMPOSE / name).read_text())
    return content


def merge(base: Any, over: Any) -> Any:
    """As Compose does for what these files use: mappings by key, volumes appended, everything else replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {
            key: [*base[key], *over[key]]
            if key == "volumes" and key in base and key in over
            else merge(base[key], over[key])
            if key in base and key in over
            else over.get(key, base.get(key))
            for key in {**base, **over}
        }
    return over


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """Services of both files, with `extends` followed."""
    base = load("compose.yaml")["services"]
    found = dict(base)
    for name, service in load("compose.gpu.yaml")["services"].items():
        extended = service.pop("extends")
        assert (COMPOSE / extended["file"]).is_file()
        found[name] = merge(base[extended["service"]], service)
    return found


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", dockerfile.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1].strip()) for line in lines]


@pytest.mark.parametrize("spec", [MIGRATE, *SERVICES], ids=lambda spec: spec.name)
def test_containers_run_the_commands_of_the_table(
    spec: ServiceSpec, services: dict[str, dict[str, Any]]
) -> None:
    service = services[spec.name]
    assert service["command"] == spec.command("python", CONTAINER_HOME)
    value, unit = re.fullmatch(r"(\d+)([sm])", service["stop_grace_period"]).groups()  # type: ignore[union-attr]
    assert int(value) * SECONDS[unit] == spec.drain_s


def test_the_table_and_the_files_name_the_same_services(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"postgres", "valkey", MIGRATE.name} | {spec.name for spec in SERVICES}
    assert (API, MEDIA_WORKER, GPU_WORKER, QUALITY_WORKER, BEAT) == SERVICES


def test_every_service_restarts_drains_and_reports_its_health(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert "stop_grace_period" in service, name
        assert service["restart"] == ("no" if name == MIGRATE.name else "unless-stopped"), name
        assert "test" in service["healthcheck"] or name == MIGRATE.name, name
        for other, how in service.get("depends_on", {}).items():
            assert other in services
            assert how["condition"] == (
                "service_completed_successfully" if other == MIGRATE.name else "service_healthy"
            ), (name, other)
    for spec in SERVICES:
        assert set(services[spec.name]["depends_on"]) == {"migrate", "postgres", "valkey"}


def test_every_own_service_gets_the_one_environment(services: dict[str, dict[str, Any]]) -> None:
    shared = load("compose.yaml")["x-environment"]
    for spec in (MIGRATE, *SERVICES):
        environment = services[spec.name]["environment"]
        assert {key: environment[key] for key in shared} == shared
        names = {key.removeprefix("FONOTECA_").lower() for key in environment if key.startswith("FONOTECA_")}
        assert names <= set(Settings.model_fields), spec.name
    assert shared["FONOTECA_HOME"] == str(CONTAINER_HOME)


def test_images_are_built_from_files_that_exist(services: dict[str, dict[str, Any]]) -> None:
    used = set()
    for spec in (MIGRATE, *SERVICES):
        build = services[spec.name]["build"]
        context = (COMPOSE / build["context"]).resolve()
        assert context == ROOT
        used.add(context / build["dockerfile"])
    assert used == set(DOCKERFILES)
    volumes = load("compose.yaml")["volumes"]
    for service in services.values():
        for volume in service.get("volumes", []):
            if isinstance(volume, str):
                # a folder of the host where compose/.env names one, else a volume of this name
                named = re.sub(r"^\$\{[A-Z_]+:-(\w+)\}", r"\1", volume)
                assert named.split(":")[0] in volumes


def test_the_gpu_worker_has_its_device_and_the_mounts_of_the_models_own_container(
    services: dict[str, dict[str, Any]],
) -> None:
    gpu = services[GPU_WORKER.name]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    mounts = {
        mount["target"]: mount.get("read_only", False) for mount in gpu["volumes"] if isinstance(mount, dict)
    }
    assert mounts == {
        "/workspace/model": True,
        "/workspace/models": True,
        "/mnt/datasets": True,
        "/workspace/outputs": False,
    }
    assert "fonoteca:/var/lib/fonoteca" in gpu["volumes"]


def test_gpu_workers_follow_deployments_from_the_mounted_model(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = services[GPU_WORKER.name]["environment"]
    for name in [name for name in os.environ if name.startswith("FONOTECA_")]:
        monkeypatch.delenv(name)
    for name in ("FONOTECA_MODEL", "FONOTECA_FALLBACK_MODEL"):
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    assert not Settings().is_model_pinned
    assert Settings().model == "/workspace/model"
    named = re.findall(r"\$\{(\w+):\?", (COMPOSE / "compose.gpu.yaml").read_text())
    example = (COMPOSE / ".env.example").read_text()
    assert "FONOTECA_MODELS_DIR" in named
    assert all(f"{name}=" in example for name in named)


def test_the_quality_worker_reads_the_sets_where_its_setting_says(
    services: dict[str, dict[str, Any]],
) -> None:
    quality = services[QUALITY_WORKER.name]
    assert "${FONOTECA_DATASETS_DIR:-datasets}:/mnt/datasets:ro" in quality["volumes"]
    for spec in (QUALITY_WORKER, GPU_WORKER):
        assert (
            services[spec.name]["environment"]["FONOTECA_DATASETS"]
            == "${FONOTECA_DATASETS_DIR:+/mnt/datasets}"
        )
    consumed = {
        queue
        for spec in SERVICES
        if "-Q" in spec.arguments
        for queue in spec.arguments[spec.arguments.index("-Q") + 1].split(",")
    }
    assert consumed == {MEDIA_QUEUE, GPU_QUEUE, CONTROL_QUEUE, QUALITY_QUEUE}


def test_every_setting_of_nights_and_alerts_reaches_the_services() -> None:
    passed = load("compose.yaml")["x-environment"]
    prefixes = ("night", "drift_", "alert_", "smtp_", "mail_", "report_")
    ours = {f"FONOTECA_{name}".upper() for name in Settings.model_fields if name.startswith(prefixes)}
    assert len(ours) > 10
    assert ours <= set(passed)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_copy_what_exists_and_run_as_an_ordinary_user(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for name, rest in steps:
        if name != "COPY" or rest.startswith("--from"):
            continue
        *sources, _ = rest.split()
        for source in sources:
            assert "*" in source or (ROOT / source).exists(), (
                f"{dockerfile.name} copies {source}, which is missing"
            )
            top = source.split("/")[0]
            assert top in allowed or any(Path(name).match(top) for name in allowed), (
                f".dockerignore hides {source}"
            )
            copied.add(source)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= copied

    assert all(rest.startswith("python:3.11-slim") for name, rest in steps if name == "FROM")
    (user,) = [rest for name, rest in steps if name == "USER"]
    assert user == "10001:10001"
    assert [name for name, _ in steps].count("HEALTHCHECK") == 1
    spec = API if dockerfile.name.endswith("api") else MEDIA_WORKER
    (command,) = [rest for name, rest in steps if name == "CMD"]
    assert yaml.safe_load(command) == spec.command("python", CONTAINER_HOME)


def test_the_worker_image_carries_the_demo_model() -> None:
    text = (COMPOSE / "Dockerfile.worker").read_text()
    assert "COPY models/demo /opt/fonoteca/models/demo" in text
    assert "FONOTECA_FALLBACK_MODEL=/opt/fonoteca/models/demo" in text
    assert (ROOT / "models" / "demo" / "config.json").is_file()
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in constraints


def test_the_api_image_installs_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installs = [
        rest for name, rest in instructions(COMPOSE / "Dockerfile.api") if name == "RUN" and "pip" in rest
    ]
    assert not any("[" in re.sub(r"\['[a-z-]+'\]", "", rest) for rest in installs)  # no extras
    assert not any("optional-dependencies" in rest for rest in installs)
    wanted = [Requirement(text) for text in project["dependencies"]]
    pending = [each for each in wanted if each.marker is None or each.marker.evaluate()]
    installed: dict[str, set[str]] = {}
    while pending:
        requirement = pending.pop()
        name = requirement.name.lower().replace("_", "-")
        extras = set(requirement.extras) | {""}
        if extras <= installed.get(name, set()):
            continue
        installed[name] = installed.get(name, set()) | extras
        for text in requires(name) or []:
            child = Requirement(text)
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(child)
    assert "fastapi" in installed
    assert "kombu" in installed
    # av, numpy and pydub are there for clips: docs/decisions/0029
    heavy = {"torch", "transformers", "scipy", "silero-vad", "safetensors"}
    assert not heavy & set(installed)


def test_no_secret_is_in_the_repository(services: dict[str, dict[str, Any]]) -> None:
    example = (COMPOSE / ".env.example").read_text()
    for line in example.splitlines():
        if re.match(r"#?\w*(PASSWORD|SECRET|KEY|TOKEN)\w*=", line):
            assert line.endswith("="), f"{line.split('=')[0]} has a value in .env.example"
    offered = set(re.findall(r"^#?([A-Z_]+)=", example, flags=re.MULTILINE))
    text = (COMPOSE / "compose.yaml").read_text() + (COMPOSE / "compose.gpu.yaml").read_text()
    asked = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text))
    passed = {key for key, value in load("compose.yaml")["x-environment"].items() if value is None}
    assert asked | passed == offered
    assert ".env" in (COMPOSE / ".gitignore").read_text().splitlines()
    assert "**/.env" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize("spec", [MEDIA_WORKER, GPU_WORKER, QUALITY_WORKER], ids=lambda spec: spec.name)
def test_workers_do_not_watch_each_other(spec: ServiceSpec) -> None:
    # a solo worker hears its neighbours between two tasks only: it would warn of clocks that are minutes off
    assert {"--without-gossip", "--without-mingle"} <= set(spec.arguments)
