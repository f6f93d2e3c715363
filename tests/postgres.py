"""A PostgreSQL server of the tests' own: in a folder, reached by a socket in it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

#: Where Debian keeps the programs of the server, which are not on the path.
FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def find_program(name):
    """Path of a program of PostgreSQL; `None` if it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, FOLDERS)])
    return shutil.which(name, path=path)


def is_installed():
    """Whether a server can be started."""
    return all(map(find_program, ("initdb", "pg_ctl", "postgres")))


def _user():
    """The server refuses to run as root: another user, `None` for who runs this."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


@contextlib.contextmanager
def running_server():
    """Start a server; its URL without a name of a database."""
    user = _user()
    # Not in a folder of pytest, into which another user may not look.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if user is not None:
        shutil.chown(folder, user)
    who = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid}

    def run(program, *arguments):
        done = subprocess.run(
            [find_program(program), *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **who,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    try:
        run("initdb", "-D", data, "-A", "trust", "-U", "flows", "-E", "UTF8", "-N")
        log = str(folder / "log")
        run("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        try:
            yield f"postgresql://flows@/{{database}}?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_database(server, name):
    """Make a database; its URL."""
    import psycopg

    with psycopg.connect(server.format(database="postgres"), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    return server.format(database=name)
