"""The breaker, with time passed in."""

from caiafs.store.breaker import Breaker, BreakerState


def a_breaker(failures=3, reset_s=10.0):
    return Breaker(failures=failures, reset_s=reset_s)


def failed(breaker, times, now=0.0):
    for _ in range(times):
        breaker.record_failure(now)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row():
    breaker = failed(a_breaker(), 2)
    assert breaker.state(0) is BreakerState.CLOSED

    failed(breaker, 1)

    assert breaker.state(0) is BreakerState.OPEN
    assert not breaker.admit(0)


def test_success_starts_the_count_again():
    breaker = failed(a_breaker(), 2)
    breaker.record_success()

    failed(breaker, 2)

    assert breaker.admit(0)


def test_after_its_time_it_lets_one_call_through():
    breaker = failed(a_breaker(), 3)

    assert breaker.state(10) is BreakerState.HALF_OPEN
    assert breaker.admit(10)
    assert not breaker.admit(10)


def test_the_trial_call_decides():
    breaker = failed(a_breaker(), 3)
    breaker.admit(10)
    breaker.record_failure(10)
    assert breaker.state(15) is BreakerState.OPEN

    breaker.admit(20)
    breaker.record_success()

    assert breaker.state(20) is BreakerState.CLOSED


def test_cancelled_trial_leaves_room_for_another():
    breaker = failed(a_breaker(), 3)
    breaker.admit(10)

    breaker.record_nothing()

    assert breaker.admit(10)


def test_store_that_asks_for_time_gets_it():
    breaker = a_breaker()

    breaker.record_failure(0, retry_after_s=60)

    assert not breaker.admit(59)
    assert breaker.wait_s(20) == 40
    assert breaker.admit(60)
