"""LoadGen and the dispatcher, in C++. Every call that blocks releases the GIL."""

from collections.abc import Sequence

LOADGEN_VERSION: str
SOURCES_SHA256: str  # see sut.machine.checkout.core_sources; empty if built without setup.py

def make_key_pair() -> tuple[str, str]:
    """A public and a secret CURVE key, each of 40 characters."""

class WireLayout:
    """Positions and keys of vLLM's engine-core output fields, as in ``wire.PINNED_LAYOUT``.

    ``outputs``, ``scheduler_stats`` and ``timestamp`` index EngineCoreOutputs; ``request_id``,
    ``new_token_ids``, ``finish_reason`` and ``prefill_stats`` index EngineCoreOutput. The three
    keys are those of SchedulerStats.
    """

    def __init__(
        self,
        *,
        outputs: int,
        scheduler_stats: int,
        timestamp: int,
        request_id: int,
        new_token_ids: int,
        finish_reason: int,
        prefill_stats: int,
        running_key: str,
        waiting_key: str,
        kv_cache_usage_key: str,
    ) -> None: ...

class SampleStore:
    """Every sample's encoded engine-core request; immutable once a dispatcher uses it."""

    def __init__(self) -> None: ...
    def add(self, request: bytes, id_offset: int, num_prompt_tokens: int) -> None:
        """Append a sample. ``request`` is the msgpack of an EngineCoreRequest whose
        16-character request id starts at byte ``id_offset``. Raises ValueError, and
        RuntimeError once a dispatcher uses the store."""
    def __len__(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...

class Failure:
    """Why a dispatcher stopped. ``replica`` is -1 if no single replica caused it."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def replica(self) -> int: ...

class ReplicaLoss:
    """A replica that was lost, where the dispatcher continued with the others."""

    @property
    def why(self) -> Failure: ...
    @property
    def lost_ns(self) -> int:
        """Counted from the last :meth:`Dispatcher.reset_stats`; may be negative."""
    @property
    def rejoined_ns(self) -> int | None:
        """When another engine took its place, counted in the same way."""
    @property
    def samples_restarted(self) -> int:
        """Those that it had not completed; other replicas ran them."""
    @property
    def tokens_lost(self) -> int:
        """What it had generated for them."""

class Shortcuts:
    """What an engine reported that it must not have done, and how often it reported at all."""

    num_prefills: int  # requests whose first output has PrefillStats
    num_stats: int  # frames with SchedulerStats
    cached_tokens: int  # tokens of prompts that were not computed, by PrefillStats
    cache_hits: int  # the same by SchedulerStats, of preempted requests too
    draft_tokens: int  # proposed by speculative decoding

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
    shortcuts: Shortcuts

class Stats:
    """A snapshot of the counts since the last :meth:`Dispatcher.reset_stats`."""

    elapsed_ns: int
    issued: int
    queued: int
    withdrawn: int  # taken from the queue, never sent
    admitted: int
    first_tokens: int
    completed: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    # p50, p90, p99, p99.9 and max of the completed samples; empty before the first. Exact, or by
    # live_stats() within 1/128.
    ttft_ns: dict[str, int]
    tpot_ns: dict[str, int]
    replicas: list[ReplicaStats]

class LimitError(Exception):
    """The system allows fewer file descriptors or sockets than are needed; names the limit."""

class ReplicaLinks:
    """The sockets of every replica, bound on construction to free ports.

    ``secret_key`` is the dispatcher's, ``engine_keys`` the public keys of each replica's engine:
    nobody else can connect. No frame of outputs is longer than ``max_output_bytes``. Engines may
    start before there is a dispatcher; their messages wait in the sockets. ``ports`` are those to
    bind for each replica instead: handshake, input and output. The soft limit of file descriptors
    is raised if needed. Raises LimitError, RuntimeError.
    """

    def __init__(
        self,
        *,
        host: str,
        secret_key: str,
        engine_keys: Sequence[str],
        max_output_bytes: int,
        ports: Sequence[tuple[int, int, int]] = (),
    ) -> None: ...
    def endpoints(self, replica: int) -> list[str]:
        """The endpoints for handshake, input and output, each ``tcp://HOST:PORT``."""
    def handshake_address(self, replica: int) -> tuple[str, int]: ...
    def adopt(self, replica: int, ready_response: bytes) -> None:
        """Continue with an engine that earlier links on the same ports left idle. It counts as
        ready once it has reconnected. Raises RuntimeError once a dispatcher uses the links."""

class Dispatcher:
    """A native vLLM V1 front-end for the engines at ``links``, which no other may use.

    :meth:`close`, or the destructor, joins its thread; it is idempotent. Request ids count from
    ``first_use``: with adopted engines, a number above all samples that they had before.
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
        first_use: int = 1,
    ) -> None: ...
    def wait_ready(self, timeout_s: float) -> bool:
        """Block until every replica is ready. False after a failure and after ``timeout_s``."""
    def ready_response(self, replica: int) -> bytes | None:
        """The engine's EngineCoreReadyResponse (msgpack), or None before it arrived."""
    def num_sent(self, replica: int) -> int:
        """The number of samples sent to a replica. :meth:`reset_stats` keeps it."""
    def num_refused(self, replica: int) -> int:
        """The connections to a replica's sockets whose peer did not have its engine's key."""
    def set_credit(self, replica: int, max_in_flight: int) -> None: ...
    def watch_deadlines(self, on: bool) -> None:
        """Whether ``sample_deadline_s`` and ``stall_deadline_s`` apply; initially they do. An
        engine compiles in its first steps, for longer than any later step takes."""
    def generate(self, samples: Sequence[int], replica: int, timeout_s: float) -> list[list[int]]:
        """Run samples outside LoadGen on one replica, or on any with -1; return their output
        token ids. After ``timeout_s`` the dispatcher fails. Raises RuntimeError if it has."""
    def fail(self, code: str, message: str, replica: int = -1) -> None:
        """Stop with a reason. The first failure is kept; later ones are dropped."""
    def continue_after_loss(self, on: bool) -> None:
        """Whether the loss of a replica (dead, disconnected or stalled) restarts its samples on the
        others; initially it is a failure. It is one too where no other replica is left, or where
        samples were for the lost one alone."""
    def await_rejoin(self, on: bool) -> None:
        """Whether the loss of the last replica is no failure either: everything then waits until
        one rejoins. Initially it is a failure. For :meth:`continue_after_loss` only."""
    def rejoin(self, replica: int, warmed: Dispatcher) -> None:
        """Let the engine of ``warmed``, a dispatcher with one replica and nothing in flight, take
        the place of a lost replica. It closes ``warmed``, whose ``first_use`` must be
        WARM_UP_FIRST_USE. Raises RuntimeError."""
    WARM_UP_FIRST_USE: int
    def lose(self, replica: int, code: str, message: str) -> None:
        """Report that a replica is lost. Has no effect on one that is lost already."""
    def losses(self) -> list[ReplicaLoss]:
        """The replicas that were lost without a failure, in order of their loss."""
    @property
    def failure(self) -> Failure | None: ...
    def stats(self) -> Stats: ...
    def live_stats(self) -> Stats:
        """The same for a look at a running test: its cost does not grow with the samples."""
    def samples(self) -> dict[str, memoryview[int]]:
        """The samples completed since :meth:`reset_stats`, in order of completion, as columns
        sample_index, replica, prompt_tokens, output_tokens, issued_ns, admitted_ns,
        first_token_ns and completed_ns. Times count from :meth:`reset_stats`, which must not
        run at the same time."""
    def log_steps(self, on: bool) -> None:
        """Whether the engines' steps are logged from here on; initially they are not."""
    def steps(self) -> dict[str, memoryview[int]]:
        """The engines' steps since :meth:`reset_stats`, in order of receipt, as columns: replica;
        num_decoding, the outputs that continue an answer; num_prompts and prompt_tokens, the
        prompts whose last token the step computed; context_tokens of the decoding sequences
        before the step; received_ns, counted from :meth:`reset_stats`; engine_ns, of the engine's
        own clock, 0 where it sent none. Steps without an output are not seen."""
    def num_over(self) -> tuple[int, int]:
        """How many samples issued since :meth:`reset_stats` have a TTFT and a TPOT above its limits
        for certain, complete or not. LoadGen's own count is at least this."""
    def reset_stats(self, limits_ns: tuple[int, int] | None = None) -> None:
        """Reset every count; from here on, count samples over the limits on TTFT and TPOT."""
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
        accuracy; ``user_conf`` and ``audit_conf`` are texts of LoadGen's settings, an empty
        ``audit_conf`` is none. Raises ValueError."""
    @property
    def limits_ns(self) -> tuple[int, int] | None:
        """The limits on TTFT and TPOT; None if LoadGen enforces none on this test."""
    def start(self) -> None: ...
    def wait(self, timeout_s: float) -> bool:
        """Block until StartTest has returned or the dispatcher has failed. False after
        ``timeout_s``.

        After a failure StartTest cannot return: LoadGen's logs are flushed and its thread
        keeps running, so the process must exit with ``os._exit``. A LoadGen that hangs cannot
        flush them: then it is False however often it is called."""
    def end(self) -> None:
        """End the test at LoadGen's next query: samples queued are withdrawn, those in flight
        complete, and StartTest is left without a result. Without a next query it completes.
        Returns at once."""
    @property
    def ended(self) -> bool:
        """Whether :meth:`end` ended the test."""
    @property
    def finished(self) -> bool:
        """Whether StartTest returned after a complete test."""

class Schedule:
    """A performance test's queries in the order in which LoadGen issues them.

    The constructor makes one that LoadGen would not, from two columns of equal length.
    """

    def __init__(self, *, arrival_ns: Sequence[int], sample_index: Sequence[int]) -> None: ...
    def __len__(self) -> int: ...
    @property
    def arrival_ns(self) -> memoryview[int]:
        """Ascending, from the start of the test; all 0 in Offline."""
    @property
    def sample_index(self) -> memoryview[int]: ...

def schedule(*, model: str, scenario: str, user_conf: str, num_samples: int) -> Schedule:
    """LoadGen's own order of samples and arrival times, from its seeds, for a data set of
    ``num_samples``. ``scenario`` is Server or Offline; the rest as in :class:`LoadGenTest`.
    For choosing a load only: nothing that answers queries may use it. Raises ValueError."""

class ServiceModel:
    """How long an engine's step takes: ``base_us`` and a time for each decoding sequence, token of
    a prompt computed in the step, and context token (the prompts and answers so far of the
    sequences that decode).

    ``noise`` is the standard deviation of the logarithm of the factor by which it varies, whose
    median is 1. A step has a hiccup of ``hiccup_us`` with ``hiccup_probability``. With ``pad_to``
    a step takes as long as with the next multiple of decoding sequences. Noise and hiccups are
    determined by ``seed``. Raises ValueError.
    """

    def __init__(
        self,
        *,
        base_us: float,
        per_sequence_us: float,
        per_prefill_token_us: float,
        per_context_token_us: float = 0,
        noise: float = 0,
        hiccup_probability: float = 0,
        hiccup_us: float = 0,
        pad_to: int = 1,
        seed: int = 0,
    ) -> None: ...
    def step_ns(self, *, num_decoding: int, num_prefill_tokens: int, context_tokens: int) -> int:
        """The duration of a step without noise and hiccups."""

class Simulated:
    """What a simulated test gave. Times count from its start."""

    def samples(self) -> dict[str, memoryview[int]]:
        """The completed samples, as in :meth:`Dispatcher.samples`."""
    def steps(self) -> dict[str, memoryview[int]]:
        """All steps in order of their end, as columns replica, end_ns, duration_ns, num_decoding,
        num_prefill_tokens and context_tokens; empty without ``log_steps``."""
    end_ns: int
    num_ttft_over: int  # those too that are past the limit and still wait for their first token
    num_tpot_over: int
    num_over: int  # over one limit or both
    stopped: bool  # before every sample was complete

def simulate(
    *,
    schedule: Schedule,
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    service: ServiceModel,
    num_replicas: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: int,
    credit: int | None = None,
    ttft_limit_ns: int | None = None,
    tpot_limit_ns: int | None = None,
    stop_over: int | None = None,
    stop_after_ns: int | None = None,
    log_steps: bool = False,
    step_factors: Sequence[float] = (),
) -> Simulated:
    """Run a performance test in virtual time: the dispatcher's choice of replica and the replay
    engine's batching on ``num_replicas`` engines. Nothing else takes time.

    The engines are equal, or replica ``i`` takes ``step_factors[i]`` times as long for a step.

    ``prompt_tokens`` and ``output_tokens`` are by sample index. ``credit`` is the most samples in
    flight on a replica, by default that of a run (:func:`sut.run.credit.credit`). Ends early
    once more than ``stop_over`` samples are over one of the limits, or at ``stop_after_ns``.
    Determined by its arguments. Raises ValueError.
    """
