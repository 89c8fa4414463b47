from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mlops_assets.sources.files.reading import SourceFile, Survey, list_files, survey
from mlops_assets_tests.sources.databases import Server, programs, running

Put = Callable[[str, bytes], SourceFile]


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    folder.mkdir()
    return folder


@pytest.fixture
def put(landing: Path) -> Put:
    """Drops a file into the landing folder and gives it as listed."""

    def drop(name: str, content: bytes) -> SourceFile:
        path = landing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return next(file for file in list_files(str(landing)) if file.name == name)

    return drop


@pytest.fixture
def survey_of(put: Put) -> Callable[[str, bytes], Survey]:
    """The survey of a file just dropped, by its column `country`."""
    return lambda name, content: survey(put(name, content), "country")


@pytest.fixture(scope="module")
def s3_options() -> Iterator[dict[str, Any]]:
    """Storage options of a moto server on a free loopback port, stopped afterwards."""
    pytest.importorskip("s3fs", reason="needs the extra [s3]")
    from werkzeug.serving import make_server

    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    application = moto.DomainDispatcherApplication(moto.create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {
            "key": "testing",
            "secret": "testing",
            "endpoint_url": f"http://127.0.0.1:{server.server_port}",
        }
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def bucket(s3_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    import s3fs

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"landing-{uuid4().hex[:12]}"
    s3fs.S3FileSystem(**s3_options).mkdir(name)
    return name


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of its own."""
    pytest.importorskip("psycopg2", reason="needs the extra [postgres]")
    installed = programs()
    if installed is None and os.environ.get("CI") != "true":
        pytest.skip("needs Debian's package postgresql (apt-get install postgresql)")
    assert installed is not None, "CI needs Debian's package postgresql"
    with running(installed) as server:
        yield server
