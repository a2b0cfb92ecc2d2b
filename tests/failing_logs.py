"""Ends of logs with a known failure, each like the public log at its source in
``sut/results/known_failures.toml``; names, sizes and times are made up."""

from __future__ import annotations

_CORE = "(EngineCore pid=104) ERROR 11-24 05:41:12 [core.py:1173]"
_FRAMES = f"""\
(EngineCore pid=104) INFO 11-24 05:40:58 [core.py:101] Initializing a V1 LLM engine (v0.32.0)
{_CORE} EngineCore failed to start.
{_CORE} Traceback (most recent call last):
{_CORE}   File "/opt/venv/lib/python3.12/site-packages/vllm/v1/engine/core.py", line 1164, in run
{_CORE}     engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)
{_CORE}                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
"""


def _engine(error: str) -> str:
    """vLLM's log of an engine core that fails with an exception."""
    return f"""{_FRAMES}{_CORE} {error}
(EngineCore pid=104) Process EngineCore:
(EngineCore pid=104) Traceback (most recent call last):
(EngineCore pid=104)   File "/usr/lib/python3.12/multiprocessing/process.py", line 314, in run
(EngineCore pid=104)     self.run()
(EngineCore pid=104) {error}
[rank0]:[W1124 05:41:13.100 ProcessGroupNCCL.cpp:1250] Warning: process group not destroyed
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""


def _worker(line: str) -> str:
    """A worker's log with one line from NCCL or c10d, and the consequence."""
    return f"""\
(Worker_TP1 pid=215) INFO 11-24 05:41:02 [parallel_state.py:1208] world_size=16 rank=9 backend=nccl
{line}
(Worker_TP1 pid=215) ERROR 11-24 05:51:12 [multiproc_executor.py:772] WorkerProc failed to start.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""


def _job(line: str) -> str:
    """The output of a job."""
    return f"""\
