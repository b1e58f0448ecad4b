"""A renewed certificate of the web output is used after SIGHUP, in the whole gateway as a process."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from tests.gateway.peer_process import free_port, running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")


class Identity:
    """A certificate for 127.0.0.1 with its key, from an authority of its own."""

    def __init__(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        self.certificate = certificate.cert_chain_pems[0].bytes()
        self.key = certificate.private_key_pem.bytes()
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)

    @property
    def encrypted_key(self) -> bytes:
        key = serialization.load_pem_private_key(self.key, None)
        encryption = serialization.BestAvailableEncryption(b"unknown to the gateway")
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@dataclass
class Connection:
    """A client's connection that stays open."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> str:
        """Request the health of the gateway; return the status line."""
        self.writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        (length,) = [int(line.split()[1]) for line in head.splitlines() if line.startswith("Content-Length")]
        await self.reader.readexactly(length)
        return head.splitlines()[0]


class Site:
    """A gateway with TLS, and the files of its certificate and key."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.certificate = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.port = free_port()
        self.config = folder / "gateway.toml"
        self.log_file = folder / "log"
        self.process: asyncio.subprocess.Process | None = None
        self.renew(identity.certificate, identity.key)
        table = {"listen": f"127.0.0.1:{self.port}", "cert_file": "cert.pem", "key_file": "key.pem"}
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        self.config.write_text("\n".join(['[controllers.roof]\nurl = "sim:"\n[web]', *lines]))

    def renew(self, certificate: bytes, key: bytes) -> None:
        self.certificate.write_bytes(certificate)
        self.key.write_bytes(key)
        self.key.chmod(0o600)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    async def logged(self, text: str, times: int = 1) -> None:
        assert self.process is not None
        async with asyncio.timeout(30):
            while self.log.count(text) < times:
                assert self.process.returncode is None, self.log
                await asyncio.sleep(0.02)

    async def reload(self) -> None:
        """Send SIGHUP, and wait until it has been acted on."""
        assert self.process is not None
        times = self.log.count("was applied") + self.log.count("was not applied")
        self.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(30):
            while self.log.count("was applied") + self.log.count("was not applied") == times:
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def connected(self, identity: Identity) -> AsyncIterator[Connection]:
        """Connect as a client that trusts only the authority of *identity*. Its certificate must be the one in use."""
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=identity.context)
            used = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert used == ssl.PEM_cert_to_DER_cert(identity.certificate.decode())
            try:
                yield Connection(reader, writer)
            finally:
                writer.close()


@asynccontextmanager
async def gateway(folder: Path, identity: Identity) -> AsyncIterator[Site]:
    site = Site(folder, identity)
    arguments = ("-m", "tracer_async", "gateway", str(site.config))
    async with running(sys.executable, *arguments, log=site.log_file) as site.process:
        await site.logged("dashboard: https://")
        yield site


async def test_new_connections_get_the_renewed_certificate_and_open_ones_go_on(tmp_path: Path) -> None:
    old, new = Identity(), Identity()
    async with gateway(tmp_path, old) as site, site.connected(old) as open_before:
        assert await open_before.answer() == "HTTP/1.1 200 OK"
        site.renew(new.certificate, new.key)
        # Without a signal, nothing is read again.
        async with site.connected(old):
            pass
        await site.reload()
        async with site.connected(new) as opened_after:
            assert await opened_after.answer() == "HTTP/1.1 200 OK"
            with pytest.raises(ssl.SSLCertVerificationError):
                async with site.connected(old):
                    pass
            assert await open_before.answer() == "HTTP/1.1 200 OK"
        assert "ERROR" not in site.log


BROKEN: dict[str, Callable[[Identity], tuple[bytes, bytes]]] = {
    "certificate of garbage": lambda new: (b"garbage", new.key),
    "key of garbage": lambda new: (new.certificate, b"garbage"),
    "half a certificate": lambda new: (new.certificate[: len(new.certificate) // 2], new.key),
    "empty files": lambda _: (b"", b""),
    "key of another certificate": lambda new: (new.certificate, Identity().key),
    "encrypted key": lambda new: (new.certificate, new.encrypted_key),
}


async def test_files_that_cannot_be_used_leave_the_old_certificate_in_use_with_an_error_in_the_log(
    tmp_path: Path,
) -> None:
    old, new = Identity(), Identity()
    async with gateway(tmp_path, old) as site, site.connected(old) as open_before:
        for number, (name, broken) in enumerate(BROKEN.items(), 1):
            site.renew(*broken(new))
            await site.reload()
            errors = [line for line in site.log.splitlines() if "ERROR" in line]
            assert len(errors) == number, name
            assert "the old one stays in use" in errors[-1]
            assert str(site.certificate) in errors[-1]
            async with site.connected(old) as opened_after:
                assert await opened_after.answer() == "HTTP/1.1 200 OK"
        site.certificate.unlink()
        await site.reload()
        assert "cert_file" in site.log.splitlines()[-2]
        async with site.connected(old):
            pass
        site.renew(new.certificate, new.key)
        await site.reload()
        async with site.connected(new):
            assert await open_before.answer() == "HTTP/1.1 200 OK"
