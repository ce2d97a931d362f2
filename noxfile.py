"""Sessions, each in an environment of its own: `nox -s core` runs all tests, `nox -s lint` checks the form."""

import nox

nox.options.sessions = ["core", "lint"]


@nox.session
def core(session: nox.Session) -> None:
    session.install("-c", "constraints.txt", ".[test]")
    session.run("python", "-m", "pytest", "-q")


@nox.session
def lint(session: nox.Session) -> None:
    session.install("ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
