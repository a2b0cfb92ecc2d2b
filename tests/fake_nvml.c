// NVIDIA's management library (libnvidia-ml.so.1) for tests, with the signatures of nvml.h.
//
//   FAKE_GPUS       free MiB of each GPU, separated by commas; `-` for one that reports no memory.
//                   Two GPUs where it is unset
//   FAKE_PID        a process that computes on every GPU
//   FAKE_NVML_INIT  what nvmlInit returns
//
// GPU 0 supports every query and draws 100 W. Every other GPU has no energy counter and no
// utilization, like an old one.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB (1ull << 20)
#define UNKNOWN (~0ull)

typedef struct gpu { unsigned index; } *device;
typedef int result;  // 0 success, 3 not supported

static struct gpu gpus[8] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};

static int number(const char *name, int default_value) {
  const char *text = getenv(name);
  return text && *text ? atoi(text) : default_value;
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
const char *nvmlErrorString(result code) { return code ? "Not Supported" : "Success"; }
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
  if (index >= num_gpus(0, &unused)) return 2;
  *out = &gpus[index];
  return 0;
}
result nvmlDeviceGetUUID(device gpu, char *uuid, unsigned length) {
  const unsigned n = gpu->index * 0x1111;
  snprintf(uuid, length, "GPU-%04x%04x-%04x-%04x-%04x-%04x%04x%04x", n, n, n, n, n, n, n, n);
  return 0;
}
result nvmlDeviceGetHandleByUUID(const char *uuid, device *out) {
  return nvmlDeviceGetHandleByIndex_v2((unsigned)(uuid[4] - '0'), out);
}
result nvmlDeviceGetName(device gpu, char *name, unsigned length) {
  (void)gpu;
  snprintf(name, length, "NVIDIA A30");
  return 0;
}
result nvmlDeviceGetTotalEnergyConsumption(device gpu, unsigned long long *mj) {
  if (gpu->index) return 3;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const double seconds = (double)(now.tv_sec % 100000) + (double)now.tv_nsec / 1e9;
  *mj = (unsigned long long)(100e3 * seconds);
  return 0;
}
result nvmlDeviceGetPowerUsage(device gpu, unsigned *mw) {
  *mw = gpu->index ? 50500 : 100000;
  return 0;
}
result nvmlDeviceGetClockInfo(device gpu, int type, unsigned *mhz) {
  (void)gpu;
  *mhz = type == 1 ? 1440 : type == 2 ? 1215 : 7;
  return 0;
}
result nvmlDeviceGetTemperature(device gpu, int sensor, unsigned *c) {
  (void)gpu;
  *c = sensor == 0 ? 61 : 999;
  return 0;
}
struct utilization { unsigned gpu, memory; };
result nvmlDeviceGetUtilizationRates(device gpu, struct utilization *out) {
  if (gpu->index) return 3;
  *out = (struct utilization){97, 40};
  return 0;
}
struct memory { unsigned long long total, free, used; };
result nvmlDeviceGetMemoryInfo(device gpu, struct memory *out) {
  const unsigned long long total_mib = 24576;
  unsigned long long free_mib = 0;
  num_gpus(gpu->index, &free_mib);
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
  const int pid = number("FAKE_PID", 0);
  const unsigned room = *count;
  (void)gpu;
  *count = pid != 0;
  if (pid == 0) return 0;
  if (room == 0) return 7;  // insufficient size
  *out = (struct process){.pid = (unsigned)pid};
  return 0;
}
result nvmlDeviceGetCurrentClocksThrottleReasons(device gpu, unsigned long long *reasons) {
  *reasons = gpu->index ? 0x40 : 0x4 | 0x1;  // heat; the power cap, and idle
  return 0;
}
