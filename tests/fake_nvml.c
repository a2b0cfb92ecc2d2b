// NVIDIA's management library (libnvidia-ml.so.1) for tests, with the signatures of nvml.h.
//
//   FAKE_GPUS       free MiB of each GPU, separated by commas; `-` for one that reports no memory.
//                   Two GPUs where it is unset
//   FAKE_PID        a process that computes on every GPU
//   FAKE_NVML_INIT  what nvmlInit returns
//   FAKE_REFUSE     queries that fail, with their result: MemoryInfo=3,UUID=4; HandleByIndex1=15 is
//                   of GPU 1 alone
//   FAKE_NAMES      the names of the GPUs, separated by commas; NVIDIA A30 where it is unset
//   FAKE_MIG        plain: the GPUs are in MIG mode, each with one instance, and report their own
//                   memory and processes to nobody. admin: they do, and another's process computes
//   FAKE_NVML_LOST  after so many readings of GPU 0's power every GPU is lost
//   FAKE_NVML_HANG  after so many the driver does not answer
//
// GPU 0 supports every query and draws 100 W. Every other GPU has no energy counter and no
// utilization, like an old one.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIB (1ull << 20)
#define UNKNOWN (~0ull)

typedef struct gpu { unsigned index; } *device;
typedef int result;  // 0 success, 3 not supported, 15 GPU is lost

static struct gpu gpus[8] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
static struct gpu instances[2] = {{100}, {101}};  // their UUIDs: MIG-2222..., MIG-3333...

static int is_instance(device gpu) { return gpu->index >= 100; }

// FAKE_REFUSE's result of a query; 0 for none.
static result refused(const char *query) {
  const char *next = getenv("FAKE_REFUSE");
  const size_t length = strlen(query);
  while (next && *next) {
    if (!strncmp(next, query, length) && next[length] == '=') return atoi(next + length + 1);
    next = strchr(next, ',');
    next = next ? next + 1 : NULL;
  }
  return 0;
}

// What a whole GPU answers in MIG mode; 0 where it does answer.
static result of_whole(device gpu) {
  const char *mode = getenv("FAKE_MIG");
  return mode && !is_instance(gpu) && strcmp(mode, "admin") ? 4 : 0;
}

static int number(const char *name, int default_value) {
  const char *text = getenv(name);
  return text && *text ? atoi(text) : default_value;
}

static int readings;

// Whether the GPUs are lost. Does not return from a driver that hangs.
static int lost(void) {
  while (readings >= number("FAKE_NVML_HANG", 1 << 30)) pause();
  return readings >= number("FAKE_NVML_LOST", 1 << 30);
}

// The number of GPUs. Sets the free memory of GPU `wanted`.
static unsigned num_gpus(unsigned wanted, unsigned long long *free_mib) {
  const char *next = getenv("FAKE_GPUS");
  unsigned count = 0;
  if (next == NULL) next = "2048,2048";
  while (next && *next) {
    if (count++ == wanted) *free_mib = *next == '-' ? UNKNOWN : strtoull(next, NULL, 10);
    next = strchr(next, ',');
    next = next ? next + 1 : NULL;
  }
  return count;
}

