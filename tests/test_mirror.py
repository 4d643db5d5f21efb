"""What an App uses of the registry follows it, whatever fails or takes long on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import msgspec
import pytest

from fan import App, Settings
from fan.discovery import Discovery
from fan.errors import DeadlineExceeded, InvalidArgument
from fan.mirror import MOST_PASSING, Mirror, State
from fan.model import Instance, Interface
from tests.shaky import BOUND, Shaky


@pytest.fixture
def store() -> Iterator[Shaky]:
    with Shaky() as store:
        yield store
        store.gate.set()


@pytest.fixture
def mirror(store: Shaky) -> Iterator[Mirror]:
    made = Mirror(lambda: store)
    yield made
    store.gate.set()
    made.close()


def followed(mirror: Mirror) -> threading.Event:
    told = threading.Event()
    mirror.listen(lambda state: told.set())
    return told


def test_a_reading_behind_a_change_that_fails_is_done_again(store: Shaky, mirror: Mirror) -> None:
    store.set(k=b"1")
    mirror.use("config/a/k")
    told = followed(mirror)
    store.failing += ["head"] * 3
    store.set(k=b"2")
    assert told.wait(BOUND)
    assert store.failed.is_set()
    assert mirror.state.body("config/a/k") == b"2"


def test_a_caller_waits_for_the_reading_of_another_until_its_own_deadline(
    store: Shaky, mirror: Mirror
) -> None:
    mirror.use("config/a/k")
    store.gate.clear()
    slow = threading.Thread(target=mirror.refresh, args=(time.monotonic() + BOUND,))
    slow.start()
    assert store.is_reached.wait(BOUND)
    for read in (lambda at: mirror.use("config/a/other", deadline=at), mirror.refresh):
        with pytest.raises(DeadlineExceeded) as caught:
            read(time.monotonic() + 0.02)
        assert caught.value.executed == "no"
    assert mirror.use("config/a/k").wants("config/a/k")  # what is at hand waits for nobody
    store.gate.set()
    slow.join(BOUND)
    assert not slow.is_alive()


def test_who_cannot_take_a_change_over_keeps_no_other_from_it(
    store: Shaky, mirror: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(state: State) -> None:
        raise ValueError("a bug")

    mirror.use("config/a/k")
    mirror.listen(fail)
    told = followed(mirror)
    store.set(k=b"1")
    assert told.wait(BOUND)
    assert "generation 1 was not taken over by all" in caplog.text


def test_an_instance_that_went_is_forgotten_though_the_reading_behind_it_failed(
    store: Shaky,
) -> None:
    elsewhere, mine = Discovery(lambda: store, live=False), Discovery(lambda: store)
    one = Instance(id="a-1", service="a", version="1.0.0")
    elsewhere.register(one, Interface(service="a", version="1.0.0"))
    try:
        assert mine.service("a").instances == (one,)
        changed = threading.Event()
        end = mine.watch(changed.set)
        store.failing += ["list"] * 3
        elsewhere.deregister("a-1")
        while mine.service("a").instances:
            assert changed.wait(BOUND)
            changed.clear()
        assert store.failed.is_set()
        end()
    finally:
        mine.close()
        elsewhere.close()


def test_who_watches_holds_up_no_look_up(store: Shaky) -> None:
    elsewhere, mine = Discovery(lambda: store, live=False), Discovery(lambda: store)
    elsewhere.register(
        Instance(id="a-1", service="a", version="1.0.0"), Interface(service="a", version="1.0.0")
    )
    elsewhere.adopt("a", "1.0.0")
    is_called, go, changed = threading.Event(), threading.Event(), threading.Event()

    def sleep() -> None:
        if changed.is_set():
            is_called.set()
            assert go.wait(BOUND)

    try:
        mine.service("a")
        end = mine.watch(sleep)
        changed.set()
        elsewhere.adopt("a", "2.0.0", force=True)
        assert is_called.wait(BOUND)
        elsewhere.adopt("a", "3.0.0", force=True)
        fresh = mine.again("a", time.monotonic() + BOUND)
        assert fresh.route is not None
        assert list(fresh.route.versions) == ["3.0.0"]
    finally:
        go.set()
        end()
        mine.close()
        elsewhere.close()


class Limits(msgspec.Struct):
    k: int = 0


def test_a_program_that_is_told_of_a_config_holds_up_nobody(store: Shaky) -> None:
    is_called, go = threading.Event(), threading.Event()

    def sleep(value: Limits) -> None:
        is_called.set()
        assert go.wait(BOUND)

    with App(settings=Settings(), store=store) as app:
        first, second = app.config.bind("a", Limits, sleep), app.config.bind("a", Limits)
        store.set(k=b"1")
        assert is_called.wait(BOUND)
        assert (first.value.k, second.value.k) == (1, 1)
        gen = store.set(k=b"2")
        assert app.mirror.refresh(time.monotonic() + BOUND).gen == gen
        assert (first.value.k, second.value.k) == (2, 2)
        assert app.consumer is not None
        assert app.consumer.record.applied.gen == gen
        go.set()


def test_a_new_name_reads_itself_and_nothing_that_was_read_before(
    store: Shaky, mirror: Mirror
) -> None:
    store.set(**{f"k{n}": b"0" for n in range(20)})
    for n in range(20):
        assert mirror.use(f"config/a/k{n}").body(f"config/a/k{n}") == b"0"
    assert store.readings[1:] == [(f"config/a/k{n}",) for n in range(1, 20)]


def test_a_new_name_is_read_as_of_the_generation_that_it_comes_into(
    store: Shaky, mirror: Mirror
) -> None:
    store.set(old=b"1", new=b"1")
    mirror.use("config/a/old")
    assert mirror._watch is not None
    mirror._watch.close()  # no hint comes
    gen = store.set(old=b"2", new=b"2")
    state = mirror.use("config/a/new")
    assert (state.gen, state.body("config/a/old"), state.body("config/a/new")) == (gen, b"2", b"2")

    def refuse(state: State) -> None:
        if state.body("config/a/old") == b"3":
            raise InvalidArgument("no")

    mirror.validate(refuse)
    store.set(old=b"3", late=b"3")
    state = mirror.use("config/a/late")
    assert (state.gen, state.body("config/a/old"), state.body("config/a/late")) == (gen, b"2", None)


def test_what_was_looked_at_in_passing_is_let_go_and_what_is_built_on_stays(
    store: Shaky, mirror: Mirror
) -> None:
    store.set(kept=b"1", x0=b"0")
    mirror.use("config/a/kept", is_passing=True)
    mirror.use("config/a/kept")
    for n in range(2 * MOST_PASSING + 1):
        mirror.use(f"config/a/x{n}", is_passing=True)
    names = mirror.state.names
    assert len(names) == MOST_PASSING + 1
    assert mirror.state.body("config/a/kept") == b"1"
    assert "config/a/x0" not in mirror.state.objects
    assert mirror.use("config/a/x0", is_passing=True).body("config/a/x0") == b"0"
