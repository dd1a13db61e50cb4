"""Fetches the source of Caffe 1.0 by the machine's own package source.

    fetch_caffe.py DOWNLOAD_DIR SOURCE_DIR

Debian's source package is downloaded into DOWNLOAD_DIR, compared with the
checksums below, and unpacked as SOURCE_DIR, which appears only when it is
complete.  Nothing is done where SOURCE_DIR exists.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "caffe"
VERSION = "1.0.0+git20180821.99bd997-8"
RELEASE = "bullseye"
DSC = f"caffe_{VERSION}.dsc"
SHA256 = {
    DSC: "c492f4893fc1ba1fb514b2d9b4763bc78dc93571ea24adc6e604eccbb93cdd64",
    "caffe_1.0.0+git20180821.99bd997.orig.tar.gz": (
        "e0eb3f06794f7402c77b7dec8e8480273ee1a1bb192e9122b621a69d4147ad0c"
    ),
    "caffe_1.0.0+git20180821.99bd997-8.debian.tar.xz": (
        "07cf073227494a6b07234e40cb5df91db566616593eef9baafdc4d06ad159f21"
    ),
}
OWN_TREE = "or set CAFFE_ROOT to a Caffe tree that you have"


class FetchError(Exception):
    """Says why Caffe's source cannot be had, and what to do."""


def run(command: list[str], failure: str, **options) -> str:
    """Runs a command; returns its standard output, or raises with its last words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    sys.stdout.write(done.stdout + done.stderr)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip().splitlines() or [f"exit {done.returncode}"]
        errors = [line for line in words if line.startswith(("E:", "dpkg-source: error"))]
        raise FetchError(f"{failure} ({[*errors, words[-1]][0].strip()})")
    return done.stdout


def configured_site() -> str:
    """The package source of this machine's apt that carries Debian's main archive."""
    indexes = run(
        ["apt-get", "indextargets", "--format", "$(LABEL)|$(SITE)", "Created-By: Packages"],
        "apt-get cannot list its package sources",
    )
    # The label is known after an apt-get update only.
    rows = [line.partition("|") for line in indexes.splitlines()]
    sites = [site for label, _, site in rows if label == "Debian"]
    sites += [site for label, _, site in rows if not label and "security" not in site]
    if not sites:
        raise FetchError(f"apt has no package source of Debian configured: add one, {OWN_TREE}")
    return sites[0]


def download(directory: Path) -> None:
    """Downloads the source package, with lists and caches of its own: no root needed."""
    state = directory / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "sources.list").write_text(f"deb-src {configured_site()} {RELEASE} main\n")
    apt = [
        "apt-get",
        *("-o", f"Dir::Etc::SourceList={state / 'sources.list'}"),
        *("-o", "Dir::Etc::SourceParts=/dev/null"),
        *("-o", f"Dir::State::Lists={state / 'lists'}"),
        *("-o", f"Dir::Cache={state / 'cache'}"),
        *("-o", "APT::Update::Error-Mode=any"),
        *("-o", "APT::Sandbox::User="),
        *("-o", "Acquire::Retries=2"),
        *("-o", "Acquire::http::Timeout=30"),
    ]
    advice = f"check the network and apt's configuration, {OWN_TREE}"
    run([*apt, "update"], f"no list of Debian {RELEASE}'s sources: {advice}")
    run(
        [*apt, "source", "--download-only", f"{PACKAGE}={VERSION}"],
        f"{PACKAGE} {VERSION} cannot be downloaded: {advice}",
        cwd=directory,
    )
    shutil.rmtree(state)


def verify(directory: Path) -> None:
    """Compares the files with their checksums; a wrong one is set aside."""
    for name, expected in SHA256.items():
        path = directory / name
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            path.rename(path.with_name(name + ".wrong"))
            raise FetchError(
                f"{name} has the checksum {found}, not {expected}: the file is damaged or not "
                "the one that was reviewed; it was renamed to *.wrong, run again to download it"
            )


def unpack(directory: Path, source: Path) -> None:
    """Unpacks beside the target, then renames."""
    staging = source.with_name(source.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    source.parent.mkdir(parents=True, exist_ok=True)
    # The checksums above are stronger than the signature, which needs a keyring.
    run(
        ["dpkg-source", "--no-check", "--no-copy", "-x", str(directory / DSC), str(staging)],
        "dpkg-source cannot unpack Caffe",
    )
    staging.rename(source)


def fetch(directory: Path, source: Path) -> None:
    """Downloads what is missing, verifies and unpacks it."""
    if source.is_dir():
        return
    directory.mkdir(parents=True, exist_ok=True)
    if not all((directory / name).is_file() for name in SHA256):
        download(directory)
    verify(directory)
    unpack(directory, source)


def main() -> int:
    os.environ["LC_ALL"] = "C"
    if len(sys.argv) != 3:
        print(f"usage: {sys.argv[0]} DOWNLOAD_DIR SOURCE_DIR", file=sys.stderr)
        return 2
    try:
        fetch(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
