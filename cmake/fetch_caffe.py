"""Fetches the source of Caffe 1.0 by the machine's own package source.

    fetch_caffe.py DOWNLOAD_DIR SOURCE_DIR [OWN]

Debian's source package is downloaded into DOWNLOAD_DIR, compared with the
checksums below, and unpacked as SOURCE_DIR, which appears only when it is
complete.  OWN takes the download's place: a folder with the package's two
archives, or a checkout of BVLC/caffe at that commit, which is compared with
the hash of its files.  Nothing is done where SOURCE_DIR exists.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "caffe"
VERSION = "1.0.0+git20180821.99bd997-8"
RELEASE = "bullseye"
ORIGINAL = "caffe_1.0.0+git20180821.99bd997.orig.tar.gz"
DEBIAN = "caffe_1.0.0+git20180821.99bd997-8.debian.tar.xz"
SHA256 = {
    ORIGINAL: "e0eb3f06794f7402c77b7dec8e8480273ee1a1bb192e9122b621a69d4147ad0c",
    DEBIAN: "07cf073227494a6b07234e40cb5df91db566616593eef9baafdc4d06ad159f21",
}
# Git's hash of the files of that commit of BVLC/caffe: of what ORIGINAL unpacks to.
COMMIT = "99bd99795dcdf0b1d3086a8d67ab1782a8a08383"
TREE = "660066a34ecbb387946ab4feede1b916ef0bcfa5"
OWN_TREE = (
    f"or set CAFFE_SOURCE to a folder with {ORIGINAL} and {DEBIAN}, or to a checkout of BVLC/caffe "
    f"at {COMMIT[:7]}, or CAFFE_ROOT to a Caffe tree that you have"
)


class FetchError(Exception):
    """Says why Caffe's source cannot be had, and what to do."""


def run(command: list[str], failure: str, **options) -> str:
    """Runs a command; returns its standard output, or raises with its last words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    sys.stdout.write(done.stdout + done.stderr)
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip().splitlines() or [f"exit {done.returncode}"]
        errors = [line for line in words if line.startswith(("E:", "fatal:", "error:"))]
        raise FetchError(f"{failure} ({[*errors, words[-1]][0].strip()})")
    return done.stdout


def configured_site() -> str:
    """The package source of this machine's apt that carries Debian's main archive."""
    if not shutil.which("apt-get"):
        raise FetchError(f"no apt-get here to download Caffe's source with: have one, {OWN_TREE}")
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


def verify(directory: Path, keep: bool = False) -> None:
    """Compares the files with their checksums; a wrong one is set aside, a user's is left."""
    for name, expected in SHA256.items():
        path = directory / name
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected and keep:
            raise FetchError(f"{path} has the checksum {found}, not {expected}")
        if found != expected:
            path.rename(path.with_name(name + ".wrong"))
            raise FetchError(
                f"{name} has the checksum {found}, not {expected}: the file is damaged or not "
                "the one that was reviewed; it was renamed to *.wrong, run again to download it"
            )


def unpack(directory: Path, staging: Path) -> None:
    """Unpacks both archives and applies Debian's patches."""
    for name in (ORIGINAL, DEBIAN):
        with tarfile.open(directory / name) as archive:
            archive.extractall(staging)  # its checksum is known
    patches = staging / "debian" / "patches"
    for name in (patches / "series").read_text().split():
        run(
            ["patch", "--strip=1", "--batch", "--no-backup-if-mismatch", "-i", patches / name],
            f"Debian's patch {name} cannot be applied",
            cwd=staging,
        )


def copy_checkout(checkout: Path, staging: Path) -> None:
    """The files of the commit, from a clone of BVLC/caffe or a plain copy of its files."""
    git = ["git", "-c", "core.autocrlf=false", "-c", "safe.directory=*"]
    with tempfile.TemporaryDirectory() as folder:
        if (checkout / ".git").exists():
            repository, tree = ["-C", checkout], f"{COMMIT}^{{tree}}"
            failure = f"{checkout} has no commit {COMMIT[:7]} of BVLC/caffe"
            found = run([*git, *repository, "rev-parse", "--verify", tree], failure).strip()
        else:
            repository = [f"--git-dir={folder}", f"--work-tree={checkout}"]
            run([*git, f"--git-dir={folder}", "init", "--quiet"], "git cannot work")
            run([*git, *repository, "add", "--all", "--force", "."], f"{checkout} cannot be read")
            found = run([*git, *repository, "write-tree"], f"{checkout} cannot be read").strip()
        if found != TREE:
            raise FetchError(
                f"{checkout} is not BVLC/caffe at {COMMIT[:7]}: its files have the hash "
                f"{found}, not {TREE}"
            )
        archive = Path(folder, "caffe.tar")
        run([*git, *repository, "archive", f"--output={archive}", TREE], "git cannot archive")
        with tarfile.open(archive) as packed:
            packed.extractall(staging)


def fetch(directory: Path, source: Path, own: Path | None = None) -> None:
    """Downloads what is missing, or takes what is given; verifies, and unpacks beside SOURCE."""
    if source.is_dir():
        return
    if own and not own.is_dir():
        raise FetchError(f"CAFFE_SOURCE={own}: no such folder")
    staging = source.with_name(source.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    if own and not all((own / name).is_file() for name in SHA256):
        copy_checkout(own, staging)
    else:
        if own:
            directory = own
        directory.mkdir(parents=True, exist_ok=True)
        if not all((directory / name).is_file() for name in SHA256):
            download(directory)
        verify(directory, keep=bool(own))
        unpack(directory, staging)
    staging.rename(source)


def main() -> int:
    os.environ["LC_ALL"] = "C"
    if len(sys.argv) not in (3, 4):
        print(f"usage: {sys.argv[0]} DOWNLOAD_DIR SOURCE_DIR [OWN]", file=sys.stderr)
        return 2
    try:
        fetch(*(Path(argument).resolve() for argument in sys.argv[1:]))
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
