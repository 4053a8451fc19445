"""What a run is judged by: each invariant is broken by hand, and must say so."""

from pathlib import Path

import msgspec

from cauce.ports.provider import Timeouts
from cauce.ports.resilience import RecoverySettings
from cauce.server.settings import StreamSettings
from cauce.testing.chaos import CALM, NodeSettings, Rates, write
from cauce.testing.chaos.attempt import Attempt
from cauce.testing.chaos.bounds import Bounds, Outage
from cauce.testing.chaos.faults import Faults
from cauce.testing.chaos.invariants import excused, judge
from cauce.testing.chaos.kept import Connections
from cauce.testing.chaos.oracle import INPUT_TOKENS
from cauce.testing.chaos.reader import Frame, Reader
from cauce.testing.chaos.report import Nodes, page, report
from cauce.testing.chaos.story import Cancel, Story
from cauce.testing.chaos.text import nonce, written

TEXT = written(60, nonce(0))
BOUNDS = Bounds(slack=0.5)


def frame(seq: int, kind: str, data: str, **beside: object) -> Frame:
    body = {"id": "s", "seq": seq, "type": kind, "data": data, "epoch": 1, **beside}
    return Frame(str(seq), b"data: " + msgspec.json.encode(body), 10.0 + seq)


def frames() -> list[Frame]:
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": 2}
    return [
        frame(1, "start", ""),
        frame(2, "status", "", status="attempt"),
        frame(3, "content", TEXT[:30]),
        frame(4, "content", TEXT[30:]),
        frame(5, "complete", TEXT, usage=usage, finish_reason="stop"),
    ]


def reader(seen: list[Frame], name: str = "reader") -> Reader:
    one = Reader("s", name, lambda: 0)
    one.frames = seen
    one.ended_at = seen[-1].at
    return one


def story(seen: list[Frame] | None = None) -> Story:
    log = frames() if seen is None else seen
    told = Story("s", 60, 9.0, state="completed", tail=len(log))
    told.readers = [reader(log)]
    told.replays = [reader(log, "late replay")]
    told.attempts = [
        Attempt("s", 0, "n0", "open", 10.0, served=len(TEXT), tokens=2, told=True, whole=True, closed=14.0),
    ]
    return told


def broken(told: Story, bounds: Bounds = BOUNDS) -> set[str]:
    return {violation.invariant for violation in judge(told, bounds)}


def test_stream_that_went_well_breaks_nothing() -> None:
    assert broken(story()) == set()


def test_hole_in_the_numbers_is_found() -> None:
    log = frames()
    del log[2]
    assert "I1" in broken(story(log))


def test_reader_that_saw_something_else_is_found() -> None:
    told = story()
    told.readers[0].frames = [*told.log[:2], frame(3, "content", TEXT[:29]), *told.log[3:]]
    assert broken(told) == {"I2"}


def test_text_that_nobody_said_is_found() -> None:
    told = story()
    told.attempts[0].served = 20
    assert broken(told) == {"I3"}


def test_second_end_is_found_though_readers_stop_at_the_first() -> None:
    told = story()
    told.tail = 7
    assert broken(told) == {"I5"}


def test_stream_that_ends_otherwise_than_it_says_is_found() -> None:
    told = story()
    told.state = "running"
    assert broken(told) == {"I5"}


def test_content_after_an_acknowledged_cancel_is_found() -> None:
    told = story()
    told.cancels = [Cancel(11.0, 12.0, "n0", "running", 3)]
    assert "I6" in broken(told)


def test_provider_that_was_asked_more_often_than_the_log_tells_is_found() -> None:
    told = story()
    told.attempts.append(Attempt("s", 1, "n0", "open", 10.5, closed=10.6))
    assert "I7" in broken(told)


def test_wrong_bill_is_found() -> None:
    told = story()
    told.attempts[0].tokens = 3
    assert broken(told) == {"I7"}


def test_bill_of_who_took_the_end_over_is_an_estimate() -> None:
    told = story([*frames()[:-1], frame(5, "complete", TEXT, usage={}, finish_reason="stop", epoch=2)])
    told.attempts[0].tokens = 3
    assert broken(told) == set()


