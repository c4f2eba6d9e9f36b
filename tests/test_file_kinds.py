"""`wsgi.file_wrapper` sends what the object's `read()` would give, also where a descriptor would give something else."""

from __future__ import annotations

import gzip

import pytest

from rig import http
from rig.addresses import tcp

CONTENT = b"abc\n" * 50_000


@pytest.fixture(scope="module")
def odd(serve_module):
    address = tcp()
    serve_module("--http-socket", address, "--wsgi-file", "odd.py", "--master")
    return address


@pytest.mark.parametrize("kind", ["plain", "unbuffered", "update", "memory"])
def test_a_file_of_bytes_is_sent_as_it_is(odd, tmp_path, kind):
    (tmp_path / "file").write_bytes(CONTENT)
    assert http.get(odd, f"/file?kind={kind}&file={tmp_path / 'file'}").body == CONTENT


@pytest.mark.only_rwsgi(why="uWSGI sends what the descriptor holds")
def test_a_compressed_file_is_sent_decompressed(odd, tmp_path):
    with gzip.open(tmp_path / "file.gz", "wb") as file:
        file.write(CONTENT)
    assert http.get(odd, f"/file?kind=gzip&file={tmp_path / 'file.gz'}").body == CONTENT


@pytest.mark.only_rwsgi(why="uWSGI sends what the descriptor holds")
def test_a_file_that_changes_its_bytes_as_it_reads_is_read(odd, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    assert http.get(odd, f"/file?kind=upper&file={tmp_path / 'file'}").body == CONTENT.upper()


@pytest.mark.only_rwsgi(why="uWSGI sends what the descriptor holds")
def test_a_text_file_is_a_mistake_that_is_told(odd, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    assert http.get(odd, f"/file?kind=text&file={tmp_path / 'file'}").status == 500
