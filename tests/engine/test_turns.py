from __future__ import annotations

import threading
import time

from radloop.engine.turns import Turns


def test_work_in_the_background_waits_for_readers_and_a_while_after_them() -> None:
    turns, ends = Turns(), list[float]()
    started, go_on = threading.Event(), threading.Event()
    assert turns.give_way() < 0.1, "nobody has asked for anything yet"

    def read() -> None:
        with turns:
            started.set()
            go_on.wait(10)
        ends.append(time.monotonic())

    def wait_for_it() -> None:
        with turns:
            time.sleep(0.05)
        ends.append(time.monotonic())

    readers = [threading.Thread(target=read)]
    readers[0].start()
    assert started.wait(10)
    readers.append(threading.Thread(target=wait_for_it))
    readers[1].start()
    threading.Timer(0.2, go_on.set).start()
    waited = turns.give_way(quiet=0.3)
    done = time.monotonic()
    assert len(ends) == 2, "also for the one who had to wait"
    assert waited > 0.2
    assert done - max(ends) > 0.25
    for reader in readers:
        reader.join()


def test_one_answer_at_a_time_also_after_one_that_failed() -> None:
    turns, inside, most = Turns(), list[int](), list[int]()

    def answer(fails: bool) -> None:
        try:
            with turns:
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.01)
                inside.pop()
                if fails:
                    raise ValueError
        except ValueError:
            pass

    threads = [threading.Thread(target=answer, args=(n % 2 == 0,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert turns.give_way(quiet=0.0) < 0.1
