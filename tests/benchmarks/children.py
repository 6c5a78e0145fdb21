"""Functions run in processes of their own: each figure starts clean, and none runs for ever."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection

T = TypeVar("T")

_SPAWN = multiprocessing.get_context("spawn")


class ChildError(Exception):
    """A child ended without a result; the message says why."""


def run(
    function: Callable[..., T],
    *arguments: object,
    timeout: float,
    leader: bool = False,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> T:
    """Run a module's function in a new process and return what it returned.

    The process ends at once with the result, without its threads' and libraries' farewells.

    Args:
        function: A function at the top of a module.
        arguments: Its arguments, which must pickle.
        timeout: Seconds after which the process is killed.
        leader: Make it the leader of a process group, which ends with it: for what starts
            processes of its own.
        environment: What the process's environment has besides this one's.

    Raises:
        ChildError: if the function raised, or the time was up.
    """
    receiver, sender = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_main, args=(sender, leader, function, arguments))
    with _environment(environment):
        process.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            raise ChildError(f"{function.__module__} took longer than {timeout:g} s")
        try:
            result, error = receiver.recv()
        except EOFError:
            process.join(1)  # it has something to say on stderr
            raise ChildError(f"{function.__module__} ended without a result") from None
    finally:
        end = os.killpg if leader else os.kill
        with suppress(ProcessLookupError):  # it may have ended, or not yet become a leader
            end(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
        receiver.close()
    if error is not None:
        raise ChildError(error)
    value: T = result
    return value


@contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _main(
    sender: Connection, leader: bool, function: Callable[..., Any], arguments: tuple[object, ...]
) -> None:
    if leader:
        os.setsid()
    try:
        result, error = function(*arguments), None
    except BaseException:  # noqa: BLE001 - told to the parent, which raises it
        result, error = None, traceback.format_exc()
    sender.send((result, error))
    sender.close()
    signal.pause()  # until the parent has read it and kills
