"""Whether a problem is new."""

from __future__ import annotations

import threading

from tracker.once import Once


def test_a_key_is_new_once() -> None:
    once = Once()
    assert [once.is_new("a"), once.is_new("b"), once.is_new("a")] == [True, True, False]
    once.forget()
    assert once.is_new("a")


def test_a_key_is_new_again_after_the_interval() -> None:
    now = 100.0
    once = Once(seconds=60, clock=lambda: now)
    assert once.is_new()
    now = 159.9
    assert not once.is_new()
    now = 160.0
    assert once.is_new()
    assert not once.is_new()


def test_the_oldest_keys_are_forgotten() -> None:
    last = Once(most=1)
    assert [last.is_new(key) for key in "aabba"] == [True, False, True, False, True]


def test_one_of_many_threads_is_first() -> None:
    once, together, first = Once(), threading.Barrier(8), []

    def ask() -> None:
        together.wait()
        if once.is_new("a"):
            first.append(threading.get_ident())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(first) == 1