def test_connection_that_stays_open_after_the_end_is_found() -> None:
    told = story()
    told.attempts[0].closed = None
    assert broken(told) == {"I9"}


def test_attempt_that_a_node_makes_though_another_has_the_stream_must_end_soon() -> None:
    told = story()
    late = Attempt("s", 1, "n1", "prefill", 11.0, status=200, closed=13.9)
    told.attempts.append(late)
    told.attempts[0].closed = 14.0
    away = Outage("n1", 8.0, 8.5, paused=True)
    assert "I9" in broken(told, Bounds(slack=0.5, renewal=0.25, outages=(away,)))
    late.closed = 11.5
    assert "I9" not in broken(told, Bounds(slack=0.5, renewal=0.25, outages=(away,)))


def test_orphan_that_nobody_takes_is_found() -> None:
    told = story()
    told.attempts[0].whole = False
    told.attempts[0].closed = 11.1
    told.attempts.append(
        Attempt("s", 1, "n1", "prefill", 13.9, TEXT, served=len(TEXT), told=True, whole=True, closed=14.0)
    )
    away = Outage("n0", 11.0, 11.5, paused=False)
    bounds = Bounds(slack=0.5, takeover=1.0, alone=False, outages=(away,))
    assert broken(told, bounds) == {"I11"}
    # Who might take it is away: until 10.9, or until 12.5.
    over, still = Outage("n1", 9.0, 10.9, paused=True), Outage("n1", 10.5, 12.5, paused=True)
    assert broken(told, msgspec.structs.replace(bounds, outages=(away, over))) == {"I11"}
    assert broken(told, msgspec.structs.replace(bounds, outages=(away, still))) == set()
    # It goes when it was not late yet, or when it was.
    soon, later = Outage("n1", 12.3, 13.0, paused=False), Outage("n1", 12.6, 13.0, paused=False)
    assert broken(told, msgspec.structs.replace(bounds, outages=(away, soon))) == set()
    assert broken(told, msgspec.structs.replace(bounds, outages=(away, later))) == {"I11"}


def test_answer_that_breaks_off_is_found() -> None:
    log = [*frames()[:3], frame(4, "error", "cut", final_error=True, partial=TEXT[:30])]
    told = story(log)
    told.state = "incomplete"
    assert "I12" in broken(told)


def cut(*asked: str) -> list[Frame]:
    """The log of an answer that broke after its first words, with further attempts by these strategies."""
    again = [
        frame(4 + place, "error", "it broke", retrying=True, strategy=strategy) for place, strategy in enumerate(asked)
    ]
    end = frame(4 + len(asked), "error", "it broke", final_error=True, partial=TEXT[:30])
    return [*frames()[:3], *again, end]


def broke_off(log: list[Frame], **facts: object) -> Story:
    told = story(log)
    told.state = "incomplete"
    for name, fact in facts.items():
        setattr(told, name, fact)
    told.attempts += [Attempt("s", 1, "n0", "prefill", 12.0, TEXT[:30], status=429, closed=12.0) for _ in log[4:]]
    return told


def with_settings(**settings: object) -> Bounds:
    return Bounds(slack=0.5, settings=msgspec.structs.replace(NodeSettings(), **settings))


def test_answer_may_break_off_after_as_many_recoveries_as_the_settings_have_and_no_sooner() -> None:
    two = with_settings(recovery=RecoverySettings(attempts=2))
    assert "I12" in broken(broke_off(cut("prefill")), two)
    # A retry goes on with nothing.
    assert "I12" in broken(broke_off(cut("prefill", "retry")), two)
    assert broken(broke_off(cut("prefill", "continue")), two) == set()
    assert excused(broke_off(cut()), broke_off(cut()).records(), with_settings(recovery=RecoverySettings(attempts=0)))