result nvmlInitWithFlags(unsigned flags) { (void)flags; return number("FAKE_NVML_INIT", 0); }
result nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(result code) {
  return code == 15  ? "GPU is lost"
         : code == 4 ? "Insufficient Permissions"
         : code      ? "Not Supported"
                     : "Success";
}
result nvmlSystemGetDriverVersion(char *version, unsigned length) {
  snprintf(version, length, "580.65.06");
  return 0;
}
result nvmlDeviceGetCount_v2(unsigned *count) {
  unsigned long long unused;
  *count = num_gpus(0, &unused);
  return 0;
}
result nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out) {
  unsigned long long unused;
  char query[32];
  snprintf(query, sizeof query, "HandleByIndex%u", index);
  if (refused(query)) return refused(query);
  if (index >= num_gpus(0, &unused)) return 2;
  *out = &gpus[index];
  return 0;
}
result nvmlDeviceGetUUID(device gpu, char *uuid, unsigned length) {
  if (refused("UUID")) return refused("UUID");
  const unsigned n = (is_instance(gpu) ? gpu->index - 98 : gpu->index) * 0x1111;
  snprintf(uuid, length, "%s-%04x%04x-%04x-%04x-%04x-%04x%04x%04x",
           is_instance(gpu) ? "MIG" : "GPU", n, n, n, n, n, n, n, n);
  return 0;
}
result nvmlDeviceGetHandleByUUID(const char *uuid, device *out) {
  const unsigned digit = (unsigned)(uuid[4] - '0');
  if (!strncmp(uuid, "GPU-", 4)) return nvmlDeviceGetHandleByIndex_v2(digit, out) ? 6 : 0;
  if (!getenv("FAKE_MIG") || digit < 2 || digit > 3) return 6;
  *out = &instances[digit - 2];
  return 0;
}
result nvmlDeviceGetMigMode(device gpu, unsigned *current, unsigned *pending) {
  if (is_instance(gpu)) return 3;
  *current = *pending = getenv("FAKE_MIG") != NULL;
  return 0;
}
result nvmlDeviceGetMaxMigDeviceCount(device gpu, unsigned *count) {
  (void)gpu;
  *count = 7;
  return 0;
}
result nvmlDeviceGetMigDeviceHandleByIndex(device gpu, unsigned index, device *out) {
  if (index > 0 || gpu->index > 1) return 6;
  *out = &instances[gpu->index];
  return 0;
}
result nvmlDeviceGetName(device gpu, char *name, unsigned length) {
  const char *names = getenv("FAKE_NAMES");
  if (refused("Name")) return refused("Name");
  if (is_instance(gpu)) {
    snprintf(name, length, "NVIDIA A30 MIG 2g.12gb");
    return 0;
  }
  for (unsigned skip = gpu->index; names && skip; skip--) {
    names = strchr(names, ',');
    names = names ? names + 1 : NULL;
  }
  snprintf(name, length, "%.*s", names ? (int)strcspn(names, ",") : 10, names ? names : "NVIDIA A30");
  return 0;
}
result nvmlDeviceGetTotalEnergyConsumption(device gpu, unsigned long long *mj) {
  if (lost()) return 15;
  if (gpu->index) return 3;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const double seconds = (double)(now.tv_sec % 100000) + (double)now.tv_nsec / 1e9;
  *mj = (unsigned long long)(100e3 * seconds);
  return 0;
}
result nvmlDeviceGetPowerUsage(device gpu, unsigned *mw) {
  if (lost()) return 15;
  readings += gpu->index == 0;
  *mw = gpu->index ? 50500 : 100000;
  return 0;
}
result nvmlDeviceGetClockInfo(device gpu, int type, unsigned *mhz) {
  (void)gpu;
  if (lost()) return 15;
  *mhz = type == 1 ? 1440 : type == 2 ? 1215 : 7;
  return 0;
}
result nvmlDeviceGetTemperature(device gpu, int sensor, unsigned *c) {
  (void)gpu;
  if (lost()) return 15;
  *c = sensor == 0 ? 61 : 999;
  return 0;
}
struct utilization { unsigned gpu, memory; };
result nvmlDeviceGetUtilizationRates(device gpu, struct utilization *out) {
  if (lost()) return 15;
  if (gpu->index) return 3;
  *out = (struct utilization){97, 40};
  return 0;
}
struct memory { unsigned long long total, free, used; };
result nvmlDeviceGetMemoryInfo(device gpu, struct memory *out) {
  const unsigned long long total_mib = is_instance(gpu) ? 11968 : 24576;
  unsigned long long free_mib = is_instance(gpu) ? 11950 : 0;
  if (lost()) return 15;
  if (refused("MemoryInfo")) return refused("MemoryInfo");
  if (of_whole(gpu)) return of_whole(gpu);
  if (!is_instance(gpu)) num_gpus(gpu->index, &free_mib);
  if (free_mib == UNKNOWN) return 3;
  *out = (struct memory){total_mib * MIB, free_mib * MIB, (total_mib - free_mib) * MIB};
  return 0;
}
struct process {
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
};
result nvmlDeviceGetComputeRunningProcesses_v3(device gpu, unsigned *count, struct process *out) {
  const int of_others = getenv("FAKE_MIG") && !is_instance(gpu) ? 4242 : 0;
  const int pid = number("FAKE_PID", of_others);
  const unsigned room = *count;
  if (refused("ComputeRunningProcesses")) return refused("ComputeRunningProcesses");
  if (of_whole(gpu)) return of_whole(gpu);
  *count = pid != 0;
  if (pid == 0) return 0;
  if (room == 0) return 7;  // insufficient size
  *out = (struct process){.pid = (unsigned)pid};
  return 0;
}
result nvmlDeviceGetCurrentClocksThrottleReasons(device gpu, unsigned long long *reasons) {
  if (lost()) return 15;
  *reasons = gpu->index ? 0x40 : 0x4 | 0x1;  // heat; the power cap, and idle
  return 0;
}
