// NVIDIA's two driver libraries in one file, for tests: NVML and libcuda.so.1.
//
//   FAKE_CUDA  the newest CUDA of the driver, for example 13000
//   FAKE_INIT  what cuInit returns
#include "fake_nvml.c"

int cuInit(unsigned flags) { (void)flags; return number("FAKE_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA", 13000); return 0; }
int cuDeviceGetCount(int *count) { return nvmlDeviceGetCount_v2((unsigned *)count); }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) {
  memset(uuid, 0x11 * device, 16);
  return 0;
}
int cuGetErrorName(int error, const char **name) {
  *name = error == 100 ? "CUDA_ERROR_NO_DEVICE" : NULL;
  return 0;
}