submitit INFO (2026-11-24 05:40:31,519) - Starting with JobEnvironment(job_id=4711, hostname=jw2)
submitit INFO (2026-11-24 05:40:31,519) - Loading pickle: /home/you/runs/r/slurm/4711_submitted.pkl
{line}
srun: error: jw2: task 0: Exited with exit code 255
"""


LOGS = [
    (
        "preempted",
        _job(
            "slurmstepd: error: *** JOB 4711 ON jw2 CANCELLED AT 2026-11-24T13:05:36 DUE TO "
            "PREEMPTION ***"
        ),
    ),
    (
        "time_limit",
        _job(
            "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.\n"
            "slurmstepd: error: *** STEP 4711.0 ON jw2 CANCELLED AT 2026-11-24T09:09:37 DUE TO "
            "TIME LIMIT ***"
        ),
    ),
    (
        "host_memory",
        _job(
            "slurmstepd: error: Detected 1 oom_kill event in StepId=4711.0. Some of the step "
            "tasks have been OOM Killed.\nsrun: error: jw2: tasks 0-1: Out Of Memory"
        ),
    ),
    (
        "host_memory",
        _job(
            "slurmstepd: error: Detected 1 oom-kill event(s) in step 4711.0 cgroup. Some of your "
            "processes may have been killed by the cgroup out-of-memory handler."
        ),
    ),
    (
        "host_memory",
        _engine(
            "RuntimeError: [enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't "
            "allocate memory: you tried to allocate 17179869184 bytes. Error code 12 (Cannot "
            "allocate memory)"
        ),
    ),
    (
        "slurm_account",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition "
        "combination specified",
    ),
    (
        "slurm_qos",
        "sbatch: error: Batch job submission failed: Invalid qos specification",
    ),
    (
        "slurm_partition",
        "sbatch: error: invalid partition specified: gpu-v100-32GB\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified",
    ),
    (
        "slurm_partition",
        "sbatch: error: Batch job submission failed: No partition specified or system default "
        "partition",
    ),
    (
        "slurm_limit",
        "sbatch: error: QOSMaxWallDurationPerJobLimit\n"
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job "
        "submit limit, user's size and/or time limits)",
    ),
    (
        "slurm_limit",
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or "
        "exceeds some limit)",
    ),
    (
        "slurm_resources",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    ),
    (
        "slurm_resources",
        "sbatch: error: Batch job submission failed: Node count specification invalid",
    ),
    (
        "program_missing",
        "slurmstepd: error: execve(): /home/you/.venv/bin/python: No such file or directory\n"
        "srun: error: jw3: task 1: Exited with exit code 2",
    ),
    (
        "user_namespace",
        _job(
            "ERROR  : Failed to create mount namespace: mount namespace requires privileges, check "
            "Apptainer installation"
        ),
    ),
    (
        "user_namespace",
        _job("ERROR  : User namespace not supported, and program not running privileged."),
    ),
    (
        "user_namespace",
        _job("ERROR  : Failed to create container process: No space left on device"),
    ),
    (
        "squashfuse",
        _job(
            "FATAL:   container creation failed: mount /proc/self/fd/3->/var/apptainer/mnt/session/"
            "rootfs error: while mounting image /proc/self/fd/3: squashfuse_ll exited with status "
            "1: fusermount3: mount failed: Operation not permitted"
        ),
    ),
    (
        "squashfuse",
        _job(
            "FATAL:   container creation failed: mount /proc/self/fd/3->/var/apptainer/mnt/session/"
            "rootfs error: while mounting image /proc/self/fd/3: fuse: failed to exec fusermount3: "
            "No such file or directory"
        ),
    ),
    (
        "squashfuse",  # Apptainer 1.4.5 without /dev/fuse
        _job(
            "FATAL:   container creation failed: image driver mount failure: image driver "
            "squashfuse_ll instance exited with error: squashfuse_ll exited: fuse: mount failed: "
            "Invalid argument"
        ),
    ),
    (
        "image_missing",
        _job(
            "FATAL:   could not open image /scratch/me/cuda.sif: failed to retrieve path for "
            "/scratch/me/cuda.sif: lstat /scratch/me/cuda.sif: no such file or directory"
        ),
    ),
    (
        "image_missing",  # Apptainer 1.4.5
        _job(
            "FATAL:   While checking container encryption: could not open image /none.sif: failed "
            "to retrieve path for /none.sif: lstat /none.sif: no such file or directory"
        ),
    ),
    (
        "image_damaged",  # Apptainer 1.4.5
        _job(
            "FATAL:   While checking container encryption: could not open image /tmp/bad.sif: "
            "image format not recognized"
        ),
    ),
    (
        "user_namespace",  # Apptainer 1.4.5
        _job(
            "\x1b[91mERROR  : Failed to create user namespace: not allowed to create user "
            "namespace\n\x1b[0m"
        ),
    ),
    (
        "image_damaged",
        _job(
            "FATAL:   could not open image /scratch/me/cuda.sif: SIF image /scratch/me/cuda.sif is "
            "corrupted: wrong partition size"
        ),
    ),
    ("image_damaged", _job("FATAL:   image format not recognized")),
    (
        "image_damaged",
        _job(
            "FATAL:   container creation failed: mount hook function failure: mount "
            "/proc/self/fd/3 error: while mounting image /proc/self/fd/3: kernel reported a bad "
            "superblock for squashfs image partition, possible causes are that your kernel doesn't "
            "support the compression algorithm or the image is corrupted"
        ),
    ),
    (
        "bind_missing",
        _job(
            "FATAL:   container creation failed: mount hook function failure: mount /data/news->"
            "/data/news error: while mounting /data/news: destination /data/news doesn't exist in "
            "container"
        ),
    ),
    (
        "bind_missing",  # Apptainer 1.4.5
        _job(
            "FATAL:   container creation failed: mount hook function failure: mount /nope->/nope "
            "error: while mounting /nope: mount source /nope doesn't exist"
        ),
    ),
    (
        "glibc",
        _job(
            "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found "
            "(required by /.singularity.d/libs/libcuda.so.1)"
        ),
    ),
    (
        "gpu_hardware",
        _engine("RuntimeError: CUDA error: uncorrectable ECC error encountered"),
    ),
    (
        "gpu_hardware",
        _engine("cuCtxCreate failed: CUDA_ERROR_ECC_UNCORRECTABLE"),
    ),
    (
        "driver_mismatch",
        _engine(
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda "
            "functions before calling NumCudaDevices() that might have already set an error? "
            "Error 803: system has unsupported display driver / cuda driver combination"
        ),
    ),
    (
        "fabric_manager",
        _engine(
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda "
            "functions before calling NumCudaDevices() that might have already set an error? "
            "Error 802: system not yet initialized"
        ),
    ),
    (
        "illegal_access",
        _engine(
            "torch.AcceleratorError: CUDA error: an illegal memory access was encountered\n"
            "Search for `cudaErrorIllegalAddress' in https://docs.nvidia.com/cuda for more."
        ),
    ),
    (
        "moe_kernel",  # vLLM 0.32.0 on a CPU without AMX
        _engine(
            "NotImplementedError: No MXFP4 MoE backend supports the deployment configuration. "
            "weight_key=kMxfp4Static, activation_key=None. Candidate backends were: ['TRITON', "
            "'CPU']. Unsupported reasons: backend: TRITON, reason: kernel does not support current "
            "device cpu; backend: CPU, reason: kernel does not support current device cpu. "
        ),
    ),
    ("open_files", _engine("zmq.error.ZMQError: Too many open files")),
    (
        "no_compiler",
        _engine("RuntimeError: Failed to find C compiler. Please specify via CC environment."),
    ),
    ("no_compiler", _engine("RuntimeError: Could not find nvcc")),
    ("no_compiler", _engine("/bin/sh: 1: /usr/local/cuda/bin/nvcc: not found")),
    (
        "driver_too_old",
        "torch/cuda/__init__.py:182: UserWarning: CUDA initialization: The NVIDIA driver on your "
        "system is too old (found version 12080). Please update your GPU driver\n"
        + _engine("RuntimeError: No CUDA GPUs are available"),
    ),
    (
        "driver_too_old",
        _engine("RuntimeError: CUDA driver version is insufficient for CUDA runtime version"),
    ),
    (
        "gpu_too_new",
        _engine(
            "RuntimeError: CUDA error: no kernel image is available for execution on the "
            "device\nCUDA kernel errors might be asynchronously reported at some other API call"
        ),
    ),
    (
        "bfloat16",
        _engine(
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least "
            "8.0. Your Tesla T4 GPU has compute capability 7.5."
        ),
    ),
    ("no_gpu", _engine("RuntimeError: No CUDA GPUs are available")),
    ("no_gpu", _engine("RuntimeError: Failed to infer device type")),
    ("no_gpu", _job("INFO:    Could not find any nv files on this host!")),
    (
        "no_gpu",
        _engine(
            "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory"
        ),
    ),
    (
        "gpu_memory_taken",
        _engine(
            "ValueError: Free memory on device cuda:0 (7.34/139.72 GiB) on startup is less than "
            "desired GPU memory utilization (0.9, 125.75 GiB). Decrease GPU memory utilization "
            "or reduce GPU memory used by other processes."
        ),
    ),
    (
        "cpu_memory",
        _engine(
            "ValueError: Available memory on node 0 (3.1/23.4 GiB) on startup is less than desired "
            "CPU memory utilization (0.92, 21.5 GiB). On the CPU backend, the "
            "`--gpu-memory-utilization` flag controls the fraction of CPU memory reserved."
        ),
    ),
    (
        "cpu_memory",
        _engine(
            "ValueError: Available memory on node 0 (3.1/23.4 GiB) on kv cache allocation is less "
            "than requested memory for kv (100.0 GiB). Decrease --kv-cache-memory-bytes, "
            "VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by other processes."
        ),
    ),
    (
        "kv_cache_too_small",
        _engine(
            "ValueError: To serve at least one request with the models's max seq len (262144), "
            "(24.0 GiB KV cache is needed, which is larger than the available KV cache memory "
            "(3.18 GiB). Based on the available memory, the estimated maximum model length is "
            "34736. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`."
        ),
    ),
    (
        "kv_cache_too_small",
        _engine(
            "ValueError: The model's max seq len (4096) is larger than the maximum number of "
            "tokens that can be stored in KV cache (3664)."
        ),
    ),
    (
        "no_kv_cache",
        _engine(
            "ValueError: No available memory for the cache blocks. Try increasing "
            "`gpu_memory_utilization` when initializing the engine."
        ),
    ),
    (
        "gpu_memory",
        _engine(
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has "
            "a total capacity of 11.53 GiB of which 187.75 MiB is free."
        ),
    ),
    ("gpu_memory", _engine("RuntimeError: CUDA error: out of memory")),
    ("gpu_memory", _engine("RuntimeError: Triton Error [CUDA]: CUDA_ERROR_OUT_OF_MEMORY")),
    (
        "shared_memory",
        _worker(
            "jw2:3663:4044 [0] misc/shmutils.cc:129 NCCL WARN Error while creating shared memory "
            "segment /dev/shm/nccl-Ewjreo (size 33030528), error: No space left on device (28)"
        ),
    ),
    ("disk_full", _engine("OSError: [Errno 28] No space left on device: '/home/you/.cache/vllm'")),
    ("disk_full", _engine("OSError: [Errno 122] Disk quota exceeded")),
    (
        "model_gated",
        _engine(
            "OSError: You are trying to access a gated repo.\nMake sure to have access to it at "
            "https://huggingface.co/meta-llama/Llama-3.1-8B.\n401 Client Error.\n\nCannot access "
            "gated repo for url https://huggingface.co/meta-llama/Llama-3.1-8B/config.json."
        ),
    ),
    ("model_gated", _engine("huggingface_hub.errors.GatedRepoError: 401 Client Error.")),
    (
        "model_incomplete",
        _engine(
            "safetensors_rust.SafetensorError: Error while deserializing header: "
            "MetadataIncompleteBuffer"
        ),
    ),
    (
        "model_incomplete",
        _engine(
            "safetensors_rust.SafetensorError: Error while deserializing header: incomplete "
            "metadata, file not fully covered"
        ),
    ),
    (
        "model_missing",
        _engine("RuntimeError: Cannot find any model weights with `/data/Llama-3.1-8B`"),
    ),
    (
        "model_missing",
        _engine("OSError: /data/Llama-3.1-8B does not appear to have a file named config.json."),
    ),
    (
        "model_missing",
        _engine(
            "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached "
            "snapshot folder for the specified revision on the local disk and outgoing traffic "
            "has been disabled."
        ),
    ),
    (
        "model_missing",
        _engine(
            "ValueError: Unrecognized model in /data/empty. Should have a `model_type` key in its "
            "config.json."
        ),
    ),
    (
        "model_unsupported",
        _engine("ValueError: Model architectures ['NewForCausalLM'] are not supported for now."),
    ),
    (
        "model_unsupported",
        _engine(
            "ValueError: The checkpoint you are trying to load has model type `new` but "
            "Transformers does not recognize this architecture."
        ),
    ),
    (
        "max_model_len",
        _engine(
            "ValueError: User-specified max_model_len (131072) is greater than the derived "
            "max_model_len (None=8192 in model's config.json)."
        ),
    ),
    (
        "parallel_size",
        _engine(
            "ValueError: Total number of attention heads (52) must be divisible by tensor "
            "parallel size (8)."
        ),
    ),
    (
        "engine_option",
        "usage: vllm_headless.py [-h] [--model MODEL]\n"
        "vllm_headless.py: error: unrecognized arguments: --temperature 0.8",
    ),
    (
        "port_in_use",
        _engine(
            "torch.distributed.DistNetworkError: The server socket has failed to listen on any "
            "local network address. port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, "
            "message: address already in use"
        ),
    ),
    (
        "network_interface",
        _worker("jw2:215:215 [0] bootstrap.cc:45 NCCL WARN Bootstrap : no socket interface found"),
    ),
    (
        "network_interface",
        _worker(
            "[rank9]:[E1124 05:51:11.1 ProcessGroupGloo.cpp:144] Gloo connectFullMesh failed with "
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:144] no error"
        ),
    ),
    (
        "network_interface",
        _worker(
            "ncclSocketInit: connecting to address  with family 59936 is neither AF_INET(2) nor "
            "AF_INET6(10)"
        ),
    ),
    (
        "network_interface",
        _worker(
            "jw2:240:240 [6] misc/socket.cc:533 NCCL WARN socketPollConnect: Connect to "
            "10.0.0.4<56849> returned 113(No route to host) errno 115(Operation now in progress)"
        ),
    ),
    (
        "nccl_timeout",
        _worker(
            "[rank0]:[E1124 05:51:11.1 ProcessGroupNCCL.cpp:683] [Rank 0] Watchdog caught "
            "collective operation timeout: WorkNCCL(SeqNum=2, OpType=ALLREDUCE, NumelIn=1, "
            "NumelOut=1, Timeout(ms)=600000) ran for 600059 milliseconds before timing out."
        ),
    ),
    (
        "rendezvous_timeout",
        _worker(
            "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. "
            "1/2 clients joined."
        ),
    ),
    (
        "rendezvous_timeout",
        _worker("torch.distributed.DistStoreError: wait timeout after 600000ms, keys: /node0"),
    ),
    (
        "rendezvous_timeout",
        _worker(
            "torch.distributed.DistNetworkError: The client socket has timed out after 600000ms "
            "while trying to connect to (172.17.0.9, 46229)."
        ),
    ),
]

# A vLLM engine that has no failure, with the warnings that it prints.
HEALTHY = """\
INFO 11-24 05:40:51 [importing.py:68] Triton not installed or not compatible; certain GPU-related functions will not be available.
WARNING 11-24 05:40:52 [interface.py:222] Failed to import from vllm._C: ImportError('libcuda.so.1: cannot open shared object file')
(EngineCore pid=104) INFO 11-24 05:40:58 [core.py:101] Initializing a V1 LLM engine (v0.32.0)
(EngineCore pid=104) INFO 11-24 05:40:59 [parallel_state.py:1208] world_size=1 rank=0 local_rank=0
(EngineCore pid=104) INFO 11-24 05:41:02 [default_loader.py:314] Loading weights took 0.41 seconds
(EngineCore pid=104) INFO 11-24 05:41:04 [kv_cache_utils.py:1291] GPU KV cache size: 43,008 tokens
(EngineCore pid=104) INFO 11-24 05:41:04 [core.py:250] init engine took 1.92 seconds
"""  # noqa: E501
