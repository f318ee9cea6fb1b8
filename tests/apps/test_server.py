"""What stands before the page: hosts, origins, sizes and times."""

import contextlib
import json
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the web page needs gradio: pip install '.[web]'")

from activity.apps.server import Gate, serving
from activity.errors import ActivityError


async def application(scope, receive, send):
    """Keeps what is sent to it, as Gradio does: a name of its own while it comes, and left there if it is cut off."""
    if scope["type"] == "lifespan":
        for reply in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{reply}.complete"})
        return
    body = b""
    if scope["method"] == "POST":
        descriptor, name = tempfile.mkstemp(dir=application.folder, prefix="tmp")
        os.close(descriptor)
        part = Path(name)
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            part.write_bytes(body)
            more = message["more_body"]
        (part.parent / "kept").mkdir(exist_ok=True)
        part.rename(part.parent / "kept" / part.name)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def gone():
    return []


@pytest.fixture
def port(tmp_path, gone):
    application.folder = tmp_path
    gate = Gate(application, hosts=["cam.example"], uploads_dir=tmp_path, max_bytes=100_000, hung_up=gone.append)
    with serving(gate, "127.0.0.1", 0) as address:
        yield int(address.rstrip("/").rpartition(":")[2])


def connect(port):
    return contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=10))


def send(port, text, body=b""):
    with connect(port) as client:
        client.sendall(text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return b"".join(iter(lambda: client.recv(1000), b"")).decode()


def get(port, *headers, path="/"):
    return send(port, "\n".join([f"GET {path} HTTP/1.1", *headers, "Connection: close"])).split()[1]


class TestHosts:
    @pytest.mark.parametrize("host", ["localhost:{}", "127.0.0.1:{}", "[::1]:{}", "192.168.7.7", "CAM.example"])
    def test_names_of_this_computer(self, port, host):
        assert get(port, f"Host: {host.format(port)}") == "200"

    @pytest.mark.parametrize(
        "host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example", "[:", "a@b"]
    )
    def test_any_other_name_is_refused(self, port, host):
        assert get(port, f"Host: {host}") == "421"

    def test_the_refusal_says_what_to_do(self, port):
        answer = send(port, "GET / HTTP/1.1\nHost: my.example\nConnection: close")
        assert answer.endswith(
            "This page is not served as 'my.example'. Its owner can allow that: activity serve --allow-host NAME"
        )

    def test_a_page_of_another_site_is_refused(self, port):
        assert get(port, f"Host: localhost:{port}", f"Origin: http://localhost:{port}") == "200"
        for origin in ("http://evil.example", "null", f"http://localhost:{port + 1}", "http://localhost"):
            assert get(port, f"Host: localhost:{port}", f"Origin: {origin}") == "403"


def upload(port, size, *, path="/gradio_api/upload", length=None):
    head = f"POST {path} HTTP/1.1\nHost: localhost\nConnection: close\nContent-Length: {length or size}"
    return send(port, head, bytes(size))


def ask(port, body):
    path = "/gradio_api/queue/join"
    return send(port, f"POST {path} HTTP/1.1\nHost: localhost\nConnection: close\nContent-Length: {len(body)}", body)


