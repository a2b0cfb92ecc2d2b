/* NVIDIA's two driver libraries in one file, as far as sut.gpus calls them, for machines without a
   GPU. FAKE_GPUS: free MiB of each, with commas; FAKE_CUDA: the driver's CUDA, e.g. 13000;
   FAKE_PID: a process that computes on every GPU; FAKE_INIT: what cuInit returns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (1ull << 20)

static int number(const char *name, int otherwise) {
  const char *text = getenv(name);
  return text && *text ? atoi(text) : otherwise;
}

/* How many there are; free memory of one of them. */
static int gpus(int wanted, unsigned long long *free_mib) {
  const char *next = getenv("FAKE_GPUS");
  int count = 0;
  while (next && *next) {
    if (count++ == wanted) *free_mib = strtoull(next, NULL, 10);
    next = strchr(next, ',');
    next = next ? next + 1 : NULL;
  }
  return count;
}

int cuInit(unsigned flags) { (void)flags; return number("FAKE_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = gpus(-1, NULL); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) {
  memset(uuid, 0, 16);
  uuid[15] = (unsigned char)device;
  return 0;
}
int cuGetErrorName(int error, const char **name) {
  *name = error == 100 ? "CUDA_ERROR_NO_DEVICE" : NULL;
  return 0;
}

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct {
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
} Process;

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  snprintf(version, length, "580.65.06");
  return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
  *handle = (void *)(strtoul(uuid + strlen(uuid) - 2, NULL, 16) + 1);
  return 0;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
  (void)handle;
  snprintf(name, length, "NVIDIA A30");
  return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
  unsigned long long free_mib = 0;
  gpus((int)((unsigned long)handle - 1), &free_mib);
  memory->total = 24576 * MIB;
  memory->free = free_mib * MIB;
  memory->used = memory->total - memory->free;
  return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, Process *processes) {
  const int pid = number("FAKE_PID", 0);
  const unsigned room = *count;
  (void)handle;
  *count = pid != 0;
  if (pid == 0) return 0;
  if (room == 0) return 7; /* insufficient size */
  memset(processes, 0, sizeof *processes);
  processes->pid = (unsigned)pid;
  return 0;
}
