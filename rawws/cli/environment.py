"""Environment: options of `rawws serve` from variables: RAWWS_MAX_SIZE is --max-size, and PORT is --port."""

from __future__ import annotations

import argparse
import difflib
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["EnvironmentParser", "options_in", "variable_of"]

PREFIX = "RAWWS_"
# Which twin runs, whether it has to be compiled, and the keys: no options of `serve`.
OTHERS = frozenset({"RAWWS_ADMIN_KEY", "RAWWS_KEY", "RAWWS_PURE", "RAWWS_REQUIRE_COMPILED"})
# Options without a value; of those that are on where nothing is said, the word that turns them off.
FLAGS = {"--access-log": "", "--asgi": "", "--compression": "--no-compression", "--factory": "", "--log-json": "",
         "--probes": "", "--proxy-protocol": "", "--reload": ""}  # fmt: skip
# What Kubernetes sets in each container for a Service that is called rawws, or rawws-something, and its ports.
SERVICE = re.compile(r"RAWWS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)")
SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")
SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class EnvironmentParser(argparse.ArgumentParser):
    """A parser of words, some of which came from variables: what is wrong with those is told of the variable."""

    # By the option: the variable that gave it.
    variables: Mapping[str, str] = MappingProxyType({})
    # The parsers of the commands.
    commands: Mapping[str, EnvironmentParser] = MappingProxyType({})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with 2."""
        for option, variable in self.variables.items():
            if message.startswith(f"argument {option}: "):
                message = f"{variable}: {message.removeprefix(f'argument {option}: ')}"
        super().error(message)

    def closest(self, word: str) -> str:
        """Return the option that a mistaken one was probably meant to be, "" for none."""
        known = sorted(set(re.findall(r"--[a-z][a-z-]*", self.format_help())))
        return next(iter(difflib.get_close_matches(word.partition("=")[0], known, 1)), "")


def options_in(environ: Mapping[str, str], words: Iterable[str]) -> dict[str, str]:
    """Return what the environment says, as words of the command line by variable; `words` there count first.

    What Kubernetes says of a Service that is called rawws is none of it. Raises ValueError for a value of an option
    that has none and is neither on nor off.
    """
    given = {word.partition("=")[0] for word in words}
    found = {}
    environ = {variable: value for variable, value in environ.items() if not _is_of_service(variable, value)}
    for variable, value in environ.items():
        option = "--" + variable.removeprefix(PREFIX).lower().replace("_", "-")
        if variable == "PORT":
            # That of Heroku, Cloud Run, Render and others.
            if f"{PREFIX}PORT" in environ or "--uds" in given or f"{PREFIX}UDS" in environ:
                continue
        elif not variable.startswith(PREFIX) or variable in OTHERS:
            continue
        if not value or option in given or option.replace("--", "--no-", 1) in given:
            continue
        if option not in FLAGS:
            found[variable] = f"{option}={value}"
            continue
        if value.lower() not in SWITCH:
            raise ValueError(f"{variable} is {value!r}, allowed are {', '.join(SWITCH)}")
        word = option if SWITCH[value.lower()] else FLAGS[option]
        if word:
            found[variable] = word
    return found


def _is_of_service(variable: str, value: str) -> bool:
    """Tell whether a variable is what Kubernetes says of a Service: RAWWS_PORT is then a URL."""
    named = SERVICE.fullmatch(variable) is not None
    return named or (variable.startswith(PREFIX) and variable.endswith("PORT") and SERVICE_URL.match(value) is not None)


def variable_of(option: str) -> str:
    """Return the variable that stands for an option, "" for none."""
    return f"{PREFIX}{option[2:].replace('-', '_').upper()}" if option else ""
