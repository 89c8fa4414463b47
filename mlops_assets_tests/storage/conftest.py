from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mlops_assets.storage import SnapshotStore

ACCESS: dict[str, Any] = {"key": "testing", "secret": "testing"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> SnapshotStore:
    return SnapshotStore(str(root))


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A moto server on a free port of this machine, stopped afterwards."""
    pytest.importorskip("s3fs", reason="needs the extra [s3]")
    from werkzeug.serving import make_server

    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    server = make_server(
        "127.0.0.1", 0, moto.DomainDispatcherApplication(moto.create_backend_app), threaded=True
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket; the endpoint is found through the environment only."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid4().hex[:12]}"
    s3fs.S3FileSystem(**ACCESS).mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def s3_store(bucket: str) -> SnapshotStore:
    return SnapshotStore(f"{bucket}/snapshots", storage_options=ACCESS)


# Nightly: `test_object_store.py` asks the object store for what differs from a folder.
@pytest.fixture(params=["folder", pytest.param("object store", marks=pytest.mark.nightly)])
def any_store(request: pytest.FixtureRequest) -> SnapshotStore:
    """The same test on a local folder and on an object store."""
    return request.getfixturevalue("store" if request.param == "folder" else "s3_store")
