"""Behaviour 31: streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fan.errors import DeadlineExceeded, FanError, NotFound, Unimplemented
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.deadlines import BRIEF
from fan.testing.contracts.harness import Harness, World, needs
from fan.testing.contracts.probe import BOUND, OutOfStock, Probe, probe

#: More items than any window and any buffer of a transport hold.
ENDLESS = 1_000_000


class Streams(Harness):
    """A generator on one side, an iterator on the other."""

    @needs("stream")
    @pytest.mark.parametrize("method", ["count", "count_async"])
    def test_items_arrive_in_order(self, caller: Caller, method: str) -> None:
        assert caller.stream(f"probe.{method}", 500).rest() == list(range(500))

    @needs("stream")
    @pytest.mark.parametrize("method", ["count", "count_async"])
    def test_an_empty_stream_ends(self, caller: Caller, method: str) -> None:
        assert caller.stream(f"probe.{method}", 0).rest() == []

    @needs("stream")
    def test_streams_do_not_mix(self, caller: Caller) -> None:
        readers = [caller.stream("probe.count", 50) for _ in range(4)]
        rows = [[reader.next() for reader in readers] for _ in range(50)]
        assert rows == [[n] * 4 for n in range(50)]
        assert all(reader.rest() == [] for reader in readers)

    @needs("stream")
    def test_calls_go_on_beside_an_open_stream(self, caller: Caller) -> None:
        reader = caller.stream("probe.count", ENDLESS)
        assert reader.next() == 0
        assert caller.call("probe.add", 1) == 2
        assert reader.next() == 1
        reader.close()

    @needs("stream")
    def test_a_slow_reader_stops_the_generator(self, caller: Caller, served: Probe) -> None:
        reader = caller.stream("probe.count", ENDLESS)
        assert reader.next() == 0
        caller.times(8, "probe.echo")  # time enough to run ahead
        assert len(served.yielded) < 100_000
        assert not served.closed.is_set()
        reader.close()

    @needs("stream")
    def test_closing_the_reader_closes_the_generator(self, caller: Caller, served: Probe) -> None:
        reader = caller.stream("probe.count", ENDLESS)
        assert [reader.next() for _ in range(3)] == [0, 1, 2]
        reader.close()
        assert served.closed.wait(BOUND)
        assert len(served.yielded) < ENDLESS
        assert caller.call("probe.add", 1) == 2

    @needs("stream")
    def test_a_reader_that_never_began_leaves_nothing_behind(
        self, caller: Caller, served: Probe
    ) -> None:
        caller.stream("probe.count", ENDLESS).close()
        assert caller.call("probe.add", 1) == 2
        assert not served.yielded or served.closed.wait(BOUND)

    @needs("stream")
    def test_an_error_in_mid_stream_arrives_after_the_items_before_it(self, caller: Caller) -> None:
        reader = caller.stream("probe.count_then_fail", 3)
        assert [reader.next() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OutOfStock, match="the stream broke") as info:
            reader.next()
        assert info.value.details == {"after": 3}
        assert info.value.executed == "yes"
        assert caller.call("probe.add", 1) == 2

    @needs("stream")
    def test_an_error_before_the_first_item_arrives(self, caller: Caller) -> None:
        with pytest.raises(OutOfStock):
            caller.stream("probe.count_then_fail", 0).next()

    @needs("stream")
    def test_bad_arguments_of_a_stream_are_refused(self, caller: Caller, served: Probe) -> None:
        assert stream_failure(caller, "probe.count", "three").code == "invalid_argument"
        assert served.yielded == []

    @needs("stream")
    def test_an_unknown_stream_is_told(self, caller: Caller) -> None:
        assert isinstance(stream_failure(caller, "nobody.count", 1), NotFound)
        assert isinstance(stream_failure(caller, "probe.nothing", 1), Unimplemented)

    @needs("stream")
    def test_a_plain_method_is_no_stream(self, caller: Caller, served: Probe) -> None:
        failure = stream_failure(caller, "probe.add", 1)
        assert isinstance(failure, Unimplemented)
        assert failure.reason == "streaming_unsupported"

    def test_a_stream_is_no_plain_call(self, caller: Caller) -> None:
        failure = caller.failure("probe.count", 3)
        assert isinstance(failure, Unimplemented)
        assert (failure.reason, failure.executed) == ("streaming_unsupported", "no")

    @needs("stream")
    def test_the_deadline_covers_the_first_item(self, caller: Caller) -> None:
        reader = caller.using(timeout=0.3).stream("probe.count_then_hold", 0)
        with pytest.raises(DeadlineExceeded):
            reader.next()
        assert caller.call("probe.add", 1) == 2

    @needs("stream")
    def test_the_deadline_is_the_idle_limit_of_the_rest(self, caller: Caller) -> None:
        caller.call("probe.add", 1)  # the registry is read, so that the budget is the stream's
        reader = caller.using(timeout=BRIEF).stream("probe.count_then_hold", 2)
        assert [reader.next(), reader.next()] == [0, 1]
        with pytest.raises(DeadlineExceeded):
            reader.next()
        assert caller.call("probe.add", 1) == 2

    @needs("stream")
    def test_a_stream_that_keeps_moving_outlives_the_deadline(self, caller: Caller) -> None:
        reader = caller.using(timeout=2.5).stream("probe.count_slowly", 4, 0.7)
        assert reader.rest() == list(range(4))  # in 2.8 s; each may be two seconds late

    @needs("stream")
    def test_a_stream_from_inside_a_handler_is_read(
        self, world: World, face: Callable[[Any], Caller]
    ) -> None:
        world.serve(probe("front"))
        world.serve(probe("back"))
        assert face(world.client()).call("front.sum_of", "back.count", 5) == 10


def stream_failure(caller: Caller, target: str, *args: Any) -> FanError:
    """The error of a stream that does not come to be."""
    with pytest.raises(FanError) as info:
        caller.stream(target, *args).next()
    return info.value
