"""The contract of a transport, held against calls inside one App.

A local call is the method itself, so what takes two ends or a wire does not apply: the gates say
which and why. The time-out of behaviour 11 is reported when the handler returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import fan
from fan.errors import DeadlineExceeded
from fan.testing.contracts import TransportContract
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.context import RELAYS, SAMPLED
from fan.testing.contracts.deadlines import serve_three
from fan.testing.contracts.harness import World
from fan.testing.contracts.probe import Probe, probe

ONE_INSTANCE = "an App hosts what it calls: there is one instance, and it is here"
NO_WIRE = "nothing is sent, so nothing can be bad, late or lost on its way"
NO_LAYERS = "a local call is the method itself: no retry, no breaker, no key"
NOT_CANCELLED = "a local call runs in the caller's own thread: nobody else could cancel it"
NO_LIMIT = "a local call is the method itself, and has no limit of its own"
OTHER_PROCESS = "a local call never leaves its process"


class TestLocal(TransportContract):
    scheme: ClassVar[str] = "local"
    is_local: ClassVar[bool] = True
    gates: ClassVar[dict[str, str]] = {
        "test_a_payload_above_the_limit_is_refused_clearly": NO_LIMIT,
        "test_a_reply_above_the_limit_is_an_error_and_the_next_call_works": NO_LIMIT,
        "test_the_server_lives_through_garbage": NO_WIRE,
        "test_a_server_that_answers_garbage_fails_the_call_within_its_deadline": NO_WIRE,
        "test_a_request_for_a_service_that_is_not_here_is_answered": NO_WIRE,
        "test_a_traceback_comes_where_the_server_allows_it": "the exception itself has it",
        "test_a_reply_that_drips_in_is_deadline_exceeded": NO_WIRE,
        "test_a_server_that_accepts_and_says_nothing_is_deadline_exceeded": NO_WIRE,
        "test_the_transport_survives_a_cancelled_call": NOT_CANCELLED,
        "test_a_handler_learns_that_its_caller_gave_up": NOT_CANCELLED,
        "test_a_full_bulkhead_refuses_at_once": NO_LIMIT,
        "test_a_full_bulkhead_of_the_caller_refuses_at_once": NO_LIMIT,
        "test_an_idempotent_method_is_retried_and_sees_its_attempt": NO_LAYERS,
        "test_spans_are_finished_with_the_right_parents_and_real_times": NO_LAYERS,
        "test_a_failure_is_the_error_of_its_spans": NO_LAYERS,
        "test_retries_end_after_the_attempts_allowed": NO_LAYERS,
        "test_a_call_that_wants_no_retry_gets_none": NO_LAYERS,
        "test_what_was_not_executed_is_retried_elsewhere": ONE_INSTANCE,
        "test_an_address_where_nobody_listens_is_connect_failed": NO_WIRE,
        "test_retries_respect_the_deadline": NO_LAYERS,
        "test_retries_respect_the_budget": NO_LAYERS,
        "test_the_same_key_runs_once_and_gets_the_same_reply": NO_LAYERS,
        "test_the_breaker_opens_for_one_method_of_one_instance": NO_LAYERS,
        "test_time_outs_open_the_breaker": NO_LAYERS,
        "test_an_open_breaker_of_one_instance_leaves_the_others": NO_LAYERS,
        "test_one_probe_goes_through_when_the_breaker_is_half_open": NO_LAYERS,
        "test_each_call_runs_on_exactly_one_instance_and_the_load_spreads": ONE_INSTANCE,
        "test_a_stopped_instance_gets_nothing": ONE_INSTANCE,
        "test_an_instance_that_comes_later_gets_its_share": ONE_INSTANCE,
        "test_one_instance_can_be_asked_by_its_id": ONE_INSTANCE,
        "test_no_instance_is_unavailable": ONE_INSTANCE,
        "test_draining_under_load_fails_no_call": ONE_INSTANCE,
        "test_a_newest_version_without_instances_is_skipped": ONE_INSTANCE,
        "test_the_same_shard_key_reaches_the_same_instance": ONE_INSTANCE,
        "test_a_draining_server_refuses_what_is_new": ONE_INSTANCE,
        "test_a_call_goes_to_another_process": OTHER_PROCESS,
        "test_a_server_killed_in_mid_call_is_connection_lost": OTHER_PROCESS,
        "test_a_killed_server_is_unavailable_until_another_comes": OTHER_PROCESS,
        "test_an_idempotent_call_goes_on_at_another_instance": OTHER_PROCESS,
        "test_calls_go_on_while_one_of_two_servers_is_killed": OTHER_PROCESS,
        "test_a_client_that_forks_keeps_its_answers_apart": OTHER_PROCESS,
        "test_baggage_that_grew_beyond_its_limit_is_refused": "nothing is sent",
        "test_a_late_reply_is_dropped_and_the_next_call_gets_its_own": "there is one reply only",
    }

    def test_a_slow_handler_is_deadline_exceeded(self, caller: Caller, served: Probe) -> None:
        pending = caller.using(timeout=1.0).start("probe.hold", "slow")
        assert served.wait_entered() == "slow"
        threading.Event().wait(1.1)  # the budget itself
        served.gate("slow").set()
        failure = _failure(pending.result)
        assert isinstance(failure, DeadlineExceeded)
        assert (failure.reason, failure.executed) == ("server_timer", "yes")
        assert caller.call("probe.add", 1) == 2

    @RELAYS
    def test_one_trace_goes_through_all_hops_with_the_right_parents(
        self, world: World, face: Callable[[Any], Caller], relay: str
    ) -> None:
        serve_three(world)
        hops = face(world.client()).call(f"alpha.{relay}", ["beta", "gamma"])
        assert [hop["service"] for hop in hops] == ["alpha", "beta", "gamma"]
        assert len({hop["trace_id"] for hop in hops}) == 1  # one trace, and no span of each hop
        assert [hop["hops"] for hop in hops] == [0, 1, 2]

    def test_mutating_an_argument_does_not_reach_the_caller(self, world: World) -> None:
        class Mutator(Probe):
            name = "mutator"

            @fan.rpc
            def spoil(self, items: list[int]) -> list[int]:
                items.append(0)
                return items

        app = world.serve(Mutator())
        mine = [1]
        got = app.call("mutator.spoil", mine)
        assert (mine, got) == ([1], [1, 0])

    def test_by_reference_unless_strict(self, world: World) -> None:
        app = world.app(probe(), strict_local=False)
        thing = object()
        assert app.call("probe.echo", thing)["args"][0] is thing

    def test_a_trace_of_the_callers_own_is_kept(self, world: World) -> None:
        app = world.serve(probe())
        with fan.Context.at(app, own_traceparent=SAMPLED):
            assert app.call("probe.relay", [])[0]["trace_id"] == SAMPLED[3:35]


def _failure(act: Callable[[], Any]) -> BaseException:
    try:
        value = act()
    except Exception as exc:
        return exc
    raise AssertionError(f"no error but {value!r}")
