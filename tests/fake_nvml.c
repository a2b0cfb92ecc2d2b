// An NVIDIA driver with two GPUs, for tests of what reads it through libnvidia-ml.so.1. Signatures
// are those of nvml.h. GPU 0 tells everything and burns 100 W; GPU 1 is an old one that knows no
// energy and no utilization.
#include <stdint.h>
#include <stdio.h>
#include <time.h>

typedef struct gpu { unsigned index; } *device;
typedef int result;  // 0 success, 3 not supported

static struct gpu gpus[2] = {{0}, {1}};

result nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
result nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(result code) { return code ? "Not Supported" : "Success"; }
result nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
result nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out) {
  if (index > 1) return 2;
  *out = &gpus[index];
  return 0;
}
result nvmlDeviceGetUUID(device gpu, char *uuid, unsigned length) {
  snprintf(uuid, length, "GPU-%u%u%u%u-aaaa", gpu->index, gpu->index, gpu->index, gpu->index);
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
  (void)gpu;
  *out = (struct memory){24ull << 30, 2ull << 30, 22ull << 30};
  return 0;
}
result nvmlDeviceGetCurrentClocksThrottleReasons(device gpu, unsigned long long *reasons) {
  *reasons = gpu->index ? 0x40 : 0x4 | 0x1;  // heat; the power cap, and idle
  return 0;
}
