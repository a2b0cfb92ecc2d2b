// NVIDIA's two driver libraries in one file, for tests: NVML and libcuda.so.1.
//
//   FAKE_CUDA     the newest CUDA of the driver, for example 13000
//   FAKE_INIT     what cuInit returns
//   FAKE_MIG      as in fake_nvml.c: CUDA shows one MIG instance, MIG-2222... or the MIG-3333... that
//                 CUDA_VISIBLE_DEVICES names
//   FAKE_UNIFIED  set: the GPUs share the host's memory
//
// With -DOLD there is no second version of cuDeviceGetUuid.
#include "fake_nvml.c"

int cuInit(unsigned flags) { (void)flags; return number("FAKE_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA", 13000); return 0; }
int cuDeviceGetCount(int *count) {
  if (getenv("FAKE_MIG")) return *count = 1, 0;
  return nvmlDeviceGetCount_v2((unsigned *)count);
}
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) {
  memset(uuid, 0x11 * device, 16);
  return 0;
}
#ifndef OLD
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (!getenv("FAKE_MIG")) return cuDeviceGetUuid(uuid, device);
  memset(uuid, visible && !strncmp(visible, "MIG-3", 5) ? 0x33 : 0x22, 16);
  return 0;
}
#endif
int cuDeviceGetName(char *name, int length, int device) {
  (void)device;
  snprintf(name, (size_t)length, "NVIDIA GB10");
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  (void)device;
  *bytes = (size_t)(getenv("FAKE_MIG") ? 11 : 120) << 30;
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  *value = attribute == 18 && getenv("FAKE_UNIFIED") != NULL;
  return 0;
}
int cuGetErrorName(int error, const char **name) {
  *name = error == 100 ? "CUDA_ERROR_NO_DEVICE" : NULL;
  return 0;
}
