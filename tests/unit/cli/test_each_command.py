"""What the slow tests of every command try is every command."""

from __future__ import annotations

from tests.support import each_command
from tracker.cli.main import cli as sync
from tracker.collector.main import cli as collector


def test_each_command_of_tracker_sync_has_arguments_to_be_tried_with() -> None:
    assert {*each_command.names(sync)} - {"demo"} == {*each_command.SYNC}


def test_each_command_of_tracker_collector_has_arguments_to_be_tried_with() -> None:
    assert {*each_command.names(collector)} == {*each_command.COLLECTOR}