def test_answer_may_end_where_it_is_as_long_as_the_settings_allow() -> None:
    end = frame(4, "error", "too long", final_error=True, error_code="payload_too_large", partial=TEXT[:30])
    log = [*frames()[:3], end]
    assert "I12" in broken(broke_off(log))
    assert broken(broke_off(log), with_settings(streams=StreamSettings(max_stream=65_536))) == set()


def test_answer_that_is_gone_on_with_more_often_than_the_settings_have_is_found() -> None:
    log = cut("prefill", "continue")
    assert broken(broke_off(log), with_settings(recovery=RecoverySettings(attempts=1))) == {"I15"}


def test_answer_may_break_off_when_it_is_as_old_as_the_settings_allow() -> None:
    for settings in (
        {"recovery": RecoverySettings(age=5.0)},
        {"recovery": RecoverySettings(no_progress=1.0)},
        {"timeouts": Timeouts(logged=5.0)},
    ):
        assert broken(broke_off(cut()), with_settings(**settings)) == set()
    assert "I12" in broken(broke_off(cut()), with_settings(recovery=RecoverySettings(age=6.0)))


def test_route_that_forbids_going_on_is_kept_to() -> None:
    assert broken(broke_off(cut(), midstream="fail")) == set()
    assert broken(broke_off(cut("prefill"), midstream="fail")) == {"I15"}
    # It may still be opened anew as long as nothing was shown.
    log = [*frames()[:2], frame(3, "error", "x", retrying=True, strategy="again"), frame(4, "content", TEXT[:30])]
    log.append(frame(5, "error", "it broke", final_error=True, partial=TEXT[:30]))
    assert broken(broke_off(log, midstream="fail")) == set()


def test_stitched_seam_of_a_route_that_goes_on_exactly_is_found() -> None:
    log = [*frames()[:3], frame(4, "status", "", status="seam", quality="stitched"), frame(5, "content", TEXT[30:])]
    told = story([*log, frame(6, "complete", TEXT, usage={}, finish_reason="stop", epoch=2)])
    assert broken(told) == set()
    told.midstream = "resume"
    assert broken(told) == {"I15"}


def test_stream_that_nobody_cancelled_and_that_ends_as_cancelled_is_found() -> None:
    told = story([*frames()[:3], frame(4, "cancelled", TEXT[:30], reason="abandoned")])
    told.state = "cancelled"
    assert broken(told) == {"I6"}
    told.leaves = True
    assert broken(told) == set()


def test_stream_that_went_with_its_server_is_judged_by_what_its_readers_have() -> None:
    told = story(frames()[:4])
    told.forgotten, told.readers[0].ended_at, told.attempts[0].closed = 14.0, None, 14.0
    told.readers.append(reader(frames()[:3], "another"))
    told.readers[1].ended_at = None
    told.replays.clear()
    memory = msgspec.structs.replace(BOUNDS, keeps=False)
    assert broken(told, memory) == set()
    told.readers[1].frames = [*frames()[:2], frame(3, "content", TEXT[:29])]
    assert broken(told, memory) == {"I2"}
    del told.readers[1]
    assert broken(told, BOUNDS) == {"I5"}


def test_end_by_a_server_that_stops_and_remembers_nothing_is_none_by_the_provider() -> None:
    told = broke_off(cut())
    memory = msgspec.structs.replace(BOUNDS, keeps=False)
    told.forgotten = 20.0
    assert "I12" in broken(told, memory)
    told.forgotten = 14.0
    assert broken(told, memory) == set()


def test_node_that_is_paused_for_less_than_a_lease_keeps_its_streams() -> None:
    told = story()
    told.attempts[0].whole, told.attempts[0].closed = False, 15.0
    told.readers[0].ended_at = told.replays[0].ended_at = 15.5
    away = Outage("n0", 11.0, 12.0, paused=True)
    bounds = Bounds(slack=0.5, takeover=1.0, alone=False, lease=0.9, outages=(away,))
    assert "I11" in broken(told, bounds)
    assert broken(told, msgspec.structs.replace(bounds, lease=1.1)) == set()


