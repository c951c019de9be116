"""What is in deploy/: pinned, without secrets, about metrics that there are; the balancer for real."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import yaml

from ragbot.bot import RagBot
from ragbot.config import Config
from ragbot.web.desk import Desk
from ragbot.web.observe import Book
from tests.served import QUESTION, SOON, until
from tests.test_shared import TURN, VISITOR, Served, ready, serving

DEPLOY = Path(__file__).parents[1] / "deploy"
SERVICES = "balancer web-1 web-2 index vllm postgres milvus etcd minio prometheus grafana".split()
SECRET = re.compile(r"PASSWORD|SECRET|API_KEY|TOKEN|MINIO_USER|ACCESS_KEY")


def compose() -> dict[str, Any]:
    return cast("dict[str, Any]", yaml.safe_load((DEPLOY / "compose.yaml").read_text()))


def test_the_compose_file_has_all_services_and_volumes() -> None:
    found = compose()
    assert sorted(found["services"]) == sorted(SERVICES)
    for name, service in found["services"].items():
        needed = service.get("depends_on", {})
        assert set(needed) <= set(SERVICES), name
        for volume in service.get("volumes", []):
            place = volume.split(":")[0]
            if re.fullmatch(r"[a-z0-9-]+", place):
                assert place in found["volumes"], f"{name} {place}"
            elif place.startswith("./"):
                assert (DEPLOY / place).exists(), f"{name} {place}"


def test_every_image_is_pinned() -> None:
    images = {service["image"] for service in compose()["services"].values()}
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    images |= set(re.findall(r"^FROM (\S+)", dockerfile, re.M))
    for image in images:
        tag = image.partition(":")[2]
        assert re.search(r"\d+\.\d+|\d{4}-\d\d", tag), image


def test_secrets_come_from_the_environment() -> None:
    for name, service in compose()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert re.fullmatch(r"\$\{\w+(:\?|:-)\}", value), f"{name} {variable}"
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), f"{name} {variable}"
    text = (DEPLOY / "compose.yaml").read_text()
    named = set(re.findall(r"\$\{(\w+)", text))
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert named == set(example), "what is to be filled in, and nothing else"
    assert not any(value for name, value in example.items() if SECRET.search(name))


def test_ragbot_knows_its_settings() -> None:
    for name, service in compose()["services"].items():
        for variable in service.get("environment", {}):
            if variable.startswith("RAGBOT_"):
                assert variable.removeprefix("RAGBOT_").lower() in Config.model_fields, name


def test_only_the_balancer_is_open_to_the_network() -> None:
    ports = {name: one["ports"] for name, one in compose()["services"].items() if "ports" in one}
    assert set(ports) == {"balancer", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in ports["grafana"])


def test_prometheus_asks_services_that_there_are() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in jobs for one in job["static_configs"] for target in one["targets"]]
    assert {target.split(":")[0] for target in targets} <= set(SERVICES)


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_each_yaml_file_can_be_read(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


# --- the dashboard ---------------------------------------------------------------------------


def expressions() -> list[str]:
    board = json.loads((DEPLOY / "grafana" / "ragbot.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    book = Book()
    book.follow(Desk(cast(RagBot, None)))
    samples = re.findall(r"^# TYPE (\w+) (\w+)", book.text().decode(), re.M)
    there = {name for name, kind in samples if kind != "histogram"}
    there |= {f"{name}_bucket" for name, kind in samples if kind == "histogram"}
    shown = {name for text in expressions() for name in re.findall(r"\bragbot_\w+", text)}
    assert len(shown) >= 8
    assert shown <= there


def test_the_dashboard_asks_for_outcomes_that_there_are() -> None:
    kept = Book().text().decode()
    outcomes = [one for text in expressions() for one in re.findall(r'outcome="(\w+)"', text)]
    assert outcomes
    assert all(f'ragbot_questions_total{{outcome="{one}"}}' in kept for one in outcomes)


# --- the balancer ----------------------------------------------------------------------------

CADDY = shutil.which("caddy") or ""
NO_ANSWER = "這些文件沒有提到"


@contextmanager
def balanced(folder: Path, copies: list[Served]) -> Iterator[str]:
    """The address of a Caddy with the settings in deploy/ before these copies."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        site = f"http://127.0.0.1:{free.getsockname()[1]}"
    settings = (DEPLOY / "Caddyfile").read_text()
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n" + settings)
    copies_named = " ".join(copy.address.removeprefix("http://") for copy in copies)
    process = subprocess.Popen(
        [CADDY, "run", "--config", "Caddyfile", "--adapter", "caddyfile"],
        cwd=folder,
        env={"HOME": str(folder), "SITE": site, "COPIES": copies_named, "BALANCER_SECRET": "s"},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: answers(site))
        yield site
    finally:
        process.kill()
        process.wait()


def answers(site: str) -> bool:
    try:
        return httpx.get(f"{site}/healthz").is_success
    except httpx.TransportError:
        return False


def questions(copy: Served) -> int:
    """How many a copy has been asked."""
    figures = httpx.get(f"{copy.address}/metrics").text
    return sum(
        int(float(n)) for n in re.findall(r"^ragbot_questions_total\S* (\S+)", figures, re.M)
    )


def asked_on_the_page(visitor: httpx.Client, site: str) -> str:
    """What a page's question is answered with, in all its events."""
    steps = visitor.get(f"{site}/config").json()["dependencies"]
    ask = next(step["id"] for step in steps if step["targets"][0][1] == "ask")
    asking = {"question": QUESTION, "visitor": VISITOR, "turn": TURN, "language": "zh-Hant"}
    body = {"data": [], "event_data": asking, "fn_index": ask, "session_hash": "one"}
    api = f"{site}/gradio_api/queue"
    visitor.post(f"{api}/join", json=body).raise_for_status()
    return visitor.get(f"{api}/data", params={"session_hash": "one"}).text


def asked_of_the_api(client: httpx.Client, site: str) -> str:
    body = {"model": "ragbot", "messages": [{"role": "user", "content": QUESTION}]}
    return client.post(f"{site}/v1/chat/completions", json=body).text


@pytest.mark.skipif(not CADDY, reason="there is no caddy")
def test_who_was_with_a_copy_that_is_gone_is_answered_by_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    with ExitStack() as stack:
        begun = [stack.enter_context(serving(tmp_path / name, url)) for name in ("1", "2")]
        copies = [ready(process) for process in begun]
        site = stack.enter_context(balanced(tmp_path, copies))
        visitor, client = (stack.enter_context(httpx.Client(timeout=SOON)) for _ in range(2))
        assert visitor.get(f"{site}/metrics").status_code == 404
        for _ in range(2):
            assert NO_ANSWER in asked_on_the_page(visitor, site)
        one, other = sorted(copies, key=questions, reverse=True)
        assert (questions(one), questions(other)) == (2, 0), "a visitor stays with his copy"
        for _ in range(2):
            client.cookies.clear()
            assert NO_ANSWER in asked_of_the_api(client, site)
        assert (questions(one), questions(other)) in ((4, 0), (2, 2)), "and so does a client"
        one.process.kill()
        one.process.wait()
        assert NO_ANSWER in asked_on_the_page(visitor, site)
        assert NO_ANSWER in asked_of_the_api(client, site)
