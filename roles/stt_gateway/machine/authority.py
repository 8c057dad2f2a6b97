"""A certificate authority of the gateway's own, and the certificate that nginx shows.

openssl makes both. The directory has ``root/root.crt`` and ``root/root.key``, made once, and
``certificate.pem``, the certificate with its key in one file, so that nginx never reads one without
the other. No key is ever on a command line.
"""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT_DAYS, DAYS = 20 * 365, 365
#: Days before its end at which a certificate is replaced.
RENEW_DAYS = 60
_ADDRESS = re.compile(r"[\d.]+")
_PROGRAM = "/usr/bin/openssl"
#: Seconds that it gets; it takes some hundredths of one.
_DEADLINE = 60.0


@dataclass(frozen=True)
class Authority:
    """An authority called ``name``, which certifies ``names``: host names and IPv4 addresses."""

    directory: Path
    name: str
    names: Sequence[str]

    @property
    def certificate(self) -> Path:
        """What nginx shows, with its key."""
        return self.directory / "certificate.pem"

    @property
    def _root(self) -> Path:
        return self.directory / "root"

    def renew(self) -> bool:
        """Make what is missing, ends soon or is for other names; whether there is a new one.

        Raises:
            OSError: openssl or the directory cannot be used, or openssl refuses.
        """
        if not self._root.is_dir():
            self._make_root()
        if self._is_good():
            return False
        self._make_certificate()
        return True

    def _is_good(self) -> bool:
        asked = self.directory / "certificate.cnf"
        if not self.certificate.is_file() or not asked.is_file():
            return False
        if asked.read_text() != self._configuration():
            return False
        kept, root = str(self.certificate), str(self._root / "root.crt")
        seconds = str(RENEW_DAYS * 86400)
        return _succeeds("x509", "-checkend", seconds, "-noout", "-in", kept) and _succeeds(
            "verify", "-CAfile", root, kept
        )

    def _configuration(self) -> str:
        """What openssl is told of both certificates."""
        names = ",".join(
            f"{'IP' if _ADDRESS.fullmatch(name) else 'DNS'}:{name}"
            for name in dict.fromkeys(self.names)
        )
        lines = [
            "[req]",
            "distinguished_name = subject",
            "prompt = no",
            "[subject]",
            f"CN = {self.name}",
            "[root]",
            "basicConstraints = critical,CA:TRUE,pathlen:0",
            "keyUsage = critical,keyCertSign,cRLSign",
            "subjectKeyIdentifier = hash",
            "[server]",
            "basicConstraints = critical,CA:FALSE",
            "keyUsage = critical,digitalSignature",
            "extendedKeyUsage = serverAuth",
            "authorityKeyIdentifier = keyid",
            f"subjectAltName = {names}",
        ]
        return "".join(f"{line}\n" for line in lines)

    def _make_root(self) -> None:
        work = self._work()
        _openssl(
            *("req", "-x509", "-extensions", "root", "-days", str(ROOT_DAYS)),
            *(*_new_key(work / "root.key"), "-config", str(work / "certificate.cnf")),
            *("-out", str(work / "root.crt")),
        )
        (work / "certificate.cnf").unlink()
        work.rename(self._root)

    def _make_certificate(self) -> None:
        work = self._work()
        configuration, key = work / "certificate.cnf", work / "key.pem"
        request, made = work / "request.pem", work / "made.pem"
        _openssl(
            *("req", "-new", *_new_key(key), "-config", str(configuration)),
            *("-subj", f"/CN={self.names[0]}", "-out", str(request)),
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-days", str(DAYS)),
            *("-CA", str(self._root / "root.crt"), "-CAkey", str(self._root / "root.key")),
            *("-set_serial", f"0x{secrets.token_hex(15)}"),
            *("-extfile", str(configuration), "-extensions", "server", "-out", str(made)),
        )
        with made.open("a") as file:
            file.write(key.read_text())
        made.chmod(0o600)
        made.replace(self.certificate)
        configuration.replace(self.directory / configuration.name)
        shutil.rmtree(work)

    def _work(self) -> Path:
        """A new directory that nobody else reads, with openssl's configuration."""
        work = self.directory / "new"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        (work / "certificate.cnf").write_text(self._configuration())
        return work


def _new_key(file: Path) -> tuple[str, ...]:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    return (*curve, "-nodes", "-keyout", str(file))


def _succeeds(*words: str) -> bool:
    return _run(*words).returncode == 0


def _openssl(*words: str) -> None:
    done = _run(*words)
    if done.returncode:
        raise OSError(f"openssl {words[0]} failed: {done.stderr.strip()[-300:]}")


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603  # openssl, with this module's words
            [_PROGRAM, *words], capture_output=True, check=False, text=True, timeout=_DEADLINE
        )
    except subprocess.TimeoutExpired:
        raise OSError(
            f"openssl {words[0]} has not ended in {_DEADLINE:.0f} s. See what keeps the machine "
            "busy (top), then restart stt-gateway-watcher."
        ) from None
