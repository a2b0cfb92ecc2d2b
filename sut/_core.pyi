"""LoadGen and the dispatcher, in C++. Every call that blocks releases the GIL."""

from collections.abc import Sequence

LOADGEN_VERSION: str

class WireLayout:
    """Where vLLM's engine-core output fields lie; see :func:`sut.serving.wire.layout`.

    ``outputs`` and ``scheduler_stats`` index EngineCoreOutputs; ``request_id``,
    ``new_token_ids`` and ``finish_reason`` index EngineCoreOutput. The three keys
    name SchedulerStats' fields.
    """

    def __init__(
        self,
        *,
        outputs: int,
        scheduler_stats: int,
        request_id: int,
        new_token_ids: int,
        finish_reason: int,
        running_key: str,
        waiting_key: str,
        kv_cache_usage_key: str,
    ) -> None: ...

class SampleStore:
    """Every sample's encoded engine-core request, one copy, immutable once handed over."""

    def __init__(self) -> None: ...
    def add(self, request: bytes, id_offset: int, num_prompt_tokens: int) -> None:
        """Append a sample. ``request`` is the msgpack of an EngineCoreRequest whose
        16-character request id starts at byte ``id_offset``. Raises ValueError."""
    def __len__(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...

class Failure:
    """Why a dispatcher stopped. ``replica`` is -1 where no single replica is to blame."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def replica(self) -> int: ...

class ReplicaStats:
    index: int
    in_flight: int
    admitted: int
    completed: int
    prompt_tokens: int
    output_tokens: int
    busy_ns: int
    running: int
    waiting: int
    kv_cache_usage: float

class Stats:
    """A snapshot, by the dispatcher's own clock, since the last :meth:`Dispatcher.reset_stats`."""

    elapsed_ns: int
    issued: int
    queued: int
    admitted: int
    first_tokens: int
    completed: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    # Of the completed samples: p50, p90, p99, p99.9, max; exact; empty before the first.
    ttft_ns: dict[str, int]
    tpot_ns: dict[str, int]
    replicas: list[ReplicaStats]

class ReplicaLinks:
    """The sockets of every replica, bound on construction to ports the system chooses.

    Engines can be started for them at once; what they say waits until a dispatcher takes them.
    """

    def __init__(self, *, host: str, num_replicas: int) -> None: ...
    def handshake_address(self, replica: int) -> tuple[str, int]: ...

class Dispatcher:
    """A native vLLM V1 front-end for the engines at ``links``, which no other may have.

    Not copyable; :meth:`close` (or the destructor) joins its thread and is idempotent.
    """

    def __init__(
        self,
        links: ReplicaLinks,
        store: SampleStore,
        layout: WireLayout,
        *,
        max_output_tokens: int,
        sample_deadline_s: float,
        stall_deadline_s: float,
    ) -> None: ...
    def wait_ready(self, timeout_s: float) -> bool:
        """Block until every replica is ready: True; False on a failure and after the time given."""
    def ready_response(self, replica: int) -> bytes | None:
        """The engine's EngineCoreReadyResponse as it came (msgpack), or None."""
    def set_credit(self, replica: int, max_in_flight: int) -> None: ...
    def generate(self, samples: Sequence[int], replica: int, timeout_s: float) -> list[list[int]]:
        """Run samples outside LoadGen on one replica and return their output token ids.

        Raises RuntimeError when the dispatcher has failed, as it has when the time is over."""
    def fail(self, code: str, message: str, replica: int = -1) -> None:
        """Stop with a reason. The first failure is kept; later ones are dropped."""
    @property
    def failure(self) -> Failure | None: ...
    def stats(self) -> Stats: ...
    def samples(self) -> dict[str, memoryview[int]]:
        """The samples completed since :meth:`reset_stats`, in the order of their completion:
        columns sample_index, replica, prompt_tokens, output_tokens, issued_ns, admitted_ns,
        first_token_ns and completed_ns. Times count from :meth:`reset_stats`, which must not
        run meanwhile."""
    def num_over(self, *, ttft_ns: int, tpot_ns: int) -> tuple[int, int]:
        """How many of these samples have a TTFT and a TPOT over the limits."""
    def reset_stats(self) -> None: ...
    def close(self) -> None: ...

class LoadGenTest:
    """One StartTest on its own thread."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        model: str,
        scenario: str,
        mode: str,
        user_conf: str,
        audit_conf: str,
        log_dir: str,
        sut_name: str,
        qsl_name: str,
    ) -> None:
        """``scenario`` is Server, Offline or SingleStream; ``mode`` is performance or
        accuracy; ``user_conf`` and ``audit_conf`` are paths, empty for none."""
    @property
    def limits_ns(self) -> tuple[int, int] | None:
        """The limits on TTFT and TPOT; None where LoadGen holds a test to none."""
    def start(self) -> None: ...
    def wait(self, timeout_s: float) -> bool:
        """Block until StartTest has returned or the dispatcher has failed; True when so.

        After a failure LoadGen can't be ended: its logs are flushed and its thread is
        left behind, so the process must leave by ``os._exit``."""
    @property
    def finished(self) -> bool:
        """True when StartTest returned by itself."""