def test_stream_that_was_taken_over_and_waits_for_room_at_its_provider_is_not_left_alone() -> None:
    away = Outage("n0", 11.5, 20.0, paused=False)
    bounds = msgspec.structs.replace(BOUNDS, alone=False, takeover=1.0, outages=(away,))
    for epoch, found in ((1, True), (2, False)):
        log = frames()
        log[3:] = [frame(4, "status", "", status="waiting", epoch=epoch), frame(5, "content", TEXT[30:], epoch=2)]
        log[3] = Frame("4", log[3].data, 12.5)
        log[4] = Frame("5", log[4].data, 15.0)
        told = story(log)
        told.readers[0].frames = log
        told.attempts[0].whole, told.attempts[0].closed = False, 11.5
        told.attempts.append(Attempt("s", 1, "n1", "prefill", 14.0, closed=16.0))
        assert ("I11" in broken(told, bounds)) == found


def test_same_seed_draws_the_same_faults_whatever_is_drawn_before() -> None:
    one, other = Faults(7, Rates()), Faults(7, Rates())
    drawn = [other.provider("b", n) for n in range(50)]
    assert [other.provider("a", n) for n in range(50)] == [one.provider("a", n) for n in range(50)]
    assert drawn != [other.provider("a", n) for n in range(50)]
    assert {Faults(7, CALM).provider("a", n)[0] for n in range(50)} == {"none"}


def test_page_shows_what_was_violated_and_asks_for_nothing(tmp_path: Path) -> None:
    told = story()
    told.tail = 7
    found = report({"seed": 1}, {"SIGKILL": 2}, [told], judge(told, BOUNDS), Nodes({"n0": 1}), 1.0)
    text = page(found)
    assert "I5" in text and "SIGKILL" in text and "its log goes on to 7" in text
    assert "http" not in text and "src=" not in text
    write(found, tmp_path / "r.json")
    assert msgspec.json.decode((tmp_path / "r.json").read_bytes())["violations"][0]["invariant"] == "I5"


def kept(**facts: object) -> Attempt:
    """A first attempt that its provider keeps, and that was cut."""
    attempt = Attempt("s", 0, "n0", "open", 10.0, served=len(TEXT), tokens=2, told=True, closed=12.0)
    attempt.kept = Connections(**facts)
    return attempt


def test_answer_that_was_asked_for_again_though_its_provider_kept_it_is_found() -> None:
    told = story()
    other = Attempt("s", 1, "n0", "prefill", 12.0, TEXT, served=len(TEXT), closed=14.0)
    told.attempts = [kept(), other]
    assert "I16" in broken(told)
    for allowed in (kept(attached=[(11.0, "n0")]), kept(lost=True)):
        told.attempts = [allowed, other]
        assert "I16" not in broken(told)


def test_answer_that_its_provider_goes_on_with_for_nobody_is_found() -> None:
    told = story()
    told.attempts = [kept()]
    assert "I16" in broken(told)
    told.attempts = [kept(stopped=(13.0, "n0"))]
    assert "I16" not in broken(told)
    told.attempts = [kept()]
    assert "I16" not in broken(told, msgspec.structs.replace(BOUNDS, outages=(Outage("n0", 11.0, 12.0, False),)))


def test_bill_of_an_answer_that_is_read_on_is_the_one_of_its_provider() -> None:
    """Who never got through to its provider is billed by an estimate beside it."""
    for strategy, found in (("attach", {"I7"}), ("again", set[str]())):
        usage = {"input_tokens": 2 * INPUT_TOKENS, "output_tokens": 2}
        log = [
            *frames()[:2],
            frame(3, "error", "", retrying=True, strategy=strategy),
            frame(4, "content", TEXT),
            frame(5, "complete", TEXT, usage=usage, finish_reason="stop"),
        ]
        told = story(log)
        told.attempts[0].kept = Connections(attached=[(11.0, "n0")])
        assert broken(told, BOUNDS) == found


def test_call_that_was_refused_though_its_stream_is_complete_is_found() -> None:
    told = story()
    asking = Reader("s", "repeated request", lambda: 0, "openai-chat")
    asking.refused, asking.sent_away = 502, True
    told.readers.append(asking)
    assert broken(told) == {"I5"}