class TestQuestions:
    """Gradio would fetch a URL in the place of a path, whatever its size, and tells where this program runs."""

    def test_what_was_sent_may_be_asked_about(self, port, tmp_path):
        for path in (tmp_path / "kept" / "a.avi", tmp_path / "no such folder" / "ü.avi"):
            body = json.dumps({"data": [None, {"path": str(path), "meta": {}}]}).encode()
            assert " 200 " in ask(port, body)
        assert " 200 " in ask(port, b'{"data": [], "session_hash": "anna"}') and " 200 " in ask(port, b"")

    @pytest.mark.parametrize(
        "path",
        [
            *("http://127.0.0.1:1/a.mp4", "https://example.org/a.mp4", "/etc/passwd", "a.avi", "", 7, None),
            *("{}/../a.avi", "{}/kept/../../a.avi", "{}", "{}-other/a.avi", "{}/a\0.avi", "file://{}/a.avi"),
        ],
    )
    def test_another_file_or_a_url_is_refused_without_a_word_of_this_computer(self, port, tmp_path, path):
        path = path.replace("{}", str(tmp_path)) if isinstance(path, str) else path
        for data in ([{"path": path}], {"deep": [[{"path": path, "meta": {"_type": "gradio.FileData"}}]]}):
            answer = ask(port, json.dumps({"data": data}).encode())
            assert " 403 " in answer and str(tmp_path.parent) not in answer
            assert "this is not a file that was sent to this page; please send it again" in answer

    @pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 9000, b'{"path": "/etc/passwd", "path": "x"}'])
    def test_no_question_at_all_is_refused(self, port, body):
        assert ask(port, body).split()[1] in ("400", "403")

    def test_a_long_one_is_refused(self, port):
        assert " 413 " in ask(port, b"1" * 200_000)

    def test_the_application_reads_what_was_sent(self, port, tmp_path):
        body = json.dumps({"data": ["x" * 90_000]}).encode()
        assert " 200 " in ask(port, body)
        assert [path.read_bytes() for path in (tmp_path / "kept").iterdir()] == [body]


class TestUploads:
    def test_one_that_fits_is_taken(self, port, tmp_path):
        assert upload(port, 50_000).endswith("ok")
        assert [path.stat().st_size for path in (tmp_path / "kept").iterdir()] == [50_000]

    def test_one_that_is_too_large_is_refused_before_it_comes(self, port, tmp_path):
        answer = upload(port, 1000, length=2 * 10**9)
        assert " 413 " in answer
        assert answer.endswith("Too large: this page takes up to 0 MB, and this upload has 2000000000 bytes.")
        assert list(tmp_path.iterdir()) == []

    def test_one_without_a_length_is_refused(self, port):
        head = "POST /gradio_api/upload HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked"
        assert " 411 " in send(port, head, b"5\r\nhello\r\n0\r\n\r\n")

    def test_there_is_room_for_so_many(self, port, tmp_path):
        answers = [upload(port, 100_000).split()[1] for _ in range(25)]
        assert set(answers[:20]) == {"200"}
        assert set(answers[23:]) == {"507"}
        for path in (tmp_path / "kept").iterdir():
            path.unlink()
        assert " 200 " in upload(port, 100_000)

    def test_nothing_is_left_of_one_that_is_cut_off(self, port, tmp_path):
        for _ in range(3):
            with connect(port) as client:
                client.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n")
                client.sendall(bytes(40_000))
                for _ in range(100):
                    if list(tmp_path.glob("tmp*")):
                        break
                    time.sleep(0.05)
                else:
                    pytest.fail("nothing has come")
        for _ in range(100):
            if not list(tmp_path.glob("tmp*")):
                return
            time.sleep(0.05)
        pytest.fail(f"left: {list(tmp_path.iterdir())}")


def test_who_hangs_up_is_told(port, gone):
    assert get(port, "Host: localhost", path="/gradio_api/queue/data?session_hash=a%2Fb") == "200"
    assert gone == ["a/b"]


def test_connections_without_a_request_are_closed(port):
    with connect(port) as silent, connect(port) as slow, connect(port) as kept:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-a: ")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"ok"):
            answer += kept.recv(1000)
        kept.sendall(b"GET / HTTP/1.1\r\nX-a: ")  # a second one, never whole
        for client in (silent, slow, kept):
            client.settimeout(35)
            assert client.recv(1000) == b""


def test_an_address_that_is_not_of_this_computer():
    with (
        pytest.raises(ActivityError, match=r"^cannot listen at 203\.0\.113\.1:0: "),
        serving(application, "203.0.113.1", 0),
    ):
        pass
